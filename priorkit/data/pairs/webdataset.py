"""WebDataset shards: tar files of samples, indexed by one pass over their headers and read at random.

Files that share a name up to its first dot are a sample (``000012.jpg``, ``000012.txt``), as in the
webdataset library. Nothing is extracted: a member's name is only a label, so it cannot point outside
the shard, and an image is read from its offset when it is needed. So sample *k* stays a pure function of
(seed, *k*), without the shuffle buffers and worker-dependent order of streaming readers.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

from priorkit.core.errors import InputError
from priorkit.core.json_text import parse_json
from priorkit.data.images.decoding import IMAGE_SUFFIXES, ImageRef

SHARD_SUFFIX = ".tar"
COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")
TEXT_MEMBERS = ("txt", "text", "caption")
JSON_KEYS = ("caption", "text", "txt")

MAX_MEMBER_BYTES = 256 << 20
"""Members larger than this are refused; no caption or image of a training set is this large."""


@dataclass
class ShardSample:
    """One sample of a shard: members with a common name.

    Attributes:
        key: their common name.
        members: extension in lower case -> offset and length in bytes.
        broken: why the sample cannot be used; empty where it can.
    """

    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    broken: str = ""


def samples_of(path: Path) -> Iterator[ShardSample]:
    """Index a shard, sample by sample, in its order.

    Raises:
        InputError: it is compressed, not a tar file, or truncated.
    """
    if path.name.lower().endswith(COMPRESSED_SUFFIXES):
        raise InputError(
            "a compressed shard has no random access", where=str(path), hint="decompress it to .tar"
        )
    current: ShardSample | None = None
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                name = PurePosixPath(member.name)
                stem, _, extension = name.name.partition(".")
                key = str(name.with_name(stem)) if stem else member.name
                if current is None or current.key != key:
                    if current is not None:
                        yield current
                    current = ShardSample(key)
                if not member.isreg() or member.issparse():
                    current.broken = f"{member.name} is not a regular file"
                elif member.size > MAX_MEMBER_BYTES:
                    current.broken = f"{member.name} has {member.size:,} bytes"
                else:
                    current.members[extension.lower()] = (member.offset_data, member.size)
            _check_end(path, archive.offset)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        after = f" after sample {current.key}" if current else ""
        raise InputError(f"not a complete tar file: {error}{after}", where=str(path)) from None
    if current is not None:
        yield current


def _check_end(path: Path, offset: int) -> None:
    """A complete archive ends in blocks of zeros; tarfile also treats a truncated header as the end."""
    with path.open("rb") as stream:
        stream.seek(offset)
        end = stream.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE or any(end):
        raise tarfile.ReadError("its end is missing")


def image_and_text(path: Path, sample: ShardSample) -> tuple[ImageRef, str]:
    """The image and the caption of a sample; the caption is read, the image is not.

    Raises:
        ValueError: the sample is broken, or lacks one of them; the message is the reason.
    """
    if sample.broken:
        raise ValueError(sample.broken)
    image = next((sample.members[s[1:]] for s in IMAGE_SUFFIXES if s[1:] in sample.members), None)
    if image is None:
        raise ValueError(f"no image; its members are {', '.join(sorted(sample.members))}")
    return ImageRef(f"{path.name}:{sample.key}", path, span=image), _text(path, sample)


def json_member(path: Path, sample: ShardSample) -> dict[str, Any]:
    """A sample's JSON object; empty where it has none.

    Raises:
        ValueError: the member is not readable as JSON.
    """
    span = sample.members.get("json")
    if span is None:
        return {}
    content = ImageRef(sample.key, path, span=span).read() or b""
    try:
        row: Any = parse_json(content.decode("utf-8-sig"), unique_keys=True)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"its json cannot be read: {error}") from None
    return cast("dict[str, Any]", row) if isinstance(row, dict) else {}


def _text(path: Path, sample: ShardSample) -> str:
    plain = next((sample.members[name] for name in TEXT_MEMBERS if name in sample.members), None)
    span = plain or sample.members.get("json")
    if span is None:
        raise ValueError(f"no text; its members are {', '.join(sorted(sample.members))}")
    content = ImageRef(sample.key, path, span=span).read() or b""
    try:
        text: Any = content.decode("utf-8-sig")
        if plain is None:
            row: Any = parse_json(text, unique_keys=True)
            values = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
            text = next((values[key] for key in JSON_KEYS if key in values), "")
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"its text cannot be read: {error}") from None
    if not isinstance(text, str) or not text.strip():
        raise ValueError("its text is empty or not text")
    return text.strip()
