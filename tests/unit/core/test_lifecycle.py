from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from safetensors import SafetensorError

from priorkit.core import artifact
from priorkit.core.artifact import Artifact
from priorkit.core.errors import InputError, Interrupted, ResourceError, UsageError
from priorkit.core.inputs import Input
from priorkit.core.lifecycle import produce
from priorkit.core.manifest import CHECKSUM
from priorkit.core.options.settings import StepSettings, argument, option
from priorkit.core.process import capacity
from priorkit.core.work import Plan, Work


class Toy(StepSettings):
    step: ClassVar[str] = "toy"
    kind: ClassVar[str] = "toy"
    examples: ClassVar[tuple[str, str]] = ("", "")

    source: str = argument("Where from.", accepts=("toy",))
    text: str = option("x", "What to add.")
    loud: int = option(0, "How loudly to work.", changes_result=False)


def plan(settings: Toy, inputs: Mapping[str, Input]) -> Plan:
    return Plan([("source", str(inputs["source"].path.stat().st_size))])


def write(settings: Toy, work: Work) -> None:
    (work.scratch / "temporary").write_text("gone")
    (work.path / "result.txt").write_text(work.inputs["source"].path.read_text() + settings.text)
    work.metrics.update(length=3)


Run = Callable[..., Artifact | None]


class Bench(NamedTuple):
    out: Path
    source: Path
    run: Run

    @property
    def partial(self) -> Path:
        return self.out.with_name("out.partial")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    source = tmp_path / "source.txt"
    source.write_text("s")

    def run(
        execute: Callable[[Toy, Work], None] = write, plan_with: Any = plan, **values: Any
    ) -> Artifact | None:
        settings = Toy(**{"source": str(source), "out": str(tmp_path / "out"), **values})
        return produce(settings, plan_with, execute)

    return Bench(tmp_path / "out", source, run)


def refuse(settings: Toy, work: Work) -> None:
    raise AssertionError("the work is done already")


def test_a_step_makes_an_artifact_with_manifest_and_recipe(bench: Bench) -> None:
    made = bench.run()
    assert made is not None
    assert (bench.out / "result.txt").read_text() == "sx"
    assert set(made.manifest.files) == {"result.txt", "recipe.toml"}
    assert sorted(item.name for item in bench.out.iterdir()) == [
        "README.md",
        "priorkit.json",
        "recipe.toml",
        "result.txt",
    ]
    assert made.manifest.metrics == {"length": 3}
    assert not bench.partial.exists()
    assert str(bench.source) in (bench.out / "recipe.toml").read_text()


def test_the_same_again_is_up_to_date(bench: Bench) -> None:
    first = bench.run()
    again = bench.run(refuse, loud=3, quiet=True)
    assert again is not None
    assert first is not None
    assert again.digest == first.digest


def test_an_artifact_from_before_an_option_was_added_is_up_to_date(bench: Bench) -> None:
    bench.run()
    file = bench.out / "priorkit.json"
    manifest = json.loads(file.read_text())
    del manifest["settings"]["text"]
    del manifest[CHECKSUM]
    file.write_text(json.dumps(manifest))
    assert bench.run(refuse) is not None
    with pytest.raises(UsageError, match='text is "x", now "y"'):
        bench.run(refuse, text="y")


@pytest.mark.parametrize("check", [False, True])
def test_a_difference_is_named_and_refused(bench: Bench, check: bool) -> None:
    bench.run()
    with pytest.raises(UsageError, match='text is "x", now "y"') as caught:
        bench.run(refuse, text="y", check=check)
    assert "--force" in str(caught.value)
    bench.source.write_text("other")
    with pytest.raises(UsageError, match=r"the input source .* has changed"):
        bench.run(refuse, check=check)


@pytest.mark.parametrize("folder", ["out", "out.partial"])
def test_a_damaged_manifest_is_refused_and_replaced_with_force(bench: Bench, folder: str) -> None:
    bench.run()
    path = bench.out.with_name(bench.out.name.replace("out", folder)) / "priorkit.json"
    if folder == "out.partial":
        bench.out.rename(path.parent)
    path.write_bytes(path.read_bytes().replace(b'"metrics"', b'"metrjcs"'))
    for check in (False, True):
        with pytest.raises(InputError, match="the manifest was changed or damaged") as caught:
            bench.run(refuse, check=check)
        assert "--force" in str(caught.value)
    bench.run(force=True)
    assert artifact.open_artifact(bench.out).manifest_checked
    assert not path.exists() or folder == "out"


