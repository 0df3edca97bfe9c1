"""Rank correlations between the accuracies of ability groups across models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations

import numpy as np

from priorkit.data.results.artifact_graph import Member, Members
from priorkit.report import numbers
from priorkit.report.blocks import Cell, FormattedNumber, Section, SignedInterval, Table
from priorkit.scoring.statistics.correlation import correlation_interval, spearman

FEWEST_MODELS = 5
"""With fewer models, a rank correlation is not informative."""


def abilities_section(members: Members) -> Section | None:
    """Spearman's rho between ability groups over the evaluations given (LSBS, figure 4).

    A group's number is the suite's mean where a suite was run, else the share of right answers to the items
    whose column ``ability`` names it.
    """
    measured = [(member, scores) for member in members.evaluations() if (scores := _abilities(member))]
    groups = list(dict.fromkeys(name for _, abilities in measured for name in abilities))
    groups = [name for name in groups if sum(name in abilities for _, abilities in measured) >= FEWEST_MODELS]
    if len(groups) < 2:
        return None
    rows: list[list[Cell]] = []
    matrix: dict[tuple[str, str], float] = {}
    for first, second in combinations(groups, 2):
        both = [
            (abilities[first], abilities[second])
            for _, abilities in measured
            if first in abilities and second in abilities
        ]
        if len(both) < FEWEST_MODELS:
            continue
        x, y = np.array(both).T
        rho = spearman(x, y)
        interval = correlation_interval(x, y, seed=members.seed, resamples=members.resamples)
        matrix[first, second] = matrix[second, first] = rho.coefficient
        rows.append(
            [
                f"{first}, {second}",
                rho.pairs,
                SignedInterval(interval),
                FormattedNumber(rho.p_value, numbers.p_value(rho.p_value)),
            ]
        )
    if not rows:
        return None
    square: list[list[Cell]] = [
        [one, *(None if one == other else _rounded(matrix.get((one, other))) for other in groups)]
        for one in groups
    ]
    intro = "Abilities that depend on the same prior correlate across models. Every evaluation counts as one model."
    return Section(
        "abilities",
        "Abilities across models",
        intro,
        [
            Table("ability-correlations", "Spearman's rho between ability groups", ["", *groups], square),
            Table(
                "ability-pairs",
                "The same with intervals over models",
                ["groups", "models", "rho", "p"],
                rows,
                note="Not corrected for multiple comparisons.",
                folded=True,
            ),
        ],
    )


def _rounded(value: float | None) -> FormattedNumber | None:
    return None if value is None or math.isnan(value) else FormattedNumber(value, f"{value:+.2f}")


def _abilities(member: Member) -> Mapping[str, float]:
    evaluation = member.evaluation
    if evaluation.suites:
        return {group: value for suite in evaluation.suites.values() for group, value in suite.items()}
    scores: dict[str, list[float]] = {}
    for name in evaluation.countable:
        for sample in evaluation.by_benchmark[name]:
            if (ability := sample.groups.get("ability")) and sample.score is not None:
                scores.setdefault(ability, []).append(sample.score)
    return {ability: math.fsum(values) / len(values) for ability, values in scores.items()}
