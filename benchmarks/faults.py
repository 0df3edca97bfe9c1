"""Faults: flipped bits, kills, malformed inputs, full disks and broken streams, in one table.

    python benchmarks/faults.py [--quick] [--seed N] [--flips N] [--kills N] [--disks N] [--malformed N]
        [--only flips,kills,malformed,disks,streams] [--show]

Small artifacts of every kind are made by the steps themselves. Then:

- single bits are flipped in all files of artifacts of every kind; ``verify`` must refuse each and name the file;
- every step is killed (SIGKILL) at random moments and at random changes of files (before an open, a write to the
  disk, a renaming, a removal), one to three times, and run again: the files must be those of an undisturbed run,
  nothing may be left over;
- every file that a step reads is damaged in ways of its format, and given to ``--check`` and to the run: each must
  end with 0, 2, 3 or 4 (5 for weights that are no numbers), in words that name the file, and leave nothing;
- the disk is full from a random change of files on, files may not grow beyond a size, and, where a user may mount
  one, on a small tmpfs: exit code 4, and the same command again gives the same bytes;
- standard output and error are closed, full, or read by nobody: exit code 4 where the result cannot be printed, else
  0, the artifact kept.

``--quick`` takes a tenth of everything and some of the steps. Failures are printed with ``--show``; the exit code is 1
where there are any.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
# Before torch is imported. Children are forked, which threads of tokenizers do not survive.
os.environ.update(
    OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1",
    TRANSFORMERS_VERBOSITY="error",
)  # fmt: skip

from tests.support.faults.commands import TRAINING, Words, every_command
from tests.support.faults.disk import full_disks
from tests.support.faults.flips import flip_bits
from tests.support.faults.inputs import every_slot
from tests.support.faults.kills import Site, Undisturbed, killed_runs, undisturbed
from tests.support.faults.refusals import try_malformed
from tests.support.faults.streams import STATES, broken_streams, in_a_shell
from tests.support.small_artifacts import SmallArtifacts, make_small_artifacts, run_in_process

FAMILIES = ("flips", "kills", "malformed", "disks", "streams")
QUICK = ("tokenizer", "mix", "pretrain", "align", "tune-lora", "merge-adapters")
"""Steps of ``--quick``."""


@dataclass
class Row:
    """A row of the table.

    Attributes:
        fault: what was done.
        wanted: what must follow.
        trials: how often it was done.
        reached: in how many of them the fault came before the command's end.
        wrong: what went wrong.
        seconds: how long it took.
    """

    fault: str
    wanted: str
    trials: int = 0
    reached: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, reached: bool, name: str, wrong: str) -> None:
        """Count a trial."""
        self.trials += 1
        self.reached += reached
        if wrong:
            self.wrong.append(f"{name}: {wrong}")

    def line(self) -> str:
        """The row in Markdown."""
        right = self.trials - len(self.wrong)
        cells = (self.fault, self.wanted, str(self.trials), str(self.reached), f"{right} of {self.trials}")
        return "| " + " | ".join((*cells, f"{self.seconds:.0f}")) + " |"


class Bench:
    """The artifacts, and where commands are run."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        os.environ["PRIORKIT_CACHE"] = str(folder / "cache")
        (folder / "small").mkdir()
        (folder / "commands").mkdir()
        self.artifacts: SmallArtifacts = make_small_artifacts(folder / "small")
        self.commands = every_command(self.artifacts, folder / "commands")
        if options.quick:
            self.commands = {name: self.commands[name] for name in QUICK}
        self.made: dict[str, Path] = {}
        # Each command runs once in this process, so that forked children need import nothing.
        for name, words in self.commands.items():
            done = run_in_process(*words, "--out", folder / "made" / name)
            if done.code != 0:
                raise SystemExit(f"{name}: {done.err}")
            self.made[name] = done.path
        self._undisturbed: dict[str, Undisturbed] = {}

    def random(self, name: str) -> random.Random:
        """A generator of its own for each part, so that counts do not change the others."""
        return random.Random(f"{self.options.seed} {name}")

    def site(self, name: str) -> tuple[Site, Undisturbed]:
        """Where a command runs, and what it gives undisturbed."""
        site = Site(self.commands[name], self.folder / "sites" / name)
        if name not in self._undisturbed:
            self._undisturbed[name] = undisturbed(site)
        return site, self._undisturbed[name]


def flips(bench: Bench) -> Iterator[Row]:
    """Flipped bits."""
    small = sorted((bench.folder / "small").iterdir())
    row = Row("a bit flipped in a file", "found by `verify`")
    for flip in flip_bits([*bench.made.values(), *small], bench.options.flips, bench.random("flips")):
        row.add(True, f"{flip.file} bit {flip.bit}", "" if flip.found else f"exit {flip.answer.code}")
    yield row


def kills(bench: Bench) -> Iterator[Row]:
    """Kills of training steps, and of those that only write."""
    rows = {
        True: Row("a training step killed 1 to 3 times", "the same bytes, nothing left over"),
        False: Row("another step killed 1 to 3 times", "the same bytes, nothing left over"),
    }
    for name in bench.commands:
        row, begun = rows[name in TRAINING], time.monotonic()
        for kill in killed_runs(*bench.site(name), bench.options.kills, bench.random(f"kills {name}")):
            row.add(kill.reached, f"{name} killed at {kill.where}", kill.wrong)
        row.seconds += time.monotonic() - begun
    yield from rows.values()


