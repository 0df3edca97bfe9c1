"""Files damaged or filled with what no program expects: for each format, mutations of a file that is right."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Random = random.Random
Mutation = Callable[[bytes, Random], bytes]

DEEP = 100_000
"""Nesting that recursive parsers do not survive."""

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**30, float("nan"), float("inf"), "", "\0", " ", "\ud800", "x" * 100_000, "../../etc/passwd",
    "/dev/zero", [], [None], [[[]]], {}, {"": {}}, "nan", "1e999", "١٢", "true", "\u202e", 2**63, -(2**63) - 1,
)  # fmt: skip
"""What stands where something else is expected."""


def _cut(content: bytes, random_: Random) -> bytes:
    return content[: random_.randrange(len(content))]


def _flip(content: bytes, random_: Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(random_.choice((1, 3, 20))):
        bit = random_.randrange(8 * len(damaged))
        damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def _insert(what: bytes) -> Mutation:
    def mutate(content: bytes, random_: Random) -> bytes:
        at = random_.randrange(len(content) + 1)
        return content[:at] + what + content[at:]

    return mutate


BYTES: dict[str, Mutation] = {
    "empty": lambda content, random_: b"",
    "truncated": _cut,
    "random bytes": lambda content, random_: random_.randbytes(random_.choice((1, 100, 10_000))),
    "NUL bytes": lambda content, random_: bytes(random_.choice((1, 8, 5000))),
    "a NUL byte inside": _insert(b"\0"),
    "invalid UTF-8 inside": _insert(b"\xff\xfe\xc3\x28"),
    "flipped bits": _flip,
    "something cut out": lambda content, random_: content[: len(content) // 3] + content[len(content) // 2 :],
    "twice": lambda content, random_: content + content,
    "blank": lambda content, random_: b" \n\t\r\n" * random_.choice((1, 50)),
    "UTF-16": lambda content, random_: content.decode("utf-8", "replace").encode("utf-16"),
    "an HTML page": lambda content, random_: b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n",
    "a pointer of git LFS": lambda content, random_: (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    ),
}  # fmt: skip
"""Mutations of any file."""


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside a JSON value, at most some of a long list."""
    places = [place]
    items = (
        value.items() if isinstance(value, dict) else enumerate(value[:50]) if isinstance(value, list) else ()
    )
    for key, inner in items:
        places.extend(_places(inner, (*place, key)))
    return places


def _edited(value: Any, place: tuple[Any, ...], edit: Callable[[Any, Any], None]) -> Any:
    """A JSON value of which the container of a place was edited."""
    copy = json.loads(json.dumps(value))
    if not place:
        box = [copy]
        edit(box, 0)
        return box[0] if box else None
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    edit(inner, place[-1])
    return copy


def _random_place(value: Any, random_: Random) -> tuple[Any, ...]:
    """A place, those near the root as often as those far from it."""
    places = _places(value)
    depth = random_.randrange(max(map(len, places)) + 1)
    return random_.choice([place for place in places if len(place) == depth])


def _replace(value: Any, random_: Random) -> str:
    new = random_.choice(VALUES)
    return json.dumps(
        _edited(value, _random_place(value, random_), lambda inner, key: inner.__setitem__(key, new))
    )


def _delete(value: Any, random_: Random) -> str:
    return json.dumps(
        _edited(value, _random_place(value, random_), lambda inner, key: inner.__delitem__(key))
    )


_MARK = "replaced in the text"


def _raw(text: Callable[[Random], str]) -> Callable[[Any, Random], str]:
    """A mutation that puts text, valid JSON or not, in the place of a value."""

    def mutate(value: Any, random_: Random) -> str:
        place = _random_place(value, random_)
        marked = json.dumps(_edited(value, place, lambda inner, key: inner.__setitem__(key, _MARK)))
        return marked.replace(json.dumps(_MARK), text(random_))

    return mutate


def _duplicate_key(value: Any, random_: Random) -> str:
    text = json.dumps(value)
    keys = [place[-1] for place in _places(value) if place and isinstance(place[-1], str)]
    if not keys:
        return text
    key = json.dumps(random_.choice(keys))
    return text.replace(f"{key}:", f"{key}: 1, {key}:", 1)


JSON_VALUES: dict[str, Callable[[Any, Random], str]] = {
    "another value": _replace,
    "a key or an element missing": _delete,
    "nested too deep": _raw(lambda random_: "[" * DEEP + "]" * DEEP),
    "objects nested too deep": _raw(lambda random_: '{"a":' * DEEP + "1" + "}" * DEEP),
    "a huge integer": _raw(lambda random_: "9" * random_.choice((25, 400, 5000))),
    "a huge float": _raw(lambda random_: random_.choice(("1e999", "-1e999", "1e-999", "NaN", "-Infinity"))),
    "a lone surrogate": _raw(lambda random_: r'"\ud800"'),
    "a NUL character": _raw(lambda random_: r'"\u0000"'),
    "a raw control character": _raw(lambda random_: '"a\x01b"'),
    "a duplicate key": _duplicate_key,
}
"""Mutations of JSON values, as text."""


