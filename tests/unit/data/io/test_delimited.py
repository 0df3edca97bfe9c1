"""CSV and TSV as spreadsheets, pandas and open_clip write them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.core.errors import InputError
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import column_names, read_rows

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS), max_size=5), sign=st.sampled_from(",;\t"), mark=st.booleans())
def test_what_the_csv_module_writes_is_read_back(
    rows: list[tuple[str, str]], sign: str, mark: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=sign, quoting=csv.QUOTE_ALL)
    writer.writerows([("image", "a caption"), *rows])
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    path.write_bytes(text.getvalue().encode("utf-8-sig" if mark else "utf-8"))
    rejects = Rejects(0)
    assert column_names(path) == ["image", "a caption"]
    assert [tuple(row.values()) for _, row in read_rows(path, rejects)] == rows
    assert not rejects.rows


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("a.csv", "filepath\ttitle\na.png\tone, two\n", ["filepath", "title"]),
        ("a.CSV", "image;text\na.png;one, two\n", ["image", "text"]),
        ("a.tsv", 'image\t"text, or not"\na.png\tone, two\n', ["image", "text, or not"]),
        ("a.csv", ',image,text\n0,a.png,"one, two"\n', ["image", "text"]),
        ("a.csv", ' image , text\r\na.png,"one, two"\r\n\r\n', ["image", "text"]),
    ],
)
def test_separators_and_headers(tmp_path: Path, name: str, content: str, columns: list[str]) -> None:
    path = tmp_path / name
    path.write_text(content, newline="")
    assert column_names(path) == columns
    assert list(read_rows(path, Rejects(0))) == [(2, dict(zip(columns, ("a.png", "one, two"), strict=True)))]


def test_rows_that_do_not_fit_are_rejected_by_line_and_the_others_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n"1\n1",2\n3\n4,5,6\n7,\xff\n"8"x,9\n10,\n')
    rejects = Rejects(1)
    assert list(read_rows(path, rejects)) == [(2, {"a": "1\n1", "b": "2"}), (8, {"a": "10", "b": ""})]
    assert {row["row"]: row["reason"] for row in rejects.rows} == {
        4: "1 cells where the header has 2",
        5: "3 cells where the header has 2",
        6: "not UTF-8 text in 'b'",
        7: "not valid CSV: ',' expected after '\"'",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'a,b\n1,"2\n3,4\n', r"a\.csv:2: a quotation mark opens a cell and none closes it"),
        (b'a,b\n1,"2\n3","4\n5"x,6\n', r"a\.csv:2: a quotation mark opens"),
        (b"a,b,a\n1,2,3\n", "two columns are called 'a'"),
        ("a,b\n1,2\n".encode("utf-16"), "not UTF-8 text"),
        (b"\n1,2\n", "the first line names no columns"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_rows(path, Rejects(1)))
