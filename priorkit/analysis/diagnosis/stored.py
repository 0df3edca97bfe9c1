"""Diagnoses read back from their artifacts, for fitting, validating and comparing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.analysis.diagnosis.evidence import Estimates, Evidence
from priorkit.analysis.diagnosis.measures import MEASURES
from priorkit.core.errors import InputError
from priorkit.data.io.tables import read_table

RESULTS = "results.json"


@dataclass(frozen=True)
class Diagnosis:
    """A diagnosis that was made.

    Attributes:
        path: its folder.
        evidence: what was measured.
        controls: ``[entities]`` bool.
        table: columns of ``table.parquet``.
    """

    path: Path
    evidence: Evidence
    controls: NDArray[np.bool_]
    table: Mapping[str, list[Any]]


def read_diagnosis(path: Path) -> Diagnosis:
    """Read a diagnosis.

    Raises:
        InputError: the folder holds none.
    """
    file = path / "table.parquet"
    if not file.is_file():
        raise InputError("no table.parquet; expected a folder made by diagnose", where=str(path))
    table = read_table(file)
    needed = ("entity", "verdict", "accuracy", "accuracy_low", "accuracy_high", "images", "right", "control")
    missing = [name for name in needed if name not in table]
    if missing:
        raise InputError(
            f"no column {', '.join(missing)}; expected a table made by diagnose", where=str(file)
        )

    def estimates(name: str) -> Estimates:
        return Estimates(
            *(np.array(table[column], dtype=np.float64) for column in (name, f"{name}_low", f"{name}_high"))
        )

    measures = {measure.name: estimates(measure.name) for measure in MEASURES if measure.name in table}
    evidence = Evidence(
        [str(name) for name in table["entity"]],
        np.array(table["images"], dtype=np.int64),
        np.array(table["right"], dtype=np.int64),
        estimates("accuracy"),
        measures,
    )
    return Diagnosis(path, evidence, np.array(table["control"], dtype=np.bool_), table)