def _json(mutate: Callable[[Any, Random], str]) -> Mutation:
    return lambda content, random_: mutate(json.loads(content), random_).encode("utf-8", "surrogatepass")


def _json_lines(mutate: Callable[[Any, Random], str]) -> Mutation:
    def changed(content: bytes, random_: Random) -> bytes:
        lines = content.splitlines()
        chosen = random_.sample(range(len(lines)), random_.choice((1, len(lines))))
        for number in chosen:
            lines[number] = mutate(json.loads(lines[number]), random_).encode("utf-8", "surrogatepass")
            if len(lines[number]) > 10_000:
                break
        return b"\n".join(lines) + b"\n"

    return changed


def _column_values(random_: Random, count: int) -> pa.Array:
    """A column of a type that is not expected."""
    choices: tuple[tuple[Any, pa.DataType], ...] = (
        (None, pa.null()), (7, pa.int64()), (1.5, pa.float64()), (float("nan"), pa.float64()), (True, pa.bool_()),
        ("text", pa.string()), ("", pa.large_string()), (b"\xff\0", pa.binary()), ([["a"]], pa.list_(pa.list_(pa.string()))),
        ({"a": 1}, pa.struct({"a": pa.int64()})), (0, pa.timestamp("ns")), (None, pa.string()), ([], pa.list_(pa.int64())),
        ("x", pa.dictionary(pa.int32(), pa.string())), ({"bytes": b"x", "path": None}, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
    )  # fmt: skip
    value, kind = random_.choice(choices)
    return pa.array([value] * count, kind)


def _table(change: Callable[[pa.Table, Random], pa.Table]) -> Mutation:
    def mutate(content: bytes, random_: Random) -> bytes:
        sink = io.BytesIO()
        pq.write_table(
            change(pq.read_table(io.BytesIO(content)).replace_schema_metadata(None), random_), sink
        )
        return sink.getvalue()

    return mutate


def _other_column(table: pa.Table, random_: Random) -> pa.Table:
    column = random_.randrange(table.num_columns)
    return table.set_column(column, table.column_names[column], _column_values(random_, table.num_rows))


def _without_column(table: pa.Table, random_: Random) -> pa.Table:
    return table.remove_column(random_.randrange(table.num_columns))


def _null_cells(table: pa.Table, random_: Random) -> pa.Table:
    column = random_.randrange(table.num_columns)
    values = table.column(column).to_pylist()
    values = [None if number % 3 == 0 else value for number, value in enumerate(values)]
    return table.set_column(column, table.column_names[column], pa.array(values, table.schema.types[column]))


PARQUET: dict[str, Mutation] = {
    "a column of another type": _table(_other_column),
    "a column missing": _table(_without_column),
    "empty cells": _table(_null_cells),
    "no rows": _table(lambda table, random_: table.slice(0, 0)),
    "no columns": _table(lambda table, random_: table.select([])),
    "a column twice": _table(
        lambda table, random_: table.append_column(table.column_names[0], table.column(0))
    ),
}


def _header(change: Callable[[dict[str, Any], Random], str]) -> Mutation:
    """A mutation of a safetensors file's header."""

    def mutate(content: bytes, random_: Random) -> bytes:
        length = int.from_bytes(content[:8], "little")
        header = change(json.loads(content[8 : 8 + length]), random_).encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(header)) + header + content[8 + length :]

    return mutate


def _tensor_renamed(header: dict[str, Any], random_: Random) -> str:
    name = random_.choice([name for name in header if name != "__metadata__"])
    return json.dumps({(f"{key}.other" if key == name else key): value for key, value in header.items()})


def _tensor_reshaped(header: dict[str, Any], random_: Random) -> str:
    """Another shape of as many bytes."""
    name = random_.choice([name for name, entry in header.items() if len(entry.get("shape", ())) > 0])
    shape = header[name]["shape"]
    header[name]["shape"] = random_.choice((shape[::-1], [*shape, 1], [1, *shape], [int(_product(shape))]))
    return json.dumps(header)


def _product(shape: list[int]) -> int:
    return 1 if not shape else shape[0] * _product(shape[1:])


