"""Files at addresses that fsspec reads, such as ``s3://bucket/text/*.jsonl.zst`` or ``hf://datasets/owner/name/a.parquet``.

They are copied in pieces into a cache on this machine, so that every reader, digest and worker process sees files.
A copy that was interrupted goes on where it stopped. What is recorded of the input is the address and what the
storage says about its version (ETag, time, size), so that a changed file makes a result out of date.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, cast

from priorkit.core.errors import InputError, ResourceError

logger = logging.getLogger(__name__)

PIECE_BYTES = 8 << 20
"""Bytes read and written at a time."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://\S+")
_GLOB = re.compile(r"[*?\[]")

_VERSION_KEYS = (
    "ETag",
    "etag",
    "md5",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "blob_id",
    "size",
)
"""What the storages' descriptions of a file call its version."""

CACHE_VARIABLE = "PRIORKIT_CACHE"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file in a storage.

    Attributes:
        path: as the storage calls it.
        name: below the address's folder, with ``/``.
        size: bytes; None where the storage does not say.
        version: changes when the file does.
    """

    path: str
    name: str
    size: int | None
    version: str


def is_address(given: str) -> bool:
    """Whether a text is an address for fsspec."""
    return _ADDRESS.fullmatch(given) is not None


def cache_folder() -> Path:
    """Where copies are kept: ``$PRIORKIT_CACHE``, or ``priorkit`` in the user's folder of caches."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "priorkit"


def fetch(address: str, where: str) -> tuple[Path, str]:
    """Copy the file, the folder or the files that an address names.

    Args:
        address: of a file, of a folder, or with ``*``, ``?`` and ``[...]``.
        where: the place for messages.

    Returns:
        The file or folder on this machine, and a digest of the versions of all its files.

    Raises:
        InputError: nothing is there, or it cannot be read.
        ResourceError: the package for this kind of storage is missing.
    """
    storage, files = _find(address, where)
    versions = "".join(f"{file.name}\0{file.version}\n" for file in files)
    digest = hashlib.sha256(versions.encode()).hexdigest()
    root = cache_folder() / hashlib.sha256(address.encode()).hexdigest()[:16] / digest[:16]
    for number, file in enumerate(files, start=1):
        target = root / file.name
        if not target.is_file():
            logger.info(f"copying {address}: file {number} of {len(files)}")
            _copy(storage, file, target, where)
    single = len(files) == 1 and not _GLOB.search(address) and PurePosixPath(address).name == files[0].name
    return (root / files[0].name if single else root), digest


def _find(address: str, where: str) -> tuple[Any, list[RemoteFile]]:
    fsspec: Any = import_module("fsspec.core")
    try:
        storage, path = cast("tuple[Any, str]", fsspec.url_to_fs(address))
    except ImportError as error:
        raise ResourceError(str(error).splitlines()[0], where=f"{where} {address}") from None
    except ValueError as error:
        raise InputError(str(error).splitlines()[0], where=f"{where} {address}") from None
    try:
        if _GLOB.search(path):
            found = cast("Mapping[str, Mapping[str, Any]]", storage.glob(path, detail=True))
            base = path[: _GLOB.search(path).start()].rpartition("/")[0]  # pyright: ignore[reportOptionalMemberAccess]
        elif storage.isfile(path):
            found, base = {path: storage.info(path)}, path.rpartition("/")[0]
        else:
            found, base = storage.find(path, detail=True), path
    except Exception as error:  # Each storage raises its own library's errors.
        raise _unreadable(address, where, error) from None
    files = [
        _described(name, base, info)
        for name, info in sorted(found.items())
        if info.get("type", "file") == "file"
    ]
    if not files:
        raise InputError("nothing is there", where=f"{where} {address}")
    return storage, files


def _described(path: str, base: str, info: Mapping[str, Any]) -> RemoteFile:
    name = path.removeprefix(base).lstrip("/")
    if ".." in PurePosixPath(name).parts:
        raise InputError("a file's name leaves the folder", where=path)
    version = {key: str(info[key]) for key in _VERSION_KEYS if info.get(key) is not None}
    size = info.get("size")
    return RemoteFile(
        path, name, int(size) if size is not None else None, json.dumps(version, sort_keys=True)
    )


def _copy(storage: Any, file: RemoteFile, target: Path, where: str) -> None:
    """Copy a file in pieces next to its place, from where an earlier copy stopped, and move it there when complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".incomplete")
    begun = partial.stat().st_size if partial.is_file() else 0
    try:
        source = storage.open(file.path, "rb")
    except Exception as error:
        raise _unreadable(file.path, where, error) from None
    with source, partial.open("ab") as copy:
        if begun:
            source.seek(begun)
        while True:
            try:
                piece = source.read(PIECE_BYTES)
            except Exception as error:
                raise _unreadable(file.path, where, error) from None
            if not piece:
                break
            copy.write(piece)
    size = partial.stat().st_size
    if file.size is not None and size != file.size:
        if size > file.size:
            partial.unlink()
        raise InputError(
            f"{file.size:,} bytes expected, got {size:,}",
            where=f"{where} {file.path}",
            hint="run the step again",
        )
    partial.replace(target)


def _unreadable(address: str, where: str, error: Exception) -> InputError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, FileNotFoundError):
        reason = "nothing is there"
    return InputError(f"cannot be read: {reason}", where=f"{where} {address}")
