from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from priorkit.core import artifact
from priorkit.core.errors import InputError
from priorkit.core.inputs import resolve


@pytest.fixture
def made(tmp_path: Path) -> Path:
    root = tmp_path / "made"
    (root / "part").mkdir(parents=True)
    (root / "part" / "b.txt").write_text("b")
    (root / "a.txt").write_text("a")
    artifact.write_manifest(
        root, kind="toy", step="toy-step", settings={}, inputs=[], metrics={}, versions={}, seed=1, cost={}
    )
    return root


def test_an_artifact_is_taken_by_kind(made: Path) -> None:
    found = resolve(str(made), "source", ("toy",))
    assert (found.kind, found.digest()) == ("toy", artifact.open_artifact(made).digest)
    assert found.stamp() == ""
    with pytest.raises(InputError) as caught:
        resolve(str(made), "source", ("llm", "mllm"), label="LLM")
    assert (
        str(caught.value)
        == f"LLM {made}: expected llm or mllm, got an artifact of kind 'toy' made by 'toy-step'"
    )


@pytest.mark.parametrize("name", ["part", "part/b.txt"])
def test_a_part_of_an_artifact_is_checked_separately(made: Path, name: str) -> None:
    found = resolve(str(made / name), "source", ("llm",))
    assert found.kind == "part of toy"
    before = found.digest()
    (made / "a.txt").write_text("changed")
    found.verify()
    (made / "part" / "b.txt").write_text("c")
    assert found.digest() == before
    with pytest.raises(InputError, match=r"b\.txt"):
        found.verify()


def test_a_file_put_into_an_artifact_by_the_user_is_a_user_file(made: Path) -> None:
    extra = made / "mine.txt"
    extra.write_text("1")
    found = resolve(str(extra), "source", ())
    assert found.kind == "file"
    before = found.digest()
    extra.write_text("2")
    assert found.digest() != before


def test_a_user_folder_is_recognized_by_stamp_and_digest(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "x").write_text("1")
    record = resolve(str(folder), "source", ()).record()
    assert record.kind == "directory"
    os.utime(folder / "x", (1, 1))
    touched = resolve(str(folder), "source", ()).record(record)
    assert touched.digest == record.digest
    assert touched.stamp != record.stamp
    (folder / "y").write_text("2")
    assert resolve(str(folder), "source", ()).record(record).digest != record.digest


def test_an_unfinished_artifact_is_refused(tmp_path: Path) -> None:
    (tmp_path / "llm.partial" / "state").mkdir(parents=True)
    with pytest.raises(InputError, match="unfinished"):
        resolve(str(tmp_path / "llm.partial"), "llm", ("llm",))
    with pytest.raises(InputError, match="unfinished"):
        resolve(str(tmp_path / "llm.partial" / "state"), "llm", ("llm",))
    with pytest.raises(InputError, match="has not finished; run it again"):
        resolve(str(tmp_path / "llm"), "llm", ("llm",))


def test_a_missing_path_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    with pytest.raises(InputError, match=r"did you mean 'corpus'\?"):
        resolve(str(tmp_path / "corpsu"), "corpus", ())
    with pytest.raises(InputError, match="does not exist either"):
        resolve(str(tmp_path / "no" / "corpus"), "corpus", ())


@pytest.mark.parametrize("given", ["", "  "])
def test_an_empty_path_is_not_the_current_folder(given: str) -> None:
    with pytest.raises(InputError, match="the path is empty"):
        resolve(given, "corpus", ())


def test_the_hub_offline_answers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "pairs").mkdir()
    begun = time.monotonic()
    with pytest.raises(
        InputError, match=r"the hub gave no such model \(it cannot be reached, and its local cache"
    ):
        resolve("nobody/nothing", "llm", ("llm",), hub="model", label="LLM")
    with pytest.raises(InputError, match=r"did you mean 'pairs'\?"):
        resolve("world/pair", "pairs", (), hub="dataset")
    assert time.monotonic() - begun < 5
