"""Rank_e on the page: of encoders with several seeds the first one, and means over all of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from priorkit.core.interval import Interval
from priorkit.data.results.artifact_graph import Members, gather, prior_groups
from priorkit.report.sections.priors.ranks import image_sets, ranks_section, seeds_table
from tests.support.report_fixtures import Maker

BEFORE = [[2.0, 3, 2, 4, 20, 25, 30, 18, 40, 55, 60, 48], [3.0, 3, 3, 4, 22, 21, 33, 18, 44, 51, 66, 40]]
AFTER = [[2.0, 3, 2, 4, 8, 9, 12, 7, 14, 20, 18, 15], [2.0, 2, 2, 4, 9, 8, 16, 9, 12, 18, 21, 14]]


@pytest.fixture
def members(make: Maker) -> Members:
    world = make.world()
    given = {"world": world}
    for name, runs in (("before", BEFORE), ("after", AFTER)):
        for seed, ranks in enumerate(runs, start=1):
            given[f"{name}@{seed}"] = make.ranks(f"{name}-{seed}", ranks, world.path / "images")
    found = gather(given)
    return Members(found, prior_groups(found), seed=1, resamples=100)


def test_the_page_shows_the_first_seed(members: Members) -> None:
    assert [member.label for member in members.ranks()] == ["before@1", "after@1"]
    (images,) = image_sets(members)
    assert list(images.ranks) == ["before@1", "after@1"]


def test_means_over_seeds_and_ratios_seed_by_seed(members: Members) -> None:
    table = seeds_table(image_sets(members)[0], members)
    assert table is not None
    rows = {(row[0], row[1]): row[2:] for row in table.rows}
    before, after = (np.mean(runs, axis=1) for runs in (BEFORE, AFTER))
    half = stats.t.ppf(0.975, 1) / np.sqrt(2)
    for name, means in (("before", before), ("after", after)):
        seeds, mean, _ = rows["all", name]
        assert seeds == 2
        assert isinstance(mean, Interval)
        assert mean.value == pytest.approx(means.mean())
        assert mean.high - mean.value == pytest.approx(half * means.std(ddof=1))
    ratio = rows["all", "after"][2]
    assert isinstance(ratio, Interval)
    assert ratio.value == pytest.approx((after / before).mean())
    assert rows["all", "before"][2] is None
    assert {group for group, _ in rows} == {"all", "strong prior", "weak prior", "no prior"}


def test_without_seeds_there_is_no_such_table(make: Maker) -> None:
    world = make.world()
    given = {"world": world, "before": make.ranks("r1", BEFORE[0], world.path / "images")}
    members = Members(gather(given), seed=1, resamples=100)
    assert seeds_table(image_sets(members)[0], members) is None
    section = ranks_section(members)
    assert section is not None
    assert "several seeds" not in section.intro
