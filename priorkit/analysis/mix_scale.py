"""Laws over model size and tokens: whether runs can carry them to another scale, and the mix that they suggest."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from priorkit.analysis.mix_suggestion import Acquisition, RegionKind, Suggestion, search, searched_region
from priorkit.analysis.mixes import ScoredMixes
from priorkit.core.errors import InputError, Problems
from priorkit.scoring.statistics import response_surface as rs
from priorkit.scoring.statistics.scaling_laws import (
    LAW_KINDS,
    SPARE_RUNS,
    Law,
    LawKind,
    Runs,
    coefficients_of,
    fit_law,
    predict_left_out,
    predict_runs,
)

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

FEWEST_SCALES = 3
"""Different sizes, or numbers of tokens, that an extrapolation needs: with two any exponent fits."""

_SAME = 1.01
"""Scales whose ratio is smaller are the same."""


@dataclass(frozen=True)
class Scale:
    """The scale that a mix is suggested for.

    Attributes:
        parameters: of the model; 1 where runs do not differ in it.
        tokens: of training; 1 where runs do not differ in it.
        beyond: which of ``parameters`` and ``tokens`` lie beyond the runs.
    """

    parameters: float
    tokens: float
    beyond: tuple[str, ...]


def runs_of(mixes: ScoredMixes) -> Runs:
    """The mixes as runs at their scales; a scale that does not vary is left out."""

    def varying(values: Floats | None) -> Floats | None:
        return values if values is not None and values.max() / values.min() >= _SAME else None

    losses = mixes.scores if mixes.lower_is_better else -mixes.scores
    return Runs(mixes.shares, varying(mixes.parameters), varying(mixes.tokens), losses)


def usable_laws(mixes: ScoredMixes) -> tuple[LawKind, ...]:
    """The laws with fewer coefficients than there are runs.

    Raises:
        InputError: neither scale varies, or there are too few runs for any law.
    """
    runs = runs_of(mixes)
    if runs.parameters is None and runs.tokens is None:
        raise InputError(
            "all runs have the same number of parameters and of tokens",
            hint="leave out --scale, or evaluate models of several sizes or numbers of tokens",
        )
    scaled = (runs.parameters is not None, runs.tokens is not None)
    needed = {kind: coefficients_of(kind, len(mixes.components), *scaled) + SPARE_RUNS for kind in LAW_KINDS}
    usable: tuple[LawKind, ...] = tuple(kind for kind in LAW_KINDS if needed[kind] <= len(runs))
    if not usable:
        raise InputError(
            f"the smallest law over {len(mixes.components)} components needs {min(needed.values())} runs, got {len(runs)}",
            hint="train and evaluate more, or join components (--shares A,B --remainder rest)",
        )
    return usable


def target_scale(mixes: ScoredMixes, parameters: int | None, tokens: int | None) -> Scale:
    """The scale asked for, by default the largest of the runs, checked against what the runs span.

    Args:
        mixes: the runs.
        parameters, tokens: the scale asked for; None for the largest.

    Raises:
        InputError: the runs cannot carry it: a scale that does not vary, too few different values, further beyond
            the runs than these reach, or sizes and tokens that vary together.
    """
    runs = runs_of(mixes)
    problems = Problems(InputError)
    chosen: dict[str, float] = {}
    beyond: list[str] = []
    for name, asked, values, given in (
        ("parameters", parameters, runs.parameters, mixes.parameters),
        ("tokens", tokens, runs.tokens, mixes.tokens),
    ):
        if values is None:
            chosen[name] = 1.0
            if asked is not None and (given is None or not 1 / _SAME < asked / given.mean() < _SAME):
                known = "unknown" if given is None else f"{given.mean():.3g} in all of them"
                problems.add(
                    f"the runs say nothing about other numbers of {name}: it is {known}",
                    where=f"--at-{name} {asked:.3g}",
                    hint=f"evaluate models that differ in it, or leave out --at-{name}",
                )
            continue
        chosen[name] = float(values.max() if asked is None else asked)
        if chosen[name] > values.max() * _SAME:
            beyond.append(name)
            _check_reach(name, chosen[name], values, problems)
        elif chosen[name] < values.min() / _SAME:
            problems.add(f"below all runs, which begin at {values.min():.3g}", where=f"--at-{name}")
    scale = Scale(chosen["parameters"], chosen["tokens"], tuple(beyond))
    if beyond and runs.parameters is not None and runs.tokens is not None:
        _check_separable(runs.parameters, runs.tokens, problems)
    problems.raise_if_any()
    return scale


def _distinct(values: Floats) -> list[float]:
    found: list[float] = []
    for value in np.sort(values).tolist():
        if not found or value / found[-1] >= _SAME:
            found.append(value)
    return found


def _check_reach(name: str, asked: float, values: Floats, problems: Problems) -> None:
    different = _distinct(values)
    where = f"--at-{name} {asked:.3g}"
    if len(different) < FEWEST_SCALES:
        problems.add(
            f"extrapolation needs {FEWEST_SCALES} different numbers of {name}, got {len(different)}",
            where=where,
            hint="with two any exponent fits; evaluate models at more scales",
        )
    elif asked / different[-1] > different[-1] / different[0]:
        problems.add(
            f"the runs span a factor of {different[-1] / different[0]:.3g} in {name}; this is a factor of "
            f"{asked / different[-1]:.3g} beyond the largest",
            where=where,
            hint=f"at most {different[-1] ** 2 / different[0]:.3g}",
        )


def _check_separable(parameters: Floats, tokens: Floats, problems: Problems) -> None:
    logs = np.stack([np.log(parameters), np.log(tokens)])
    if abs(float(np.corrcoef(logs)[0, 1])) > 0.98:
        problems.add(
            "sizes and tokens of the runs grow together, so their effects cannot be separated",
            where="--at-parameters, --at-tokens",
            hint="evaluate runs that differ in only one of them",
        )


def check_extrapolation(
    mixes: ScoredMixes, law: Law, scale: Scale, best: Floats, *, seed: int
) -> dict[str, dict[str, float]]:
    """Test the extrapolation on the runs: fit without those of the largest scale and predict them.

    Args:
        mixes: the runs.
        law: fitted to all of them.
        scale: the scale asked for.
        best: the suggested mix, float64 ``[components]``.
        seed: of the fits.

    Returns:
        For each scale extrapolated the error on the largest one (``rmse``), that of the runs' value at the next smaller
        scale (``baseline_rmse``), and the number of runs.

    Raises:
        InputError: the law predicts the largest scale no better than no change would, or its interval at the scale
            asked for is as wide as all scores.
    """
    runs = runs_of(mixes)
    problems = Problems(InputError)
    tests: dict[str, dict[str, float]] = {}
    for name in scale.beyond:
        values = runs.parameters if name == "parameters" else runs.tokens
        assert values is not None
        largest = values >= values.max() / _SAME
        needed = coefficients_of(law.kind, law.components, law.by_size, law.by_tokens)
        if (~largest).sum() < needed:
            problems.add(
                f"{law.kind} has {needed} coefficients and only {(~largest).sum()} runs are below the largest number "
                f"of {name}, so the extrapolation cannot be tested",
                where=f"--at-{name}",
                hint="evaluate more runs at smaller scales",
            )
            continue
        rest, held_out = runs.chosen(~largest), runs.chosen(largest)
        predicted = predict_runs(fit_law(law.kind, rest, seed=seed), held_out)
        next_smaller = np.where(largest, -np.inf, values).max()
        unchanged = law.predict(
            held_out.shares,
            next_smaller if name == "parameters" else _of(held_out.parameters),
            next_smaller if name == "tokens" else _of(held_out.tokens),
        )
        rmse = float(np.sqrt(((predicted - held_out.losses) ** 2).mean()))
        baseline = float(np.sqrt(((unchanged - held_out.losses) ** 2).mean()))
        tests[name] = {"rmse": rmse, "baseline_rmse": baseline, "runs": float(len(held_out))}
        if rmse >= baseline:
            problems.add(
                f"fitted without the largest number of {name}, {law.kind} predicts it with an error of {rmse:.3g}; "
                f"assuming no change from the next smaller one gives {baseline:.3g}",
                where=f"--at-{name}",
                hint="the runs do not carry an extrapolation; suggest for a scale among them",
            )
    draws = law.resample(best[None], scale.parameters, scale.tokens)[:, 0]
    low, high = np.quantile(draws, [0.025, 0.975])
    if scale.beyond and high - low >= np.ptp(runs.losses):
        problems.add(
            f"the 95 % interval of the score there is {high - low:.3g} wide, all scores of the runs span "
            f"{np.ptp(runs.losses):.3g}",
            where=", ".join(f"--at-{name}" for name in scale.beyond),
            hint="evaluate more runs, or suggest for a scale among them",
        )
    problems.raise_if_any()
    return tests


def _of(values: Floats | None) -> Floats | float:
    return 1.0 if values is None else values


def describe_scale(mixes: ScoredMixes) -> Sequence[tuple[str, str]]:
    """What ``--check`` prints of the runs' scales."""
    runs = runs_of(mixes)
    return [
        (name, f"{values.min():.3g} to {values.max():.3g}, {len(_distinct(values))} different")
        for name, values in (("parameters", runs.parameters), ("training tokens", runs.tokens))
        if values is not None
    ]


