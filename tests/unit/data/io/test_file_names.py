"""Names on disk: each once, in the order of their characters, in bounded memory."""

from __future__ import annotations

import random
import sqlite3
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.core.artifact import digest_of_files
from priorkit.core.errors import ResourceError
from priorkit.core.inputs import Input
from priorkit.data.io import file_names
from priorkit.data.io.file_names import FileNames


@settings(max_examples=50)
@given(
    st.lists(st.text(st.characters(codec=None)) | st.sampled_from(["a", "B/ä.png", "\udc80", "\uffff", "😀"]))
)
def test_as_a_sorted_set(names: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_names, "_ADDED_AT_ONCE", 3)
        found = FileNames(iter(names))
    assert list(found) == sorted(set(names))
    assert (len(found), bool(found)) == (len(set(names)), bool(names))
    assert all(name in found for name in names)
    assert "not there" not in found
    assert 1 not in found


def test_memory_does_not_grow_with_their_number() -> None:
    def peak(count: int) -> int:
        order = random.Random(1)
        tracemalloc.start()
        found = FileNames(f"train/{order.getrandbits(60):020d}.jpg" for _ in range(count))
        assert sum(1 for _ in found) == len(found) == count
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(250_000) < 1.2 * peak(100_000)


def test_files_listed_so_decide_the_same_digests(tmp_path: Path) -> None:
    names = ("a.png", "b/c.png", "b/d.png")
    (tmp_path / "b").mkdir()
    for name in names:
        (tmp_path / name).write_text(name)
    one, other = (
        Input("images", "in", tmp_path, "files", files=kind) for kind in (names, FileNames(names[::-1]))
    )
    assert other.digest() == one.digest() == digest_of_files(tmp_path, names)
    assert other.stamp() == one.stamp()
    before = one.digest()
    (tmp_path / "b/d.png").write_text("changed")
    assert other.digest() == one.digest() != before


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def execute(self, *_: object) -> Full:
            return self

        def executemany(self, *_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        def close(self) -> None: ...

    monkeypatch.setattr(file_names.sqlite3, "connect", lambda *_, **__: Full())
    with pytest.raises(ResourceError, match="database or disk is full"):
        FileNames(["a"])
