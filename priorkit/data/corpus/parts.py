"""Parts of a corpus: tokenised chunks of the sources, made on different machines and joined later.

Layout of an artifact of kind ``corpus-part``: ``source-00000.safetensors`` ... per source, with ``tokens``
(uint16 or uint32), ``document_lengths`` (int64) and, where they will be needed, ``hashes`` (uint8
``[documents, 16]``) and ``labels`` (uint8); ``part.json``, what was read of the files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError, Problems
from priorkit.core.inputs import Input
from priorkit.core.json_text import parse_json
from priorkit.core.safetensors_header import read_header
from priorkit.data.corpus.token_store import (
    SourceStatistics,
    TokenFile,
    TokenizedSource,
    blocks,
    file_suffixes,
    map_array,
    release,
    source_stems,
    write_starts,
)
from priorkit.data.corpus.tokenization import HASH_BYTES, TokenizeOptions
from priorkit.data.io.tensor_file import map_tensor, write_raw

PART = "part.json"

_TENSORS = {".tokens": "tokens", ".lengths": "document_lengths", ".hashes": "hashes", ".labels": "labels"}
"""Tensor of a part by the suffix of the file it is made from."""

T = TypeVar("T")


def shard_of(text: str) -> tuple[int, int]:
    """Read ``i/n``: part ``i``, from 1, of ``n``.

    Raises:
        ValueError: it is not of that form.
    """
    first, sign, second = text.partition("/")
    if not sign or not first.strip().isdigit() or not second.strip().isdigit():
        raise ValueError(f"expected I/N such as 1/8, got '{text}'")
    index, count = int(first), int(second)
    if not 1 <= index <= count:
        raise ValueError(f"the part runs from 1 to {count}, got {index}")
    return index, count


def of_shard(items: Sequence[T], shard: str) -> Sequence[T]:
    """A shard's slice of a sequence; all shards' slices in order are the sequence."""
    index, count = shard_of(shard)
    return items[len(items) * (index - 1) // count : len(items) * index // count]


def write_part(
    folder: Path, shard: str, options: TokenizeOptions, dtype: str, reading: SourceStatistics
) -> None:
    """Write ``part.json``."""
    content = {"shard": shard, "dtype": dtype, **asdict(options), "reading": asdict(reading)}
    (folder / PART).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def save_part(scratch: Path, count: int, options: TokenizeOptions, dtype: str, folder: Path) -> None:
    """Keep what :func:`priorkit.data.corpus.token_store.collect` wrote as ``source-00000.safetensors`` ..., a file per source."""
    for stem in source_stems(scratch, count):
        tensors: dict[str, tuple[Path, Any, tuple[int, ...]]] = {}
        for suffix in file_suffixes(options):
            kind = {".tokens": np.dtype(dtype), ".lengths": np.dtype(np.int64)}.get(
                suffix, np.dtype(np.uint8)
            )
            path = stem.with_suffix(suffix)
            size = path.stat().st_size // kind.itemsize
            shape = (size // HASH_BYTES, HASH_BYTES) if suffix == ".hashes" else (size,)
            tensors[_TENSORS[suffix]] = (path, kind, shape)
        write_raw(folder / f"{stem.name}.safetensors", tensors)


def open_parts(folders: Sequence[Path], names: Sequence[str], scratch: Path) -> list[TokenizedSource]:
    """Open what :func:`save_part` kept, in the order of the parts; tokens stay where they are.

    Raises:
        InputError: a file is missing or damaged.
    """
    opened: list[TokenizedSource] = []
    for name, stem in zip(names, source_stems(scratch, len(names)), strict=True):
        paths = [folder / f"{stem.name}.safetensors" for folder in folders]
        headers = [read_header(path) for path in paths]
        try:
            arrays = {
                name: [map_tensor(header[name]) for header in headers]
                for name in _TENSORS.values()
                if name in headers[0]
            }
            token_infos = [header["tokens"] for header in headers]
            lengths = arrays["document_lengths"]
        except KeyError as error:
            raise InputError(
                f"not a part of a corpus: tensor {error} is missing", where=str(paths[0])
            ) from None
        except (OSError, ValueError) as error:
            raise InputError(f"not a part of a corpus: {error}", where=str(paths[0])) from None
        starts = write_starts(lengths, stem.with_suffix(".starts"))
        hashes = _joined(arrays.get("hashes"), stem.with_suffix(".hashes"))
        opened.append(
            TokenizedSource(
                name,
                arrays["tokens"][0].dtype,
                [TokenFile(info.file, info.offset, info.shape[0]) for info in token_infos],
                starts,
                hashes.reshape(-1, HASH_BYTES) if hashes is not None else None,
                _joined(arrays.get("labels"), stem.with_suffix(".labels")),
            )
        )
    return opened


def _joined(arrays: Sequence[NDArray[np.uint8]] | None, path: Path) -> NDArray[np.uint8] | None:
    if arrays is None:
        return None
    with path.open("wb") as stream:
        for array in arrays:
            for part in blocks(len(array)):
                stream.write(array[part].tobytes())
                release(array)
    return map_array(path, np.uint8)


def check_parts(parts: Sequence[Input], inputs: Sequence[Input], options: TokenizeOptions) -> list[Path]:
    """Check that parts are complete and were made from these inputs; returns them in order.

    Raises:
        InputError: a part is missing, given twice, or made from other inputs or with other options.
    """
    problems = Problems(InputError)
    shards: dict[int, Input] = {}
    count = 0
    for item in parts:
        content = _content(item.path)
        index, of = shard_of(content["shard"])
        where = f"--parts {item.given}"
        if count and of != count:
            problems.add(f"part {content['shard']}; others are of {count}", where=where)
        elif index in shards:
            problems.add(f"part {content['shard']} is given twice", where=where)
        count = count or of
        shards[index] = item
        for name, value in json.loads(json.dumps(asdict(options))).items():
            if content.get(name) != value:
                problems.add(
                    f"it was made with {name} = {content.get(name)}, now {value}",
                    where=where,
                    hint="give the parts and the join the same options; only --shard, --parts and --out differ",
                )
        known = {record.setting: record for record in (item.owner.manifest.inputs if item.owner else [])}
        for source in inputs:
            record = known.pop(source.setting, None)
            if record is None or source.record(record).digest != record.digest:
                problems.add(f"{source.setting} ({source.given}) is not what it was made from", where=where)
        problems_left = [name for name in known if not name.startswith("parts.")]
        if problems_left:
            problems.add(f"it also holds {', '.join(problems_left)}", where=where)
    missing = [str(index) for index in range(1, count + 1) if index not in shards]
    if missing:
        problems.add(f"of {count} parts these are missing: {', '.join(missing)}", where="--parts")
    problems.raise_if_any()
    return [shards[index].path for index in sorted(shards)]


def read_part_statistics(folders: Sequence[Path]) -> SourceStatistics:
    """The statistics of the parts, joined in order."""
    readings = [_reading(_content(folder)["reading"]) for folder in folders]
    statistics = readings[0]
    for later in readings[1:]:
        statistics.join(later)
    return statistics


def _content(folder: Path) -> dict[str, Any]:
    try:
        return parse_json((folder / PART).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{PART} cannot be read: {error}", where=str(folder)) from None


def _reading(values: dict[str, Any]) -> SourceStatistics:
    broken = [(str(file), int(row), str(why)) for file, row, why in values["broken"]]
    return SourceStatistics(values["seen"], values["documents"], values["lines"], broken)