def suggest_at_scale(
    mixes: ScoredMixes,
    scale: Scale,
    *,
    surface: Literal["auto"] | LawKind,
    acquisition: Acquisition,
    region: RegionKind,
    minimum: Mapping[str, float],
    maximum: Mapping[str, float],
    resamples: int,
    seed: int,
) -> Suggestion:
    """Fit a law, the one that predicts left-out runs best if ``auto``, and search the mixes at a scale.

    Args:
        mixes: the runs.
        scale: of :func:`target_scale`.
        surface: the form of the law, or ``auto``.
        acquisition, region, minimum, maximum, resamples, seed: as for a surface without scale.

    Raises:
        InputError: the runs do not carry the extrapolation.
    """
    runs = runs_of(mixes)
    kinds = usable_laws(mixes) if surface == "auto" else (surface,)
    validation: dict[str, rs.CrossValidation] = {
        kind: rs.judge_predictions(-predict_left_out(kind, runs, seed=seed), -runs.losses) for kind in kinds
    }
    kind = min(kinds, key=lambda name: validation[name].rmse)
    law = fit_law(kind, runs, seed=seed, resamples=resamples)

    def resample(points: Floats) -> Floats:
        return -law.resample(points, scale.parameters, scale.tokens)

    def predict(points: Floats) -> tuple[Floats, Floats]:
        return -law.predict(points, scale.parameters, scale.tokens), resample(points).std(0)

    section = rs.Surface(kind, predict, resample, dict(law.exponents()))
    own = (1.0 if runs.parameters is None else runs.parameters, 1.0 if runs.tokens is None else runs.tokens)
    fitted = -predict_runs(law, runs), law.resample(runs.shares, *own).std(0)
    searched = searched_region(mixes, region, minimum, maximum)
    found = search(mixes, section, fitted, validation, searched, acquisition, seed)
    tests = check_extrapolation(mixes, law, scale, found.best, seed=seed)
    described: dict[str, Any] = {
        name: value
        for name, value, varies in (
            ("parameters", scale.parameters, law.by_size),
            ("tokens", scale.tokens, law.by_tokens),
        )
        if varies
    }
    return replace(found, scale={**described, "extrapolates": list(scale.beyond), "left_out_largest": tests})
