from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from priorkit.core.errors import InputError
from priorkit.data.rejects import Rejects
from priorkit.data.rows import TABLE_SUFFIXES, column_names, files_of, read_rows, suffix_of
from priorkit.data.text import check_text_source, read_documents

ROWS = [{"text": f"row {n}", "n": n} for n in range(200)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def write(path: Path) -> Path:
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        content = {
            ".jsonl": LINES,
            ".jsonl.gz": gzip.compress(LINES),
            ".jsonl.zst": zstandard.compress(LINES),
            ".json": json.dumps(ROWS).encode(),
        }[suffix_of(path, TABLE_SUFFIXES) or ""]
        path.write_bytes(content)
    return path


def read_and_judge(path: Path) -> None:
    rejects = Rejects(0)
    for _ in read_rows(path, rejects):
        rejects.good()
    rejects.judge()


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}")
    rejects = Rejects(0)
    assert list(read_rows(path, rejects)) == list(enumerate(ROWS, start=1))
    assert len(rejects) == 0
    assert column_names(path) == ["text", "n"]
    assert list(read_documents(path, rejects)) == [row["text"] for row in ROWS]


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_a_truncated_file_is_told(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=path.name):
        read_and_judge(path)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".parquet", ".json"])
def test_a_file_of_another_type_is_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"\x89PNG no such thing" * 10)
    with pytest.raises(InputError, match=path.name):
        list(read_rows(path, Rejects(0)))


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_an_empty_file_is_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="the file is empty"):
        list(read_rows(path, Rejects(0)))


def test_zstd_frames_in_a_row_and_large_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(LINES) + zstandard.compress(LINES * 500))
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
    assert "got list" in reasons[1]
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


def test_rejects_are_tolerated_up_to_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rejects = Rejects(0.1)
    rejects.judge()
    rejects.good(9)
    rejects.add("f", 4, "bad")
    rejects.judge()
    assert "1 of 10 rows are broken (10.00%); the first: f:4: bad" in capsys.readouterr().err
    rejects.add("f", 5, "bad")
    with pytest.raises(InputError, match=r"2 of 11 rows .*--reject-limit \(now 0.1\)|2 of 11"):
        rejects.judge()
    rejects.write(tmp_path)
    lines = (tmp_path / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rejects.rows


def test_the_files_of_a_folder_are_found_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.jsonl", "a.jsonl.gz", "sub/c.parquet", "sub/notes.md"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in files_of(tmp_path, TABLE_SUFFIXES)] == [
        "a.jsonl.gz",
        "b.jsonl",
        "c.parquet",
    ]
    with pytest.raises(InputError, match="file type not known"):
        files_of(tmp_path / "sub" / "notes.md", TABLE_SUFFIXES)
    with pytest.raises(InputError, match="no file of a known type"):
        files_of(tmp_path, (".csv",))


def test_text_sources(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain")
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\n{"txt": "y"}\n{"text": 3}\n')
    rejects = Rejects(1)
    assert list(read_documents(tmp_path, rejects)) == ["plain", "x"]
    assert "no key 'text' (did you mean 'txt'?)" in str(rejects.rows[0]["reason"])
    assert "not text" in str(rejects.rows[1]["reason"])
    parquet = write(tmp_path / "c.parquet")
    with pytest.raises(InputError, match="no column 'body'"):
        check_text_source(parquet, "body")
    (tmp_path / "a.txt").write_bytes(b"ab\xff")
    with pytest.raises(InputError, match="at byte 2"):
        list(read_documents(tmp_path / "a.txt", rejects))


def test_a_source_without_documents_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n")
    with pytest.raises(InputError, match="no documents here"):
        list(read_documents(path, Rejects(0)))
