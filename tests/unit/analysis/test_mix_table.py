"""Tables of mixes: CSV as people write it, parquet, JSON Lines."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from priorkit.analysis.mix_table import read_mix_table
from priorkit.core.errors import InputError


def test_the_same_table_in_three_forms(tmp_path: Path) -> None:
    csv, parquet, lines = (tmp_path / name for name in ("t.csv", "t.parquet", "t.jsonl"))
    csv.write_text('\ufeff# from the paper\nmix, web ,y\n"a, b",0.5,1\n\nc,0.25,2\n', encoding="utf-8")
    pq.write_table(pa.table({"mix": ["a, b", "c"], "web": [0.5, 0.25], "y": [1, 2]}), parquet)
    lines.write_text('{"mix": "a, b", "web": 0.5, "y": 1}\n{"mix": "c", "web": 0.25, "y": 2}\n')
    for file in (csv, parquet, lines):
        found = read_mix_table(file)
        assert list(found) == ["mix", "web", "y"]
        assert found["mix"] == ["a, b", "c"]
        assert [float(value) for value in found["web"]] == [0.5, 0.25]


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a,b\n")
    with pytest.raises(InputError, match="there is no row"):
        read_mix_table(file)
    file.write_text("a,b\n1\n")
    with pytest.raises(InputError, match="row 1 has no 'b'"):
        read_mix_table(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a readable CSV"):
        read_mix_table(file)
    with pytest.raises(InputError, match="expected a file"):
        read_mix_table(tmp_path)
