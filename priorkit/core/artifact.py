"""Artifacts: a directory that appears complete or not at all, with a manifest written last.

An artifact is made in ``OUT.partial/`` next to its target and renamed into place. ``priorkit.json`` is
its last file, so its presence means complete. It lists every file with size and SHA-256; the digest of
an artifact is the digest of that list, so it depends only on the content, not on paths or time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from priorkit.core.errors import InputError, Problems, nearest
from priorkit.core.input_files import MANIFEST

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingTypeStubs]

RECIPE = "recipe.toml"
SCHEMA = 1

_HASH_BLOCK = 1 << 20


class FileRecord(BaseModel):
    """Size in bytes and SHA-256 of one file."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    size: int
    sha256: str


class InputRecord(BaseModel):
    """An input as it was read.

    Attributes:
        setting: which setting named it.
        path: the path or hub id as given.
        kind: the artifact's kind, or ``file``, ``directory``, ``hub``.
        digest: the digest of its content.
        stamp: for inputs without a manifest, a digest of names, sizes and times, so that a re-run
            finds quickly that nothing changed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    setting: str
    path: str
    kind: str
    digest: str
    stamp: str = ""


class Manifest(BaseModel):
    """The content of ``priorkit.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    schema_: int
    kind: str
    step: str
    settings: dict[str, Any]
    inputs: list[InputRecord]
    files: dict[str, FileRecord]
    metrics: dict[str, Any]
    versions: dict[str, str]
    seed: int | None
    created: str
    cost: dict[str, float] = {}

    def to_json(self) -> dict[str, Any]:
        """The manifest as it is in the file."""
        values = self.model_dump(mode="json")
        return {"schema": values.pop("schema_"), **values}


@dataclass(frozen=True, slots=True)
class Artifact:
    """A complete artifact on disk."""

    path: Path
    manifest: Manifest = field(repr=False)

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
    lines = [f"{name}\0{record.sha256}\n" for name, record in sorted(files.items()) if name != RECIPE]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def is_artifact(path: Path) -> bool:
    """Whether a directory holds a complete artifact."""
    return (path / MANIFEST).is_file()


def open_artifact(path: Path) -> Artifact:
    """Read an artifact's manifest.

    Raises:
        InputError: there is no manifest, or it cannot be understood.
    """
    file = path / MANIFEST
    try:
        content: object = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise InputError("the manifest is not a JSON object", where=str(file))
        values = cast("dict[str, Any]", content)
        schema = values.pop("schema", None)
        if schema != SCHEMA:
            raise InputError(
                f"manifest schema {schema!r}, this version reads {SCHEMA}",
                where=str(file),
                hint="use the priorkit version that made it, or make it again",
            )
        return Artifact(path, Manifest(schema_=schema, **values))
    except FileNotFoundError:
        raise InputError(
            f"no complete artifact here ({MANIFEST} is missing)",
            where=str(path),
            hint="run the step that makes it to its end",
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the manifest is not valid JSON: {error}", where=str(file)) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"the manifest's key '{key}': {first['msg']}", where=str(file)) from None


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
    """Records of files below a root, hashed in parallel (hashing releases the interpreter lock)."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(hash_file, [root / name for name in names]), strict=True))


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
            size = path.stat().st_size
        except OSError:
            problems.add("the file is missing", where=str(path))
            continue
        if size != record.size:
            problems.add(f"{record.size} bytes expected, got {size}", where=str(path))
        elif hash_up_to is None or size <= hash_up_to:
            to_hash.append(name)
    for name, actual in hash_files(root, to_hash).items():
        expected = files[name].sha256
        if actual.sha256 != expected:
            problems.add(
                f"SHA-256 {expected[:12]}... expected, got {actual.sha256[:12]}...",
                where=str(root / name),
                hint="the file was changed or damaged after it was made; make the artifact again",
            )
    problems.raise_if_any()


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
    write_text(root / MANIFEST, json.dumps(manifest.to_json(), indent=2, ensure_ascii=False) + "\n")
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