def test_a_damaged_result_is_not_up_to_date(bench: Bench) -> None:
    bench.run()
    (bench.out / "result.txt").write_text("sxx")
    with pytest.raises(UsageError, match=r"result\.txt is missing or damaged"):
        bench.run(refuse)
    bench.run(force=True)
    assert (bench.out / "result.txt").read_text() == "sx"


def test_force_replaces_and_keeps_the_old_until_the_new_is_complete(bench: Bench) -> None:
    bench.run()

    def fail(settings: Toy, work: Work) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        bench.run(fail, text="y", force=True)
    assert (bench.out / "result.txt").read_text() == "sx"
    bench.run(text="y", force=True)
    assert (bench.out / "result.txt").read_text() == "sy"
    assert sorted(item.name for item in bench.out.parent.iterdir()) == ["out", "source.txt"]


def test_a_users_folder_is_never_replaced(bench: Bench) -> None:
    bench.out.mkdir()
    bench.run()
    shutil.rmtree(bench.out)
    bench.out.mkdir()
    (bench.out / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not empty and is no priorkit artifact"):
        bench.run(force=True)
    assert (bench.out / "thesis.tex").exists()


@pytest.mark.parametrize("place", ["out", "out.partial", "file/out"])
def test_a_file_in_the_way_is_named(bench: Bench, place: str) -> None:
    path = bench.out.parent / place
    if place == "file/out":
        path.parent.write_text("")
    else:
        path.write_text("")
    with pytest.raises(UsageError, match="this is a file"):
        bench.run(out=str(path).removesuffix(".partial"))


@pytest.mark.parametrize("out", [".", "..", "/"])
def test_the_current_folder_cannot_be_made(
    bench: Bench, out: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    with pytest.raises(UsageError, match="--out names a directory to make"):
        bench.run(out=out)


def test_no_out_is_a_usage_error(bench: Bench) -> None:
    with pytest.raises(UsageError, match="--out is missing"):
        bench.run(out=None)


def test_check_reads_no_file_for_its_digest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest of a model of 50 GB takes minutes; there is nothing to compare it with."""

    def read(*_: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(artifact, "hash_file", read)
    monkeypatch.setattr(artifact, "hash_files", read)
    assert bench.run(refuse, check=True) is None


def test_check_writes_nothing_and_logs_the_plan(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "priorkit"):
        assert bench.run(refuse, check=True) is None
    assert sorted(item.name for item in bench.out.parent.iterdir()) == ["source.txt"]
    assert any("toy at" in message for message in caplog.messages)
    assert any(message.split() == ["source", "1"] for message in caplog.messages)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, InputError])
def test_a_failure_leaves_nothing(bench: Bench, error: type[BaseException]) -> None:
    def fail(settings: Toy, work: Work) -> None:
        (work.path / "half").write_text("half")
        raise error("stopped")

    with pytest.raises(error):
        bench.run(fail)
    assert sorted(item.name for item in bench.out.parent.iterdir()) == ["source.txt"]


def interrupt(settings: Toy, work: Work) -> None:
    work.state.mkdir()
    (work.state / "step").write_text("7")
    (work.path / "half").write_text("half")
    raise Interrupted("stopped")


def go_on(settings: Toy, work: Work) -> None:
    assert (work.state / "step").read_text() == "7"
    assert not (work.path / "half").exists()
    write(settings, work)


def test_an_interrupted_run_resumes_from_its_checkpoint(bench: Bench) -> None:
    with pytest.raises(Interrupted):
        bench.run(interrupt)
    assert (bench.partial / "state" / "step").exists()
    bench.run(go_on, loud=5)
    assert not (bench.out / "state").exists()
    assert not bench.partial.exists()


@pytest.mark.parametrize("check", [False, True])
def test_the_state_of_another_request_is_not_used_and_not_thrown_away(bench: Bench, check: bool) -> None:
    with pytest.raises(Interrupted):
        bench.run(interrupt)
    with pytest.raises(UsageError, match='text was "x", now "y"'):
        bench.run(refuse, text="y", check=check)
    bench.source.write_text("changed")
    with pytest.raises(UsageError, match="source was"):
        bench.run(refuse, check=check)
    assert (bench.partial / "state" / "step").exists()

    def fresh(settings: Toy, work: Work) -> None:
        assert not work.state.exists()
        write(settings, work)

    bench.run(fresh, text="y", force=True)


def test_the_state_is_kept_until_the_manifest_is_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    def train(settings: Toy, work: Work) -> None:
        work.state.mkdir()
        (work.state / "step").write_text("7")
        write(settings, work)

    with monkeypatch.context() as patch:
        patch.setattr(artifact, "hash_files", die)
        with pytest.raises(KeyboardInterrupt):
            bench.run(train)
    bench.run(go_on)


def test_what_a_killed_run_left_is_cleared(bench: Bench) -> None:
    bench.partial.mkdir()
    (bench.partial / "half").write_text("half")
    bench.run()
    assert not (bench.out / "half").exists()


def test_two_runs_at_once_are_refused(bench: Bench) -> None:
    bench.partial.mkdir()
    lock = os.open(bench.partial, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with pytest.raises(ResourceError, match="another process"):
            bench.run()
    finally:
        os.close(lock)
    bench.run()


def test_too_little_disk_is_reported_before_the_work(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10, 9, 1))
    with pytest.raises(ResourceError, match=r"about 5\.0 kB of disk needed, 1 B free"):
        bench.run(refuse, lambda settings, inputs: Plan(disk_bytes=5000))


def test_too_little_memory_is_reported_before_the_work(bench: Bench) -> None:
    with pytest.raises(ResourceError, match="of memory needed"):
        bench.run(refuse, lambda settings, inputs: Plan(memory_bytes=1 << 60))


def full_by_python(work: Work) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_by_safetensors(work: Work) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def full_by_parquet(work: Work) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Through a link of ours: pyarrow removes the file that it could not write.
    (work.path / "x.parquet").symlink_to("/dev/full")
    pq.write_table(pa.table({"x": list(range(10_000))}), work.path / "x.parquet")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("fill", [full_by_python, full_by_safetensors, full_by_parquet])
def test_a_full_disk_is_distinguished_from_a_bug(bench: Bench, fill: Callable[[Work], None]) -> None:
    with pytest.raises(ResourceError, match="the disk is full"):
        bench.run(lambda settings, work: fill(work))
    assert not bench.partial.exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EFBIG, "File too large", "a.bin"), "the file is larger than the limit .*: a.bin"),
        (Exception("File too large (os error 27)"), "the file is larger than the limit"),
        (OSError(errno.EIO, "Input/output error"), "the disk fails"),
        (OSError(errno.EROFS, "Read-only file system"), "the file system is read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "b.bin"), "no permission: b.bin"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files"),
    ],
)
def test_what_the_machine_cannot_do_is_named(bench: Bench, error: Exception, words: str) -> None:
    def fail(settings: Toy, work: Work) -> None:
        raise error

    with pytest.raises(ResourceError, match=words):
        bench.run(fail)
    assert not bench.partial.exists()


def test_another_error_of_the_system_is_a_bug(bench: Bench) -> None:
    def fail(settings: Toy, work: Work) -> None:
        raise OSError(errno.ENOTDIR, "Not a directory")

    with pytest.raises(OSError, match="Not a directory"):
        bench.run(fail)


def test_an_unwritable_place_is_reported(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResourceError, match="/proc"):
        bench.run(refuse, out="/proc/priorkit-test")
    monkeypatch.setattr(capacity.os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(ResourceError, match="not writable"):
        bench.run(refuse)


def test_all_missing_inputs_are_named_at_once(bench: Bench) -> None:
    class Two(Toy):
        second: str | None = option(None, "Another.", accepts=("toy",))

    settings = Two(source=str(bench.out / "no"), second=str(bench.out / "neither"), out=str(bench.out))
    with pytest.raises(InputError) as caught:
        produce(settings, plan, refuse)
    assert [problem.where for problem in caught.value.problems] == ["SOURCE", "--second"]


def test_an_input_that_was_tampered_with_is_refused(bench: Bench) -> None:
    bench.run()
    (bench.out / "result.txt").write_text("!!")
    with pytest.raises(InputError, match=r"result\.txt: SHA-256"):
        bench.run(refuse, source=str(bench.out / "result.txt"), out=str(bench.out) + "-2")
