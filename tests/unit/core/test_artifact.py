from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from priorkit.core import artifact
from priorkit.core.errors import InputError


def make(root: Path) -> artifact.Manifest:
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
    assert opened.to_json()["schema"] == artifact.SCHEMA
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
    with_recipe = {**records, artifact.RECIPE: artifact.FileRecord(size=1, sha256="0")}
    assert artifact.digest_of(with_recipe) == one.digest
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
        ('{"schema": 1}', "the manifest's key 'kind'"),
        ("\udcff", "not valid JSON"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / artifact.MANIFEST
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message) as caught:
        artifact.open_artifact(tmp_path)
    assert str(path) in str(caught.value)


def test_a_wrong_type_in_the_manifest_is_named(tmp_path: Path) -> None:
    make(tmp_path / "x")
    path = tmp_path / "x" / artifact.MANIFEST
    values = json.loads(path.read_text())
    values["files"]["a.txt"]["size"] = "many"
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"files.a.txt.size"):
        artifact.open_artifact(tmp_path / "x")


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