def malformed(bench: Bench) -> Iterator[Row]:
    """Malformed inputs."""
    (bench.folder / "inputs").mkdir()
    slots = every_slot(bench.artifacts, bench.folder / "inputs")
    shuffled = bench.random("slots").sample(slots, len(slots))
    row = Row(f"a malformed input ({len(slots)} inputs of steps)", "0, 2, 3 or 4, the file named")
    trials = try_malformed(
        shuffled, bench.options.malformed, bench.random("malformed"), bench.folder / "trial"
    )
    for trial in trials:
        err = (trial.check.err if trial.check.code == 1 else trial.run.err)[-1500:]
        wrong = f"{trial.wrong}\n{err}" if trial.wrong else ""
        row.add(trial.run.code != 0, f"{trial.slot.name}, {trial.mutation}", wrong)
    yield row


def disks(bench: Bench) -> Iterator[Row]:
    """Full disks."""
    rows: dict[str, Row] = {}
    for name in bench.commands:
        begun = time.monotonic()
        found = list(full_disks(*bench.site(name), bench.options.disks, bench.random(f"disks {name}")))
        for full in found:
            way = full.way.split(" from ")[0].split(" of ")[0]
            row = rows.setdefault(way, Row(f"a full disk: {way}", "4, then the same bytes"))
            row.add(full.reached, f"{name}, {full.way}", full.wrong)
            row.seconds += (time.monotonic() - begun) / len(found)
    yield from rows.values()


def streams(bench: Bench) -> Iterator[Row]:
    """Broken standard streams, of steps in children and of other commands in a shell."""
    steps = Row("standard output or error closed, full or unread: steps", "0 or 4, the artifact kept")
    for name in bench.commands:
        site, whole = bench.site(name)
        every = list(STATES)
        chosen = every if not bench.options.quick else bench.random(name).sample(every, 3)
        for stream in broken_streams(site, whole, chosen):
            steps.add(True, f"{name}, {stream.state}", stream.wrong)
    yield steps
    shells = Row("the same in a shell: other commands", "0 or 4, no traceback")
    tokenizer, corpus = bench.artifacts.tokenizer, bench.artifacts.corpus
    commands: list[Words] = [("verify", tokenizer), ("recipe", "list")]
    if not bench.options.quick:
        commands += [
            ("--help",), ("--version",), ("pretrain", "--help"), ("inspect", tokenizer), ("diff", tokenizer, corpus),
            ("recipe", "show", "pretrain"), ("recipe", "check", tokenizer / "recipe.toml"), ("recipe", "schema"),
            (*bench.commands["tokenizer"], "--out", bench.made["tokenizer"]),
        ]  # fmt: skip
    for words in commands:
        for stream in in_a_shell(words, list(STATES), bench.folder):
            shells.add(True, f"{' '.join(map(str, words))}, {stream.state}", stream.wrong)
    yield shells


def parse() -> argparse.Namespace:
    """The options; ``--quick`` divides the counts by ten."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of all counts, some of the steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flips", type=int, default=1000, help="flipped bits in all")
    parser.add_argument("--kills", type=int, default=6, help="trials for each step")
    parser.add_argument("--disks", type=int, default=6, help="trials for each step")
    parser.add_argument("--malformed", type=int, default=400, help="malformed files in all")
    parser.add_argument("--only", default=",".join(FAMILIES), help="families, separated by commas")
    parser.add_argument("--show", action="store_true", help="print what went wrong")
    options = parser.parse_args()
    if options.quick:
        options.flips, options.malformed = options.flips // 10, options.malformed // 10
        options.kills, options.disks = max(2, options.kills // 3), max(3, options.disks // 3)
    return options


def main() -> int:
    """Run the families asked for and print the table."""
    options = parse()
    runners: dict[str, Callable[[Bench], Iterator[Row]]] = {
        "flips": flips, "kills": kills, "malformed": malformed, "disks": disks, "streams": streams,
    }  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    wrong: list[str] = []
    try:
        begun = time.monotonic()
        bench = Bench(folder, options)
        kinds = {line for path in bench.made.values() for line in [_kind(path)]}
        print(f"{len(bench.commands)} commands, artifacts of {len(kinds)} kinds: {', '.join(sorted(kinds))}")
        print(f"made in {time.monotonic() - begun:.0f} s\n", flush=True)
        print(
            "| fault | wanted | trials | reached | right | seconds |\n|---|---|---|---|---|---|", flush=True
        )
        for family in options.only.split(","):
            begun = time.monotonic()
            for row in runners[family](bench):
                row.seconds = row.seconds or time.monotonic() - begun
                begun = time.monotonic()
                print(row.line(), flush=True)
                wrong += row.wrong
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.show:
        print("".join(f"\n{text}\n" for text in wrong))
    return 1 if wrong else 0


def _kind(path: Path) -> str:
    from priorkit.core.artifact import open_artifact

    return open_artifact(path).kind


if __name__ == "__main__":
    sys.exit(main())
