"""What holds over several seeds: accuracy of each variant, and its difference from the first one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from priorkit.data.results.artifact_graph import Member, Members, seed_of
from priorkit.data.results.evaluations import ACCURACIES
from priorkit.report import numbers
from priorkit.report.blocks import Finding
from priorkit.report.sections.evaluations.seeds import shared_metrics
from priorkit.report.sections.findings.wording import direction, known, listed, signed
from priorkit.scoring.statistics.intervals import student_mean


def seeds_finding(members: Members) -> Finding | None:
    """Means over seeds with Student's intervals; differences are taken seed by seed."""
    variants = members.repeats()
    benchmarks = [(name, metric) for name, metric in shared_metrics(variants) if metric in ACCURACIES]
    if not benchmarks:
        return None
    by_seed = {name: _by_seed(runs, benchmarks) for name, runs in variants.items()}
    over = f"mean of {len(benchmarks)} benchmarks" if len(benchmarks) > 1 else benchmarks[0][0]
    levels = [
        f"{numbers.with_interval(student_mean(list(runs.values())))} for {name} ({len(runs)} seeds)"
        for name, runs in by_seed.items()
    ]
    sentences = [f"Over seeds, accuracy ({over}) is {listed(levels)}."]
    first, *others = by_seed
    decided: list[str] = []
    undecided: list[str] = []
    for name in others:
        seeds = [seed for seed in by_seed[name] if seed in by_seed[first]]
        if len(seeds) < 2:
            continue
        change = student_mean([by_seed[name][seed] - by_seed[first][seed] for seed in seeds])
        if known(change):
            text = f"{name} \N{MINUS SIGN} {first} {signed(change)}"
            (decided if direction(change) else undecided).append(text)
    if decided:
        sentences.append(f"Seed by seed the difference is {listed(decided)}.")
    if undecided:
        sentences.append(f"It cannot be decided over seeds: {listed(undecided)}.")
    return Finding(" ".join(sentences), "seeds")


def _by_seed(runs: Sequence[Member], benchmarks: Sequence[tuple[str, str]]) -> Mapping[str, float]:
    """Seed -> the mean of the benchmarks' accuracies."""
    return {
        seed_of(run.label): math.fsum(
            run.evaluation.benchmarks[name].metrics[metric].value for name, metric in benchmarks
        )
        / len(benchmarks)
        for run in runs
    }
