"""The manifest, ``priorkit.json``: what it holds, and the checksum that covers every byte of the file.

The checksum is the SHA-256 of the file in which its own 64 digits are zeros. It is the last key, on the last but one
line, so that it can be found without parsing: damaged JSON, keys and white space are found like damaged values.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from priorkit.core.errors import InputError
from priorkit.core.json_text import parse_json

SCHEMA = 1

CHECKSUM = "manifest_sha256"
"""The key of the checksum."""

_UNSET = "0" * 64
_LAST_LINES = re.compile(rb',\n  "%s": "([0-9a-f]{64})"\n\}\n\Z' % CHECKSUM.encode())


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


def render(manifest: Manifest) -> bytes:
    """The content of the file, with its checksum."""
    values = {**manifest.to_json(), CHECKSUM: _UNSET}
    content = (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
    position = content.rindex(_UNSET.encode())
    return _with_checksum(content, position, hashlib.sha256(content).hexdigest())


def _with_checksum(content: bytes, position: int, checksum: str) -> bytes:
    return content[:position] + checksum.encode() + content[position + len(checksum) :]


def parse(content: bytes, where: str) -> tuple[Manifest, bool]:
    """Check and read the content of the file.

    Args:
        content: the bytes of the file.
        where: how to name it in an error.

    Returns:
        The manifest, and whether it has a checksum: early versions wrote none.

    Raises:
        InputError: it was changed or damaged, or cannot be understood.
    """
    found = _LAST_LINES.search(content)
    if found is not None:
        written = hashlib.sha256(_with_checksum(content, found.start(1), _UNSET)).hexdigest()
        if written != found[1].decode():
            raise _damaged("its checksum is not that of its content", where)
    try:
        values: object = parse_json(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(f"it is not valid JSON: {error}", where) from None
    if not isinstance(values, dict):
        raise _damaged("it is not a JSON object", where)
    fields = cast("dict[str, Any]", values)
    schema = fields.pop("schema", None)
    if not isinstance(schema, int):
        raise _damaged("its key 'schema' is no number", where)
    if schema != SCHEMA:
        raise InputError(
            f"manifest schema {schema}, this version reads {SCHEMA}",
            where=where,
            hint="use the priorkit version that made it, or make it again",
        )
    # Versions that wrote no checksum wrote these keys only: another one is a damaged name, perhaps the checksum's.
    if found is None and (unknown := sorted(fields.keys() - Manifest.model_fields.keys())):
        raise _damaged(f"its key '{unknown[0]}' is damaged or not where it was written", where)
    try:
        return Manifest.model_validate({**fields, "schema_": schema}), found is not None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise _damaged(f"its key '{key}': {first['msg']}", where) from None


def _damaged(reason: str, where: str) -> InputError:
    return InputError(
        f"the manifest was changed or damaged: {reason}",
        where=where,
        hint="restore the artifact from a copy, or make it again; --force replaces it",
    )
