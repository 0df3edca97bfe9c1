from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.core.errors import InputError
from priorkit.data.io import json_array
from priorkit.data.io.formats import row_suffixes, suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import column_names, files_of, read_rows
from priorkit.data.text import documents
from priorkit.data.text.documents import check_text_source, read_documents


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


ROWS = [{"text": f"row {n}", "n": n} for n in range(200)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def delimited_lines(sign: str) -> bytes:
    return "".join([f"text{sign}n\n", *(f'"{row["text"]}"{sign}{row["n"]}\n' for row in ROWS)]).encode()


def write(path: Path) -> Path:
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix in (".arrow", ".feather"):
        table = pa.Table.from_pylist(ROWS)
        make = pa.ipc.new_stream if path.suffix == ".arrow" else pa.ipc.new_file
        with make(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=30)
    else:
        delimited = {mark: delimited_lines(sign) for mark, sign in ((".csv", ","), (".tsv", "\t"))}
        content = {
            ".jsonl": LINES,
            ".jsonl.gz": gzip.compress(LINES),
            ".jsonl.zst": zstd(LINES),
            ".ndjson": LINES,
            ".json": json.dumps(ROWS).encode(),
            **delimited,
            **{f"{mark}.gz": gzip.compress(lines) for mark, lines in delimited.items()},
            **{f"{mark}.zst": zstd(lines) for mark, lines in delimited.items()},
        }[suffix_of(path, row_suffixes()) or ""]
        path.write_bytes(content)
    return path


def read_and_judge(path: Path) -> None:
    rejects = Rejects(0)
    for _ in read_rows(path, rejects):
        rejects.accept()
    rejects.raise_if_over_limit()


@pytest.mark.parametrize("suffix", row_suffixes())
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}")
    rejects = Rejects(0)
    as_text = ".csv" in suffix or ".tsv" in suffix
    expected = [{"text": row["text"], "n": str(row["n"])} for row in ROWS] if as_text else ROWS
    # A row of CSV has the number of its line, the header that of the first.
    assert list(read_rows(path, rejects)) == list(enumerate(expected, start=1 + as_text))
    assert len(rejects) == 0
    assert column_names(path) == ["text", "n"]
    assert list(read_documents(path, rejects)) == [row["text"] for row in ROWS]


@pytest.mark.parametrize("suffix", row_suffixes())
def test_a_truncated_file_is_reported(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=path.name):
        read_and_judge(path)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".parquet", ".json"])
def test_a_file_of_another_type_is_reported(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"\x89PNG no such thing" * 10)
    with pytest.raises(InputError, match=path.name):
        list(read_rows(path, Rejects(0)))


@pytest.mark.parametrize("suffix", row_suffixes())
def test_an_empty_file_is_reported(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="the file is empty"):
        list(read_rows(path, Rejects(0)))


def test_zstd_frames_in_a_row_and_large_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstd(LINES) + zstd(LINES * 500))
    assert sum(1 for _ in read_rows(path, Rejects(0))) == 501 * len(ROWS)


def test_broken_lines_are_counted_with_number_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "a"}\n\n{"text": \n[1]\n{"text": "\xff"}\n' + b"[" * 100_000 + b"\n"
    )
    rejects = Rejects(1)
    assert list(read_rows(path, rejects)) == [(1, {"text": "a"})]
    assert [row["row"] for row in rejects.rows] == [3, 4, 5, 6]
    reasons = [str(row["reason"]) for row in rejects.rows]
    assert "not valid JSON" in reasons[0]
    assert "got a list" in reasons[1]
    assert "not UTF-8 text" in reasons[2]
    assert "not valid JSON" in reasons[3]


