"""Variants with several seeds: their mean with Student's interval, and one of them for the rest of the page."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from priorkit.core.errors import InputError
from priorkit.data.results.artifact_graph import Members, gather, variant_of
from priorkit.report import page
from priorkit.report.blocks import FormattedNumber
from priorkit.report.sections.base import build_sections
from priorkit.report.sections.evaluations.seeds import seeds_section
from priorkit.scoring.statistics.intervals import student_mean


def answers(right: int) -> dict[str, list[bool]]:
    return {"naming": [True] * right + [False] * (12 - right)}


@pytest.fixture
def repeated(make) -> Members:
    right = {"base@1": 2, "base@2": 4, "base@3": 3, "full@1": 8, "full@2": 6, "full@3": 7, "other": 5}
    given = {name: make.evaluation(name.replace("@", "-"), answers(count)) for name, count in right.items()}
    return Members(gather(given), {}, seed=1, resamples=50)


def test_the_mean_over_seeds_has_students_interval(repeated: Members) -> None:
    section = seeds_section(repeated)
    assert section is not None
    (table,) = section.headline
    assert list(table.columns) == ["variant", "seeds", "naming accuracy", "ratio to base"]
    base, full = table.rows
    assert [row[:2] for row in table.rows] == [["base", 3], ["full", 3]]
    values = np.array([8, 6, 7]) / 12
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert full[2].value == pytest.approx(values.mean())  # pyright: ignore
    assert (full[2].low, full[2].high) == pytest.approx((low, high))  # pyright: ignore
    assert isinstance(full[3], FormattedNumber)
    assert full[3].value == pytest.approx(7 / 3)
    assert base[3].value == 1  # pyright: ignore


def test_the_first_seed_represents_its_variant_elsewhere(repeated: Members, tmp_path: Path) -> None:
    assert [member.label for member in repeated.evaluations()] == ["base@1", "full@1", "other"]
    assert [member.color for member in repeated.all] == [0, 0, 0, 1, 1, 1, 2]
    page.write(build_sections(repeated), "Seeds", tmp_path)
    assert (tmp_path / "tables" / "seeds.csv").is_file()
    assert (tmp_path / "plots" / "seeds.svg").is_file()


def test_a_single_seed_is_no_variant(make) -> None:
    given = {name: make.evaluation(name[0], answers(3)) for name in ("a@1", "b@1", "@2")}
    members = Members(gather(given))
    assert members.repeats() == {}
    assert seeds_section(members) is None
    assert [variant_of(label) for label in ("a@1", "a@b@2", "@2", "a")] == ["a", "a@b", "", ""]


def test_students_mean_of_one_and_of_none() -> None:
    one = student_mean([0.4])
    assert one.value == 0.4
    assert math.isnan(one.low)
    with pytest.raises(InputError, match="no values"):
        student_mean([])
