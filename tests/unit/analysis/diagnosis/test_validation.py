"""Verdicts against planted causes: parity with scikit-learn, what counts, and tables of causes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import balanced_accuracy_score

from priorkit.analysis.diagnosis.measures import PLANTED
from priorkit.analysis.diagnosis.validation import balanced_accuracy, read_causes, validate
from priorkit.core.errors import InputError
from priorkit.world.scenes.entities import PRESENCE


def test_the_columns_are_those_of_a_world() -> None:
    assert set(PLANTED) == set(PRESENCE)


def test_causes_are_the_parts_without_data(tmp_path: Path) -> None:
    rows = {"entity": ["a", "b", "c"], **{column: [True, False, True] for column in PLANTED}}
    rows["in_pairs"] = [True, False, False]
    pq.write_table(pa.table(rows), tmp_path / "entities.parquet")
    causes = read_causes(tmp_path / "entities.parquet")
    assert causes == {"a": frozenset(), "b": frozenset(PLANTED.values()), "c": frozenset({"encoder"})}


def test_tables_without_causes_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"entity": ["a"], "in_pairs": [True]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no column in_captions, in_text, in_instructions"):
        read_causes(tmp_path / "a.parquet")
    rows = {"entity": ["a"], **{column: [None] for column in PLANTED}}
    pq.write_table(pa.table(rows), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="row 1: expected true or false"):
        read_causes(tmp_path / "b.parquet")


def test_balanced_accuracy_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    causes = list(generator.choice(["encoder", "language", "none"], size=90, p=[0.2, 0.2, 0.6]))
    verdicts = [cause if generator.uniform() < 0.7 else "not decidable" for cause in causes]
    found = balanced_accuracy(causes, verdicts, seed=0)
    with pytest.warns(UserWarning, match="y_pred contains classes"):
        assert found.value == pytest.approx(balanced_accuracy_score(causes, verdicts))
    assert found.low < found.value < found.high
    assert np.isnan(balanced_accuracy([], [], seed=0).value)


def test_what_counts_is_said() -> None:
    encoder, both = frozenset({"encoder"}), frozenset({"encoder", "language"})
    causes = {"a": frozenset(), "b": encoder, "c": encoder, "d": encoder, "e": both, "f": both}
    found = validate(
        [*"abcdef", "unknown"],
        ["none", "encoder", "language", "encoder", "language", "not decidable", "encoder"],
        np.array([0.9, 0.8, 0.7, 0.9, 0.6, np.nan, 0.9]),
        np.array([False, True, True, False, True, True, True]),
        causes, seed=0,
    )  # fmt: skip
    assert found["entities"] == 6
    assert found["counted"] == {"encoder": 2, "projector": 0, "language": 0, "tuning": 0, "none": 1}
    assert found["planted_but_working"] == 1
    assert found["balanced_accuracy"]["value"] == pytest.approx((1 + 0.5) / 2)
    assert found["confusion"]["encoder"]["language"] == found["confusion"]["encoder"]["encoder"] == 1
    # In bins of their own: 0.9 and 0.8 right, 0.7 wrong.
    assert found["calibration_error"] == pytest.approx((0.1 + 0.2 + 0.7) / 3)
    assert found["several_causes"] == {"entities": 2, "named_one_of_them": 0.5, "abstained": 0.5}
    assert found["abstained"] == 0
    with pytest.raises(InputError, match="no entity of the images"):
        validate(["x"], ["none"], np.array([1.0]), np.array([False]), causes, seed=0)