def test_broken_entries_of_an_array_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}, 2]')
    rejects = Rejects(1)
    assert list(read_rows(path, rejects)) == [(1, {"a": 1})]
    assert rejects.rows[0]["row"] == 2
    path.write_text('{"a": 1}')
    with pytest.raises(InputError, match="expected a JSON array"):
        list(read_rows(path, rejects))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(VALUES, max_size=6),
    piece=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 3]),
    plain=st.booleans(),
)
def test_an_array_read_in_pieces_is_the_array(
    values: list[Any], piece: int, indent: int | None, plain: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces.json"
    path.write_text(json.dumps(values, indent=indent, ensure_ascii=plain) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "PIECE_BYTES", piece)
        assert list(json_array.array_elements(path)) == values


@pytest.mark.parametrize(
    ("text", "message", "before"),
    [
        ('[{"a": 1},\n {"a" 2}, {"a": 3}]', "in element 2, line 2: Expecting ':' delimiter", 1),
        ('[{"a": 1}, {"a": "x]', "in element 2, line 1: Unterminated string", 1),
        ('[{"a": 1} {"a": 2}]', "in element 1, line 1: Expecting ',' delimiter", 1),
        ('[{"a": 1}', "in element 1, line 1: Expecting ',' delimiter", 1),
        ('[{"a": 1},', "in element 2, line 1: Expecting value", 1),
        ('[{"a": 1}]\n\n[]', "at the end, line 3: Extra data", 1),
        ("[" + "[" * 100_000, "in element 1, line 1", 0),
        ("[trye]", "in element 1, line 1: Expecting value", 0),
        ("  ", "at the beginning, line 1: Expecting value", 0),
        ("12", "expected a JSON array of objects, got a number", 0),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_a_fault_in_an_array_names_the_element(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str, before: int, piece: int
) -> None:
    monkeypatch.setattr(json_array, "PIECE_BYTES", piece)
    path = tmp_path / "a.json"
    path.write_text(text)
    found: list[Any] = []
    with pytest.raises(InputError, match=re.escape(message)):
        found.extend(json_array.array_elements(path))
    assert len(found) <= before
    path.write_bytes(b'\xef\xbb\xbf[{"a": 1}]')
    assert list(json_array.array_elements(path)) == [{"a": 1}]
    path.write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(InputError, match="not UTF-8 text"):
        list(json_array.array_elements(path))


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_rows_of_tables_with_texts_that_are_not_utf8_are_rejected(suffix: str, tmp_path: Path) -> None:
    texts = [b"row"] * 300
    texts[7] = texts[290] = b"\xff\xfe"
    raw = pa.array(texts)
    column = pa.Array.from_buffers(pa.string(), len(texts), raw.buffers())
    table = pa.table({"text": column, "meta": pa.StructArray.from_arrays([column], ["a"])})
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path, row_group_size=100)
    else:
        with (pa.ipc.new_stream if suffix == ".arrow" else pa.ipc.new_file)(
            str(path), table.schema
        ) as writer:
            writer.write_table(table, max_chunksize=70)
    rejects = Rejects(1.0)
    rows = list(read_rows(path, rejects))
    assert [number for number, _ in rows] == [n for n in range(1, 301) if n not in (8, 291)]
    assert all(row == {"text": "row", "meta": {"a": "row"}} for _, row in rows)
    assert [row["row"] for row in rejects.rows] == [8, 291]
    assert all(str(row["reason"]).startswith("not UTF-8 text") for row in rejects.rows)


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".jsonl.gz", ".json"])
@pytest.mark.parametrize("piece", [7, 1 << 20])
def test_rows_with_a_key_twice_or_half_a_character_are_rejected(
    suffix: str, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_array, "PIECE_BYTES", piece)
    rows = [
        '{"text": "one"}',
        '{"text": "first", "id": 1, "text": "second"}',
        r'{"text": "\ud800"}',
        r'{"text": "\ud83d\ude00", "meta": {"text": 1}}',
        r'{"text": "x", "meta": [{"\udc00": 1}]}',
        '{"text": "x", "meta": [{"a": 1, "a": 1}]}',
    ]
    content = f"[{', '.join(rows)}]" if suffix == ".json" else "\n".join(rows)
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(gzip.compress(content.encode()) if suffix.endswith(".gz") else content.encode())
    rejects = Rejects(1.0)
    found = list(read_rows(path, rejects))
    assert found == [(1, {"text": "one"}), (4, {"text": "\U0001f600", "meta": {"text": 1}})]
    reasons = {row["row"]: row["reason"] for row in rejects.rows}
    assert {row: reason for row, reason in reasons.items() if "surrogate" not in str(reason)} == {
        2: "the key 'text' is there twice in one object",
        6: "the key 'a' is there twice in one object",
    }
    assert set(reasons) == {2, 3, 5, 6}
    rejects.write(tmp_path)  # the reasons themselves are text


