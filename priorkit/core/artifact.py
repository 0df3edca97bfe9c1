"""Artifacts: a directory that appears complete or not at all, with a manifest written last.

An artifact is made in ``OUT.partial/`` next to its target and renamed into place. ``priorkit.json`` is
its last file, so its presence means complete. It lists every file with size and SHA-256; the digest of
an artifact is the digest of that list, so it depends only on the content, not on paths or time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from priorkit.core.errors import InputError, Problems, nearest
from priorkit.core.input_files import CARD, MANIFEST, list_files
from priorkit.core.manifest import SCHEMA, FileRecord, InputRecord, Manifest, parse, render
from priorkit.core.process.processors import processors
from priorkit.core.process.threads import streamed_in_threads

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingTypeStubs]

RECIPE = "recipe.toml"

_HASH_BLOCK = 1 << 20
_HASH_THREADS = min(8, processors())

_NAMED_FILES = 5
"""How many of the files added to an artifact a warning names."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A complete artifact on disk.

    Attributes:
        path: its folder.
        manifest: its manifest.
        manifest_checked: whether the manifest has a checksum, which then was right; early versions wrote none.
    """

    path: Path
    manifest: Manifest = field(repr=False)
    manifest_checked: bool = True

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def metrics(self) -> dict[str, Any]:
        """Its figures."""
        return self.manifest.metrics

    def table(self, name: str = "table") -> pandas.DataFrame:
        """A table of the artifact.

        Args:
            name: the parquet file without its suffix.

        Raises:
            InputError: the artifact has no such table.
        """
        import pandas  # pyright: ignore[reportMissingTypeStubs]

        file = self.path / f"{name}.parquet"
        if not file.is_file():
            tables = [Path(other).stem for other in self.manifest.files if other.endswith(".parquet")]
            raise InputError(f"no table '{name}'", where=str(self.path), hint=nearest(name, tables))
        return cast("Any", pandas).read_parquet(file)

    @property
    def kind(self) -> str:
        """The kind: ``llm``, ``encoder``, ``corpus`` ..."""
        return self.manifest.kind

    @property
    def digest(self) -> str:
        """The digest of the content."""
        return digest_of(self.manifest.files)

    def to_json(self) -> dict[str, Any]:
        """The manifest with the path and the digest: what ``--json`` prints."""
        return {"path": str(self.path), "digest": self.digest, **self.manifest.to_json()}


def digest_of(files: dict[str, FileRecord]) -> str:
    """The digest of a set of files; the recipe is left out, as it holds paths."""
    return _combined_digest(sorted(files.items()))


def digest_of_files(root: Path, names: Iterable[str]) -> str:
    """As :func:`digest_of`, of files that have no records; memory holds few of them at a time.

    Args:
        root: the folder.
        names: the files below it, sorted.
    """
    return _combined_digest(_hashed(root, names))


def _combined_digest(records: Iterable[tuple[str, FileRecord]]) -> str:
    digest = hashlib.sha256()
    for name, record in records:
        if name != RECIPE:
            digest.update(f"{name}\0{record.sha256}\n".encode())
    return digest.hexdigest()


def is_artifact(path: Path) -> bool:
    """Whether a directory holds a complete artifact."""
    return (path / MANIFEST).is_file()


def open_artifact(path: Path) -> Artifact:
    """Read an artifact's manifest.

    Raises:
        InputError: there is no manifest, it was damaged, or it cannot be understood.
    """
    file = path / MANIFEST
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"no complete artifact here ({MANIFEST} is missing)",
            where=str(path),
            hint="run the step that makes it to its end",
        ) from None
    manifest, checked = parse(content, str(file))
    return Artifact(path, manifest, checked)


def hash_file(path: Path) -> FileRecord:
    """Size and SHA-256 of a file."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK):
            digest.update(block)
            size += len(block)
    return FileRecord(size=size, sha256=digest.hexdigest())


def hash_files(root: Path, names: Sequence[str]) -> dict[str, FileRecord]:
    """Records of files below a root."""
    return dict(_hashed(root, names))


