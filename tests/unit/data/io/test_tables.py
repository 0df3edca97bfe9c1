from __future__ import annotations

from pathlib import Path

import numpy as np

from priorkit.data.io.tables import read_table, write_table


def test_tables_read_back(tmp_path: Path) -> None:
    columns = {"name": ["b", "a"], "rank": np.array([1.5, 2.0]), "words": [["x"], []]}
    write_table(columns, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet") == {
        "name": ["b", "a"],
        "rank": [1.5, 2.0],
        "words": [["x"], []],
    }
