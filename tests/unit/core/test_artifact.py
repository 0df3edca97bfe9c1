from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.core import artifact
from priorkit.core.errors import InputError
from priorkit.core.manifest import CHECKSUM, SCHEMA, FileRecord, Manifest, parse, render


def make(root: Path) -> Manifest:
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("alpha")
    (root / "sub" / "b.bin").write_bytes(bytes(range(256)))
    (root / "state").mkdir()
    (root / "state" / "left").write_text("out")
    return artifact.write_manifest(
        root, kind="toy", step="toy", settings={}, inputs=[], metrics={}, versions={}, seed=1, cost={},
        leave_out=("state",),
    )  # fmt: skip


def test_the_manifest_lists_every_file_but_those_left_out(tmp_path: Path) -> None:
    manifest = make(tmp_path / "x")
    assert set(manifest.files) == {"a.txt", "sub/b.bin"}
    assert manifest.files["a.txt"].sha256 == hashlib.sha256(b"alpha").hexdigest()
    assert manifest.files["a.txt"].size == 5
    opened = artifact.open_artifact(tmp_path / "x")
    assert opened.manifest == manifest
    assert opened.to_json()["schema"] == SCHEMA
    assert not list((tmp_path / "x").glob("*.tmp"))


def test_the_digest_depends_only_on_content(tmp_path: Path) -> None:
    make(tmp_path / "x")
    make(tmp_path / "y" / "z")
    (tmp_path / "y" / "z" / artifact.RECIPE).write_text("paths differ")
    one, other = (artifact.open_artifact(path) for path in (tmp_path / "x", tmp_path / "y" / "z"))
    assert one.digest == other.digest
    shutil.move(tmp_path / "x", tmp_path / "moved")
    assert artifact.open_artifact(tmp_path / "moved").digest == one.digest
    records = dict(one.manifest.files)
    with_recipe = {**records, artifact.RECIPE: FileRecord(size=1, sha256="0")}
    assert artifact.digest_of(with_recipe) == one.digest
    assert artifact.digest_of_files(tmp_path / "y" / "z", sorted(with_recipe)) == one.digest
    renamed = {name.replace("a.txt", "c.txt"): record for name, record in records.items()}
    assert artifact.digest_of(renamed) != one.digest


def test_verify_names_every_damaged_file(tmp_path: Path) -> None:
    root = tmp_path / "x"
    files = make(root).files
    artifact.verify_files(root, files)
    content = bytearray((root / "sub" / "b.bin").read_bytes())
    content[100] ^= 1
    (root / "sub" / "b.bin").write_bytes(content)
    (root / "a.txt").write_text("alph")
    with pytest.raises(InputError) as caught:
        artifact.verify_files(root, files)
    text = str(caught.value)
    assert "a.txt: 5 bytes expected, got 4" in text
    assert "b.bin: SHA-256" in text
    assert "make the artifact again" in text
    (root / "a.txt").unlink()
    with pytest.raises(InputError, match=r"a.txt: the file is missing"):
        artifact.verify_files(root, files, hash_up_to=10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"schema": 99}', "schema 99, this version reads 1"),
        ('{"schema": 1}', "its key 'kind'"),
        ('{"schema": 1, "schema_": 1}', "its key 'kind'"),
        ('{"schema": 1, "kimd": "toy"}', "its key 'kimd'"),
        ("[" * 100_000, "not valid JSON"),
        ("\udcff", "not valid JSON"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / artifact.MANIFEST
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message) as caught:
        artifact.open_artifact(tmp_path)
    assert str(path) in str(caught.value)


def without_checksum(root: Path, **changes: object) -> None:
    """Write an artifact's manifest as versions did that wrote no checksum."""
    path = root / artifact.MANIFEST
    values = {**json.loads(path.read_text()), **changes}
    del values[CHECKSUM]
    path.write_text(json.dumps(values, indent=2) + "\n")


def test_a_wrong_type_in_the_manifest_is_named(tmp_path: Path) -> None:
    make(tmp_path / "x")
    without_checksum(tmp_path / "x", files={"a.txt": {"size": "many", "sha256": "0"}})
    with pytest.raises(InputError, match=r"files.a.txt.size"):
        artifact.open_artifact(tmp_path / "x")


def test_every_flipped_bit_of_a_manifest_is_found(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / artifact.MANIFEST
    intact = path.read_bytes()
    assert parse(intact, "x")[1]
    for bit in range(8 * len(intact)):
        damaged = bytearray(intact)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InputError, match="changed or damaged"):
            parse(bytes(damaged), "x")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.replace(b"{", b"{ ", 1),
        lambda content: content.rstrip(b"\n"),
        lambda content: content.replace(b'"kind"', b'"kind": "llm", "kind"', 1),
        lambda content: json.dumps(json.loads(content)).encode(),
        lambda content: content[:-1] + b" \n",
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content[: len(content) // 2],
        lambda content: content.upper(),
    ],
)
def test_a_manifest_written_in_any_other_way_is_refused(
    change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    make(tmp_path)
    path = tmp_path / artifact.MANIFEST
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match="changed or damaged") as caught:
        artifact.open_artifact(tmp_path)
    assert str(path) in str(caught.value)
    assert "--force" in str(caught.value)


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.text(),
        st.recursive(st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False), st.lists),
        max_size=5,
    )
)
def test_a_manifest_is_read_as_it_was_written(metrics: dict[str, Any]) -> None:
    manifest = Manifest(
        schema_=SCHEMA, kind="toy", step="toy", settings={"zeros": "0" * 64}, inputs=[], files={}, metrics=metrics,
        versions={}, seed=None, created="",
    )  # fmt: skip
    read, checked = parse(render(manifest), "x")
    assert checked
    assert repr(read) == repr(manifest)


def test_a_manifest_without_a_checksum_is_read(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    without_checksum(tmp_path)
    opened = artifact.open_artifact(tmp_path)
    assert (opened.manifest, opened.manifest_checked) == (manifest, False)


def test_added_files_are_named_and_clutter_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path)
    shutil.rmtree(tmp_path / "state")
    (tmp_path / ".DS_Store").write_text("")
    artifact.warn_of_added_files(artifact.open_artifact(tmp_path))
    assert not caplog.records
    (tmp_path / "sub" / "chat_template.jinja").write_text("")
    artifact.warn_of_added_files(artifact.open_artifact(tmp_path))
    assert (
        "1 file was added after the artifact was made and cannot be checked: sub/chat_template.jinja"
        in caplog.text
    )


def test_a_file_that_is_none_any_more_or_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make(tmp_path).files
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.txt").mkdir()

    def fail(path: Path) -> FileRecord:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(artifact, "hash_file", fail)
    with pytest.raises(InputError) as caught:
        artifact.verify_files(tmp_path, files)
    assert "a.txt: a file expected, got a folder or device" in str(caught.value)
    assert "b.bin: cannot be read: Input/output error" in str(caught.value)


def test_no_manifest_means_unfinished(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no complete artifact"):
        artifact.open_artifact(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    artifact.write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        artifact.replace_durably(path, fail)
    assert path.read_text() == "old"