def test_a_large_array_is_not_held_in_memory(tmp_path: Path) -> None:
    """Forty megabytes of elements: the peak of what Python holds stays at a few pieces."""
    import tracemalloc

    path = tmp_path / "large.json"
    row = json.dumps({"id": 1, "text": "x" * 40_000})
    with path.open("w") as stream:
        stream.write("[" + row)
        for _ in range(999):
            stream.write(",\n" + row)
        stream.write("]")
    tracemalloc.start()
    try:
        assert sum(len(own["text"]) for _, own in read_rows(path, Rejects(0))) == 40_000_000
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_plain_text_too_large_for_one_document_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MAX_PLAIN_BYTES", 1 << 20)
    path = tmp_path / "a.txt"
    path.write_text("a" * (1 << 20))
    assert len(next(iter(documents.read_documents(path, Rejects(0))))) == 1 << 20
    path.write_text("a" * (3 << 20))
    for read in (documents.check_text_source, lambda file: list(documents.read_documents(file, Rejects(0)))):
        with pytest.raises(InputError, match=r"3 MiB in one document; a \.txt may have 1 MiB") as caught:
            read(path)
        assert "split -C" in caught.value.problems[0].hint


def test_rejects_are_tolerated_up_to_the_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rejects = Rejects(0.1)
    rejects.raise_if_over_limit()
    rejects.accept(9)
    rejects.add("f", 4, "bad")
    rejects.raise_if_over_limit()
    assert "1 of 10 rows are broken (10.00%); the first: f:4: bad" in caplog.text
    rejects.add("f", 5, "bad")
    with pytest.raises(InputError, match=r"2 of 11 rows .*--reject-limit \(now 0.1\)|2 of 11"):
        rejects.raise_if_over_limit()
    rejects.write(tmp_path)
    lines = (tmp_path / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rejects.rows


def test_the_files_of_a_folder_are_found_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.jsonl", "a.jsonl.gz", "sub/c.parquet", "sub/notes.md"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in files_of(tmp_path, row_suffixes())] == [
        "a.jsonl.gz",
        "b.jsonl",
        "c.parquet",
    ]
    with pytest.raises(InputError, match="unknown file type"):
        files_of(tmp_path / "sub" / "notes.md", row_suffixes())
    with pytest.raises(InputError, match="no file of a known type"):
        files_of(tmp_path, (".xlsx",))


def test_text_sources(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain")
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\n{"txt": "y"}\n{"text": 3}\n')
    rejects = Rejects(1)
    assert list(read_documents(tmp_path, rejects)) == ["plain", "x"]
    assert "no key 'text'; the keys are txt (--text-column)" in str(rejects.rows[0]["reason"])
    assert "not text" in str(rejects.rows[1]["reason"])
    parquet = write(tmp_path / "c.parquet")
    with pytest.raises(InputError, match=r"no column of the text \(body\); the columns are text, n"):
        check_text_source(parquet, ("body",))
    (tmp_path / "a.txt").write_bytes(b"ab\xff")
    with pytest.raises(InputError, match="at byte 2"):
        list(read_documents(tmp_path / "a.txt", rejects))


def test_a_source_without_documents_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n")
    with pytest.raises(InputError, match="no documents here"):
        list(read_documents(path, Rejects(0)))
