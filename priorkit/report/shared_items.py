"""Items that may be averaged: which evaluations answered them all, and means with intervals over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from priorkit.core.interval import Interval
from priorkit.data.results.artifact_graph import Member, Members
from priorkit.data.results.evaluations import Evaluation, ScoredItem
from priorkit.scoring.statistics.intervals import bootstrap_indices, bootstrap_mean, percentile_interval


@dataclass(frozen=True)
class SharedItems:
    """Evaluations side by side on the items that all of them answered.

    Attributes:
        members: the evaluations.
        items: benchmark -> ids, in the order of the first evaluation.
    """

    members: Sequence[Member]
    items: Mapping[str, Sequence[str]]

    def samples(self, member: Member, benchmark: str) -> list[ScoredItem]:
        """One evaluation's answers to the shared items of a benchmark."""
        by_id = {sample.id: sample for sample in member.evaluation.by_benchmark[benchmark]}
        return [by_id[key] for key in self.items[benchmark]]

    def all_samples(self, member: Member) -> list[ScoredItem]:
        """One evaluation's answers to all shared items."""
        return [sample for name in self.items for sample in self.samples(member, name)]


def group_by_shared_items(members: Sequence[Member]) -> list[SharedItems]:
    """Evaluations that are comparable, each pool with the items that all of its members answered.

    Evaluations without an item in common with those before them begin a new pool.
    """
    pools: list[SharedItems] = []
    for member in members:
        keys_by_benchmark = {
            name: [sample.id for sample in member.evaluation.by_benchmark[name]]
            for name in member.evaluation.countable
        }
        for index, pool in enumerate(pools):
            shared = {
                name: _both(keys, keys_by_benchmark[name])
                for name, keys in pool.items.items()
                if name in keys_by_benchmark
            }
            if any(shared.values()):
                non_empty = {name: keys for name, keys in shared.items() if keys}
                pools[index] = SharedItems([*pool.members, member], non_empty)
                break
        else:
            if keys_by_benchmark:
                pools.append(SharedItems([member], keys_by_benchmark))
    return pools


def _both(first: Sequence[str], second: Sequence[str]) -> list[str]:
    known = set(second)
    return [key for key in first if key in known]


def mean_of_benchmarks(pool: SharedItems, member: Member, members: Members) -> Interval:
    """Unweighted mean over benchmarks; the interval resamples the items within each."""
    scores = [
        np.array([sample.score for sample in pool.samples(member, name)], dtype=np.float64)
        for name in pool.items
    ]
    replicates = np.mean(
        [
            np.concatenate(
                [
                    values[draw].mean(1)
                    for draw in bootstrap_indices(len(values), members.resamples, members.seed + number)
                ]
            )
            for number, values in enumerate(scores)
        ],
        axis=0,
    )
    return percentile_interval(float(np.mean([values.mean() for values in scores])), replicates, 0.95)


def mean_score(samples: Sequence[ScoredItem], members: Members) -> Interval:
    """Mean score over items; resamples entities where every item names one, items else."""
    return _mean([sample.score or 0.0 for sample in samples], samples, members)


def mean_above_chance(samples: Sequence[ScoredItem], members: Members) -> Interval | None:
    """Mean of score minus the share that guessing gets right, as :func:`mean_score`; None where one is not known."""
    chances = [chance for sample in samples if (chance := sample.chance) is not None]
    if not samples or len(chances) < len(samples):
        return None
    above = [(sample.score or 0.0) - chance for sample, chance in zip(samples, chances, strict=True)]
    return _mean(above, samples, members)


def mean_difference(first: Sequence[ScoredItem], second: Sequence[ScoredItem], members: Members) -> Interval:
    """Mean of ``second - first`` over two answers to the same items, as :func:`mean_score`."""
    changes = [
        (after.score or 0.0) - (before.score or 0.0) for before, after in zip(first, second, strict=True)
    ]
    return _mean(changes, first, members)


def _mean(values: Sequence[float], samples: Sequence[ScoredItem], members: Members) -> Interval:
    entities = [sample.groups.get("entity") or "" for sample in samples]
    return bootstrap_mean(
        values,
        seed=members.seed,
        clusters=entities if all(entities) else None,
        resamples=members.resamples,
    )


def by_value(samples: Sequence[ScoredItem], column: str) -> dict[str, list[ScoredItem]]:
    """Items by their value in a column; those without one are left out."""
    parts: dict[str, list[ScoredItem]] = {}
    for sample in samples:
        value = sample.groups.get(column)
        if value:
            parts.setdefault(value, []).append(sample)
    return parts


def mean_chance(pool: SharedItems) -> float | None:
    """Mean over benchmarks of what guessing gets, where it is known for all of them."""
    levels = [chance_level([member.evaluation for member in pool.members], name) for name in pool.items]
    known = [level for level in levels if level is not None]
    return math.fsum(known) / len(levels) if len(known) == len(levels) else None


def chance_level(evaluations: Sequence[Evaluation], benchmark: str) -> float | None:
    """What blind guessing gets on a benchmark, where the choices are known."""
    return next((level for e in evaluations if (level := e.chance(benchmark)) is not None), None)


def colors_of(members: Sequence[Member]) -> list[int]:
    """The series numbers of artifacts."""
    return [member.color for member in members]