def _not_numbers(content: bytes, random_: Random) -> bytes:
    length = 8 + int.from_bytes(content[:8], "little")
    values = bytearray(content)
    values[length:] = b"\xff" * (len(values) - length)
    return bytes(values)


SAFETENSORS: dict[str, Mutation] = {
    **{f"header: {name}": _header(mutate) for name, mutate in JSON_VALUES.items()},
    "a tensor renamed": _header(_tensor_renamed),
    "a tensor of another shape": _header(_tensor_reshaped),
    "values that are no numbers": _not_numbers,
    "a header longer than the file": lambda content, random_: struct.pack("<Q", 1 << random_.choice((20, 40, 63))) + content[8:],
}  # fmt: skip


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


IMAGE: dict[str, Mutation] = {
    "an enormous image": lambda content, random_: _png(2**31 - 1, random_.choice((1, 50_000, 2**31 - 1))),
    "an image of no size": lambda content, random_: _png(0, 0),
    "a long thin image": lambda content, random_: _png(30_000, 1),
    "an SVG": lambda content, random_: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "an image cut after its header": lambda content, random_: content[:60],
}


def _archive(add: Callable[[tarfile.TarFile, Random], None]) -> Mutation:
    def mutate(content: bytes, random_: Random) -> bytes:
        stream = io.BytesIO(content)
        with tarfile.open(fileobj=stream, mode="a") as archive:
            add(archive, random_)
        return stream.getvalue()

    return mutate


def _member(name: str, content: bytes = b"x", **fields: Any) -> Callable[[tarfile.TarFile, Random], None]:
    def add(archive: tarfile.TarFile, random_: Random) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for field, value in fields.items():
            setattr(info, field, value)
        archive.addfile(info, io.BytesIO(content) if info.isreg() else None)

    return add


TAR: dict[str, Mutation] = {
    "a member outside": _archive(_member("../../outside.txt")),
    "a link": _archive(_member("z.png", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0)),
    "a device": _archive(_member("z.png", type=tarfile.CHRTYPE, size=0)),
    "a member twice": _archive(_member("z.txt")),
    "a caption that is no text": _archive(_member("000000.json", b"[" * DEEP)),
    "a header of another size": lambda content, random_: content[:124] + b"77777777777\0" + content[136:],
}

_TEXT_VALUES = (
    "nan",
    "1e999",
    "",
    "-1",
    '"',
    "a,b,c,d,e,f,g",
    "9" * 400,
    "\u202e",
    "=1+1",
    "[[[",
    "true",
    "[x]",
)


def _word(content: bytes, random_: Random) -> bytes:
    """Another word in the place of one: of a CSV cell, of a TOML value."""
    text = content.decode("utf-8")
    words = [word for word in text.replace(",", " ").replace("=", " ").split() if len(word) > 1]
    return text.replace(random_.choice(words), random_.choice(_TEXT_VALUES), 1).encode()


TEXT: dict[str, Mutation] = {
    "another word": _word,
    "a line twice": lambda content, random_: content + random_.choice(content.splitlines() or [b""]) + b"\n",
    "an endless line": lambda content, random_: content + b"x" * 20_000,
    "other ends of lines": lambda content, random_: content.replace(b"\n", b"\r"),
}


def _compressed(compress: Callable[[bytes], bytes]) -> dict[str, Mutation]:
    return {
        "not compressed": lambda content, random_: b'{"text": "plain"}\n',
        "garbage behind it": lambda content, random_: content + b"garbage",
        "broken rows": lambda content, random_: compress(b"{\n" * 500),
        "nested too deep": lambda content, random_: compress(b"[" * DEEP + b"\n"),
        "no rows": lambda content, random_: compress(b""),
    }


def _zstd(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


FORMATS: dict[str, dict[str, Mutation]] = {
    "json": {name: _json(mutate) for name, mutate in JSON_VALUES.items()},
    "jsonl": {name: _json_lines(mutate) for name, mutate in JSON_VALUES.items()},
    "parquet": PARQUET,
    "safetensors": SAFETENSORS,
    "image": IMAGE,
    "tar": TAR,
    "text": TEXT,
    "gz": _compressed(gzip.compress),
    "zst": _compressed(_zstd),
}
"""Mutations by format; those of :data:`BYTES` fit all."""


@dataclass(frozen=True)
class Malformed:
    """A malformed file.

    Attributes:
        mutation: what was done to it.
        content: what it holds.
    """

    mutation: str
    content: bytes


def malformed(format_: str, content: bytes, random_: Random) -> Malformed:
    """A random mutation of a file: two of three times one of its format."""
    own = FORMATS[format_]
    mutations = own if random_.randrange(3) else BYTES
    name = random_.choice(sorted(mutations))
    return Malformed(name, mutations[name](content, random_))
