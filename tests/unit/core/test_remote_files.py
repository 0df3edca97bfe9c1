"""Files at addresses of fsspec: copied in pieces, resumed, renewed when they change, refused where they are broken."""

from __future__ import annotations

import io

import fsspec
import pytest

from priorkit.core import remote_files
from priorkit.core.errors import InputError, ResourceError
from priorkit.core.inputs import resolve
from priorkit.core.remote_files import fetch, is_address


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(remote_files.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def storage():
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    for name in ("a.jsonl", "b.jsonl", "c.txt", "deep/d.jsonl"):
        memory.pipe(f"/bucket/text/{name}", name.encode() * 100)
    return memory


def test_what_is_an_address():
    assert all(map(is_address, ("s3://b/a.jsonl", "hf://datasets/o/n/a.parquet", "simplecache::s3://b/x")))
    assert not any(map(is_address, ("owner/name", "C:/x", "a=s3://b", "/data/a.jsonl", "https:/x")))


def test_a_file_a_folder_and_a_pattern(storage):
    path, version = fetch("memory://bucket/text/a.jsonl", "SOURCE")
    assert path.read_bytes() == b"a.jsonl" * 100
    folder, _ = fetch("memory://bucket/text", "SOURCE")
    assert sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.*")) == [
        "a.jsonl", "b.jsonl", "c.txt", "deep/d.jsonl",
    ]  # fmt: skip
    matched, _ = fetch("memory://bucket/text/*.jsonl", "SOURCE")
    assert sorted(file.name for file in matched.iterdir()) == ["a.jsonl", "b.jsonl"]
    assert fetch("memory://bucket/text/a.jsonl", "SOURCE") == (path, version)


def test_an_input_is_recorded_by_its_version(storage):
    first = resolve("memory://bucket/text/a.jsonl", "source", ("text",), "dataset")
    assert (first.kind, first.digest()) == ("remote", first.revision)
    storage.pipe("/bucket/text/a.jsonl", b"longer " * 200)
    second = resolve("memory://bucket/text/a.jsonl", "source", ("text",), "dataset")
    assert second.digest() != first.digest()
    assert second.path.read_bytes() == b"longer " * 200


def test_an_interrupted_copy_goes_on_where_it_stopped(storage, monkeypatch):
    content = bytes(range(256)) * 64
    storage.pipe("/bucket/big.bin", content)
    monkeypatch.setattr(remote_files, "PIECE_BYTES", 1000)
    opened, reads = storage.open, []

    class Breaks(io.BytesIO):
        def read(self, size=-1):
            reads.append(self.tell())
            if len(reads) == 5:
                raise OSError("connection reset")
            return super().read(size)

    monkeypatch.setattr(type(storage), "open", lambda self, path, mode: Breaks(opened(path, mode).read()))
    with pytest.raises(InputError, match=r"SOURCE /bucket/big\.bin: cannot be read: connection reset"):
        fetch("memory://bucket/big.bin", "SOURCE")
    path, _ = fetch("memory://bucket/big.bin", "SOURCE")
    assert path.read_bytes() == content
    assert reads[5] == 4000


def test_a_file_of_another_size_than_stated_is_refused(storage, monkeypatch):
    monkeypatch.setattr(type(storage), "open", lambda self, path, mode: io.BytesIO(b"short"))
    with pytest.raises(InputError, match="700 bytes expected, got 5"):
        fetch("memory://bucket/text/a.jsonl", "SOURCE")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://bucket/none.jsonl", "nothing is there"),
        ("memory://bucket/*.parquet", "nothing is there"),
        ("nonsense://bucket/a", "Protocol not known: nonsense"),
    ],
)
def test_what_is_not_there_is_named(storage, address, message):
    with pytest.raises(InputError, match=message):
        fetch(address, "SOURCE")


def test_a_storage_without_its_package_is_an_environment_error():
    pytest.importorskip("fsspec")
    try:
        import s3fs  # noqa: F401
    except ImportError:
        with pytest.raises(ResourceError, match="s3fs"):
            fetch("s3://bucket/a.jsonl", "SOURCE")


def test_addresses_are_for_data(storage):
    with pytest.raises(InputError, match="for data only"):
        resolve("memory://bucket/text", "encoder", ("encoder",), "model")