def _hashed(root: Path, names: Iterable[str]) -> Iterator[tuple[str, FileRecord]]:
    """Names and records of files below a root, hashed in parallel (hashing releases the interpreter lock)."""
    return streamed_in_threads(lambda name: hash_file(root / name), names, _HASH_THREADS)


def files_below(root: Path) -> list[str]:
    """Names of all files below an artifact's directory, hidden ones too, relative, with ``/``, sorted.

    For the files of an input see :mod:`priorkit.core.input_files`.
    """
    files: list[str] = []
    for folder, folders, names in os.walk(root):
        folders.sort()
        base = Path(folder)
        files.extend((base / name).relative_to(root).as_posix() for name in names)
    return sorted(files)


def verify_files(root: Path, files: dict[str, FileRecord], hash_up_to: int | None = None) -> None:
    """Compare files with their records.

    Args:
        root: the artifact's directory.
        files: the records to compare.
        hash_up_to: hash only files up to this many bytes; sizes are compared for all. None hashes all.

    Raises:
        InputError: naming every file that is missing, of another size or of other content.
    """
    problems = Problems(InputError)
    to_hash: list[str] = []
    for name, record in files.items():
        path = root / name
        try:
            status = path.stat()
        except OSError:
            problems.add("the file is missing", where=str(path))
            continue
        if not stat.S_ISREG(status.st_mode):
            problems.add("a file expected, got a folder or device", where=str(path))
        elif status.st_size != record.size:
            problems.add(f"{record.size} bytes expected, got {status.st_size}", where=str(path))
        elif hash_up_to is None or status.st_size <= hash_up_to:
            to_hash.append(name)
    with ThreadPoolExecutor(max_workers=_HASH_THREADS) as pool:
        hashing = {name: pool.submit(hash_file, root / name) for name in to_hash}
    for name, future in hashing.items():
        expected = files[name].sha256
        try:
            actual = future.result().sha256
        except OSError as error:
            problems.add(f"cannot be read: {error.strerror}", where=str(root / name))
            continue
        if actual != expected:
            problems.add(
                f"SHA-256 {expected[:12]}... expected, got {actual[:12]}...",
                where=str(root / name),
                hint="the file was changed or damaged after it was made; make the artifact again",
            )
    problems.raise_if_any()


def warn_of_added_files(opened: Artifact) -> None:
    """Warn of files in an artifact that are not its own: a reader of its folder may read them too.

    The card, which is the user's to edit, is none of them.
    """
    added = [
        name
        for name in list_files(opened.path).names
        if name not in (MANIFEST, CARD) and name not in opened.manifest.files
    ]
    if added:
        shown = ", ".join(added[:_NAMED_FILES]) + (", ..." if len(added) > _NAMED_FILES else "")
        noun = "file was" if len(added) == 1 else "files were"
        logger.warning(
            f"{opened.path}: {len(added)} {noun} added after the artifact was made and cannot be checked: {shown}"
        )


def write_manifest(
    root: Path,
    *,
    kind: str,
    step: str,
    settings: dict[str, Any],
    inputs: Iterable[InputRecord],
    metrics: dict[str, Any],
    versions: dict[str, str],
    seed: int | None,
    cost: dict[str, float],
    leave_out: Sequence[str] = (),
) -> Manifest:
    """Hash all files below a root and write the manifest, durably, as the last file.

    Files and folders named in ``leave_out``, at the root, are not part of the artifact.
    """
    excluded = {MANIFEST, *leave_out}
    names = [name for name in files_below(root) if name.split("/")[0] not in excluded]
    manifest = Manifest(
        schema_=SCHEMA,
        kind=kind,
        step=step,
        settings=settings,
        inputs=list(inputs),
        files=hash_files(root, names),
        metrics=metrics,
        versions=versions,
        seed=seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        cost=cost,
    )
    for name in names:
        sync(root / name)
    write_bytes(root / MANIFEST, render(manifest))
    sync(root)
    return manifest


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is complete or absent, also after a power cut."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is complete or absent, also after a power cut."""
    replace_durably(path, lambda temporary: temporary.write_bytes(content))


def replace_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file or folder, then move it to ``path`` in one step."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Force a file or a directory entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
