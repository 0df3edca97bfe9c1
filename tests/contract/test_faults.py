"""A slice of ``benchmarks/faults.py``: flipped bits, kills, full disks, broken streams and malformed inputs."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.faults import malformed
from tests.support.faults.commands import TRAINING, Words, every_command
from tests.support.faults.disk import full_disks
from tests.support.faults.flips import flip_bits
from tests.support.faults.inputs import every_slot
from tests.support.faults.kills import Site, killed_runs, undisturbed
from tests.support.faults.refusals import try_malformed
from tests.support.faults.streams import STATES, broken_streams, in_a_shell
from tests.support.small_artifacts import SmallArtifacts, run_in_process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def commands(artifacts: SmallArtifacts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Words]:
    return every_command(artifacts, tmp_path_factory.mktemp("commands"))


@pytest.fixture
def site(commands: dict[str, Words], tmp_path: Path) -> Callable[[str], Site]:
    """Where a command is run; it runs once in this process, so that children need import nothing."""

    def make(name: str) -> Site:
        made = run_in_process(*commands[name], "--out", tmp_path / "first")
        assert made.code == 0, made.err
        return Site(commands[name], tmp_path / name)

    return make


def test_every_flipped_bit_is_found(artifacts: SmallArtifacts) -> None:
    roots = [artifacts.world, artifacts.tokenizer, artifacts.corpus, artifacts.llm, artifacts.scores]
    flips = list(flip_bits(roots, 100, random.Random(1)))
    assert [flip for flip in flips if not flip.found] == []
    assert all(run_in_process("verify", root).code == 0 for root in roots)


@pytest.mark.parametrize("name", ["mix", "pretrain", "merge-adapters"])
def test_a_command_killed_anywhere_gives_the_same_bytes(site: Callable[[str], Site], name: str) -> None:
    place = site(name)
    found = list(killed_runs(place, undisturbed(place), 4, random.Random(2)))
    assert [kill for kill in found if kill.wrong] == []
    assert any(kill.reached for kill in found)


@pytest.mark.parametrize("name", ["tokenizer", "pretrain", "merge-adapters"])
def test_a_full_disk_is_named_and_the_same_command_then_gives_the_same_bytes(
    site: Callable[[str], Site], name: str
) -> None:
    place = site(name)
    found = list(full_disks(place, undisturbed(place), 6, random.Random(3)))
    assert [full for full in found if full.wrong] == []
    assert any(full.reached for full in found)


@pytest.mark.parametrize("name", ["mix", "pretrain"])
def test_broken_streams_cost_the_words_only(site: Callable[[str], Site], name: str) -> None:
    place = site(name)
    found = list(broken_streams(place, undisturbed(place), list(STATES)))
    assert [stream for stream in found if stream.wrong] == []


@pytest.mark.parametrize("words", [("verify", "{}"), ("recipe", "show", "pretrain")])
def test_broken_streams_in_a_shell(words: tuple[str, ...], artifacts: SmallArtifacts, tmp_path: Path) -> None:
    command = [word.format(artifacts.tokenizer) for word in words]
    found = list(in_a_shell(command, ["stdout closed", "both full", "stdout's reader gone"], tmp_path))
    assert [stream for stream in found if stream.wrong] == []


def test_malformed_inputs_are_refused_in_words(artifacts: SmallArtifacts, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    slots = every_slot(artifacts, tmp_path / "files")
    chosen = random.Random(4).sample(slots, 30)
    trials = list(try_malformed(chosen, 30, random.Random(5), tmp_path / "trial"))
    assert [(trial.slot.name, trial.mutation, trial.wrong) for trial in trials if trial.wrong] == []
    assert {trial.run.code for trial in trials} >= {0, 3}


def test_every_training_step_is_killed(commands: dict[str, Words]) -> None:
    from priorkit.step_table import STEPS

    assert {str(words[0]) for words in commands.values()} == set(STEPS)
    assert set(TRAINING) <= set(commands)


@pytest.mark.parametrize("name", sorted(malformed.FORMATS))
def test_mutations_are_made_from_a_seed(name: str) -> None:
    content = {
        "json": b'[{"a": 1}]', "jsonl": b'{"a": 1}\n', "text": b"some words = 1\n",
    }.get(name)  # fmt: skip
    if content is None:
        pytest.skip("binary: covered by the inputs")
    one, other = (malformed.malformed(name, content, random.Random(6)) for _ in "ab")
    assert one == other
