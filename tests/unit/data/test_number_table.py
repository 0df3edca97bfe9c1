"""Tables of numbers: CSV as people write it, JSON Lines, parquet; every kind of cell that is no number."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.data.number_table import NumberTable, check_columns, is_empty, number_of, read_number_table

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


def write(folder: Path, suffix: str, names: list[str], rows: list[list[Any]]) -> Path:
    """A table in one of the formats."""
    file = folder / f"t{suffix}"
    if suffix in (".csv", ".tsv"):
        mark = "," if suffix == ".csv" else "\t"
        lines = [mark.join("" if cell is None else str(cell) for cell in row) for row in [names, *rows]]
        file.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    elif suffix == ".parquet":
        columns = zip(*rows, strict=True) if rows else [[] for _ in names]
        pq.write_table(pa.Table.from_arrays([pa.array(list(c)) for c in columns], names=names), file)
    else:
        objects = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
        text = "\n".join(objects) if suffix == ".jsonl" else "[" + ",".join(objects) + "]"
        file.write_text("\ufeff" + text, encoding="utf-8")
    return file


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_table_in_every_format(suffix: str, tmp_path: Path) -> None:
    file = write(tmp_path, suffix, ["mix", " web ", "y"], [["a", 0.5, 1], ["c", 0.25, 2]])
    table = read_number_table(file)
    assert list(table.columns) == ["mix", "web", "y"]
    assert table.columns["mix"] == ["a", "c"]
    assert table.numbers("web").tolist() == [0.5, 0.25]
    assert table.numbers("y").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "cell", [None, True, False, float("nan"), float("inf"), "", " ", "n/a", "1_000", "50%"]
)
def test_a_cell_that_is_no_number_is_named_by_file_row_and_column(
    suffix: str, cell: Any, tmp_path: Path
) -> None:
    # A parquet column has one type.
    number = "7" if isinstance(cell, str) and suffix == ".parquet" else 7
    if isinstance(cell, bool) and suffix == ".parquet":
        number = not cell
    file = write(tmp_path, suffix, ["a", "y"], [["x", number], ["x", cell], ["x", number]])
    with pytest.raises(InputError) as caught:
        read_number_table(file, "given").numbers("y")
    line = {".csv": " (line 3)", ".tsv": " (line 3)", ".jsonl": " (line 2)"}.get(suffix, "")
    place = f"given, row 2{line}, column 'y'"
    assert place in [problem.where for problem in caught.value.problems]
    assert all(word not in str(caught.value) for word in ("could not convert", "Traceback"))
    if is_empty(cell):
        missing = read_number_table(file).numbers("y", missing=True)
        assert str(missing[1]) == "nan"
        assert missing[0] == 7


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.binary(max_size=3),
        st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
        st.dates(), st.decimals(allow_nan=True),
    )
)  # fmt: skip
def test_any_cell_is_a_finite_number_or_refused_in_words(cell: Any) -> None:
    said = ""
    try:
        number = number_of(cell)
    except ValueError as error:
        said = str(error)
    if said:
        assert "expected a " in said
        return
    assert number == float(cell)
    assert abs(number) != float("inf")
    assert not isinstance(cell, bool | bytes | list | dict | datetime.date)


def test_numbers_as_text_and_other_types() -> None:
    assert [number_of(cell) for cell in (" 0.5 ", "1e-3", Decimal("2.5"), 3)] == [0.5, 0.001, 2.5, 3.0]
    with pytest.raises(ValueError, match=r"got '0,5'; decimals are written with a point"):
        number_of("0,5")
    with pytest.raises(ValueError, match="expected a number"):
        number_of(10**400)


@pytest.mark.parametrize("cell", [10**400, -(10**400)])
def test_an_integer_beyond_floats_is_named_in_short(cell: int) -> None:
    with pytest.raises(ValueError, match=r"expected a number below 1\.8e\+308 in size, got -?1000") as raised:
        number_of(cell)
    assert len(str(raised.value)) < 80


def test_many_bad_cells_are_counted() -> None:
    table = NumberTable("t.csv", {"y": ["x"] * 20, "z": [*["x"] * 7, 1]}, [])
    with pytest.raises(InputError, match=r"t.csv: the column 'y' holds no numbers") as caught:
        table.numbers("y")
    assert len(caught.value.problems) == 6
    with pytest.raises(InputError, match=r"t.csv: 7 of 8 cells of the column 'z' are no numbers"):
        table.numbers("z")


def test_csv_as_people_write_it(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    text = '\ufeff# from the paper\n\nmix; web ;y;\n"a; b"; 0.5;1;\n\n# half\nc;0.25;2;\n;;;\n'
    file.write_text(text, encoding="utf-8")
    table = read_number_table(file)
    assert list(table.columns) == ["mix", "web", "y"]
    assert table.columns["mix"] == ["a; b", "c"]
    assert table.numbers("web").tolist() == [0.5, 0.25]
    assert table.place(1) == f"{file}, row 2 (line 7)"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n", "there is no row"),
        ("", "there is no row"),
        ("a,b\n1\n1,2,3\n", r"row 1 \(line 2\): 1 cells, but the header has 2"),
        ("a,b\n1\n1,2,3\n", r"row 2 \(line 3\): 3 cells, but the header has 2"),
        ("a, a\n1,2\n", "two columns are called 'a'"),
        ('a,b\n"1,2\n', "not a readable CSV file"),
    ],
)
def test_what_is_no_table_is_refused(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=words):
        read_number_table(file)


def test_other_things_that_are_no_table(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes("a,b\n1,2\n".encode("utf-16"))
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_number_table(file)
    with pytest.raises(InputError, match="expected a file"):
        read_number_table(tmp_path)
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"a": 1}\n{"a": \n[1]\n')
    with pytest.raises(InputError) as caught:
        read_number_table(lines)
    assert [problem.where for problem in caught.value.problems] == [f"{lines}, row 2", f"{lines}, row 3"]
    assert "--reject-limit" not in str(caught.value)
    twice = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a "]), twice)
    with pytest.raises(InputError, match="two columns are called 'a'"):
        read_number_table(twice)
    twice.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not a readable parquet file"):
        read_number_table(twice)


def test_a_row_without_a_key_has_an_empty_cell(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"a": 1}\n\n{"b": 2}\n')
    with pytest.raises(InputError, match=r"row 2 \(line 3\), column 'a': the cell is empty"):
        read_number_table(file).numbers("a")


def test_columns_that_are_not_there() -> None:
    table = NumberTable("t.csv", {"visual": [1]}, [])
    problems = Problems(UsageError)
    check_columns(table, "--shares", ["visual", "visua"], problems)
    with pytest.raises(UsageError, match=r"--shares t.csv: no column 'visua'\n  -> did you mean 'visual'"):
        problems.raise_if_any()
    with pytest.raises(InputError, match="no column 'z'"):
        table.numbers("z")
