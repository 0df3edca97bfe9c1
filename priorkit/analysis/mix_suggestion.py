"""The best mix and the next one to try, by a response surface fitted to the mixes that were tried."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from priorkit.analysis.mixes import ScoredMixes
from priorkit.core.interval import Interval
from priorkit.data.io.tables import write_table
from priorkit.data.text.concepts import LABELS
from priorkit.scoring.statistics import mix_search
from priorkit.scoring.statistics import response_surface as rs

Floats = NDArray[np.float64]
Acquisition = Literal["expected-improvement", "variance"]
RegionKind = Literal["hull", "simplex"]

_CANDIDATES = 600
"""Mixes among which each resampled surface's best one is chosen."""

_QUANTILES = (0.025, 0.975)

TENSORS = {
    "shares": "[mixes, components] float64, shares of tokens, in the order of table.parquet",
    "scores": "[mixes] float64, as observed",
    "best": "[components] float64, the best mix predicted",
    "next": "[components] float64, the mix to try next",
    "optima": "[resamples, components] float64, the best mix of each resampled surface",
}
"""What ``scores.safetensors`` holds."""


@dataclass(frozen=True)
class Suggestion:
    """The fitted surface with the mixes that it suggests.

    Attributes:
        mixes: the mixes that were tried.
        surface: fitted to the scores, or to their negatives if lower is better.
        validation: kind of surface -> its leave-one-out cross-validation.
        best: the best mix predicted, float64 ``[components]``.
        next: the mix with the highest acquisition, float64 ``[components]``.
        acquisition: that value.
        optima: the best mix of each resampled surface, float64 ``[resamples, components]``.
        fitted: of the mixes that were tried, each at its own scale, mean and deviation float64 ``[mixes]``.
        scale: the scale that the mixes are suggested for, with the tests of extrapolating to it; empty for surfaces
            without scale.
    """

    mixes: ScoredMixes
    surface: rs.Surface
    validation: Mapping[str, rs.CrossValidation]
    best: Floats
    next: Floats
    acquisition: float
    optima: Floats
    fitted: tuple[Floats, Floats]
    scale: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def sign(self) -> float:
        """-1 if lower scores are better, so that the surface is always maximized."""
        return -1.0 if self.mixes.lower_is_better else 1.0

    def predicted_score(self, mix: Floats) -> Interval:
        """The predicted score of a mix, float64 ``[components]``, with its 95 % interval."""
        value = float(self.surface.predict(mix[None])[0][0])
        low, high = np.sort(self.sign * np.quantile(self.surface.resample(mix[None])[:, 0], _QUANTILES))
        return Interval(self.sign * value, float(low), float(high))

    def bands(self, points: Floats) -> tuple[Floats, Floats, Floats]:
        """Predicted scores of ``[points, components]`` with the ends of their 95 % intervals."""
        low, high = np.quantile(self.sign * self.surface.resample(points), _QUANTILES, axis=0)
        return self.sign * self.surface.predict(points)[0], low, high

    def content(self) -> dict[str, Any]:
        """What ``suggestion.json`` holds about the suggested mixes and the fit."""
        ends = np.quantile(self.optima, _QUANTILES, axis=0)
        return {
            "score": self.mixes.score,
            "goal": "minimise" if self.mixes.lower_is_better else "maximise",
            "surface": self.surface.kind,
            "fit": self.surface.parameters,
            **({"scale": dict(self.scale)} if self.scale else {}),
            "cross_validation": {kind: _quality(result) for kind, result in self.validation.items()},
            "best": {
                "shares": rounded_shares(self.mixes, self.best),
                "score": self.predicted_score(self.best).to_dict(),
                "shares_interval": {
                    name: [float(value) for value in ends[:, number]]
                    for number, name in enumerate(self.mixes.components)
                },
            },
            "next": {
                "shares": rounded_shares(self.mixes, self.next),
                "score": self.predicted_score(self.next).to_dict(),
            },
        }


def suggest(
    mixes: ScoredMixes,
    *,
    surface: Literal["auto", "quadratic", "gaussian-process"],
    acquisition: Acquisition,
    region: RegionKind,
    minimum: Mapping[str, float],
    maximum: Mapping[str, float],
    resamples: int,
    seed: int,
) -> Suggestion:
    """Fit a surface, the one that predicts unseen mixes best if ``auto``, and search it.

    Args:
        mixes: the mixes that were tried.
        surface: the family of surfaces, or ``auto``.
        acquisition: what the next mix maximizes.
        region: whether mixtures of the mixes tried (``hull``) or all mixes (``simplex``) are searched.
        minimum, maximum: bounds on shares by component.
        resamples: bootstrap samples, or draws of the surface.
        seed: of resampling and search.

    Raises:
        InputError: too few mixes, all of them equal, or none within the bounds.
    """
    scores = -mixes.scores if mixes.lower_is_better else mixes.scores
    kinds: tuple[rs.SurfaceKind, ...] = rs.SURFACE_KINDS if surface == "auto" else (surface,)
    validation: dict[str, rs.CrossValidation] = {
        kind: rs.cross_validate(kind, mixes.shares, scores, seed=seed) for kind in kinds
    }
    kind = min(kinds, key=lambda name: validation[name].rmse)
    fitted = rs.fit_surface(kind, mixes.shares, scores, seed=seed, resamples=resamples)
    searched = searched_region(mixes, region, minimum, maximum)
    return search(mixes, fitted, fitted.predict(mixes.shares), validation, searched, acquisition, seed)


def search(
    mixes: ScoredMixes,
    surface: rs.Surface,
    fitted: tuple[Floats, Floats],
    validation: Mapping[str, rs.CrossValidation],
    region: mix_search.Region,
    acquisition: Acquisition,
    seed: int,
) -> Suggestion:
    """Search a fitted surface for the best mix and the next one; see :class:`Suggestion` for the arguments."""
    best, _ = mix_search.maximize(lambda points: surface.predict(points)[0], region, mixes.shares, seed=seed)
    best_tried = float(surface.predict(mixes.shares)[0].max())

    def acquisition_value(points: Floats) -> Floats:
        mean, deviation = surface.predict(points)
        if acquisition == "variance":
            return deviation
        return mix_search.expected_improvement(mean, deviation, best_tried, validation[surface.kind].rmse)

    next_mix, value = mix_search.maximize(acquisition_value, region, mixes.shares, seed=seed)
    points = mix_search.random_mixes(region, mixes.shares, seed, count=_CANDIDATES)
    optima = mix_search.best_mix_draws(surface, points, best)
    return Suggestion(mixes, surface, validation, best, next_mix, value, optima, fitted)


def searched_region(
    mixes: ScoredMixes, region: RegionKind, minimum: Mapping[str, float], maximum: Mapping[str, float]
) -> mix_search.Region:
    """Where a mix is searched: mixtures of the mixes tried or all mixes, within bounds on shares by component."""
    low = [minimum.get(name, 0.0) for name in mixes.components]
    high = [maximum.get(name, 1.0) for name in mixes.components]
    return mix_search.search_region(mixes.shares, region, low, high)


def _quality(validation: rs.CrossValidation) -> dict[str, float | None]:
    values = {"r2": validation.r2, "rmse": validation.rmse, "spearman": validation.spearman}
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def rounded_shares(mixes: ScoredMixes, mix: Floats) -> dict[str, float]:
    """Shares with four decimals that add up to 1; the largest absorbs the rounding error."""
    rounded = np.round(np.maximum(mix, 0.0), 4)
    rounded[int(np.argmax(rounded))] += 1 - rounded.sum()
    return dict(zip(mixes.components, np.round(rounded, 4).tolist(), strict=True))


def mix_recipe(
    content: Mapping[str, Any],
    name: Literal["best", "next"],
    *,
    remainder: str | None,
    key: Literal["auto", "weight", "target"],
) -> str:
    """A recipe for ``priorkit mix`` with a suggested mix.

    Args:
        content: of ``suggestion.json``.
        name: which of its mixes.
        remainder: the component that is no label, left out of targets.
        key: the option that is set; ``auto``: target if the components are labels.
    """
    title = {"best": "The best mix predicted", "next": "The mix to try next"}[name]
    shares: Mapping[str, float] = content[name]["shares"]
    named = {component: share for component, share in shares.items() if component != remainder}
    if key == "auto":
        key = "target" if all(component in LABELS for component in named) else "weight"
    if key == "weight":
        named = dict(shares)
    r2 = content["cross_validation"][content["surface"]]["r2"]
    quality = "not defined" if r2 is None else f"{r2:.2f}"
    pairs = ", ".join(f"{json.dumps(name, ensure_ascii=False)} = {share}" for name, share in named.items())
    return (
        f"# {title}, by suggest-mix ({content['goal']} {content['score']}; {content['surface']}, "
        f"R2 {quality} by leaving one out).\n"
        "# priorkit mix NAME=SOURCE... --tokenizer TOKENIZER --recipe THIS --out CORPUS\n"
        f"[mix]\n{key} = {{ {pairs} }}\n"
    )


def save_suggestion(folder: Path, suggestion: Suggestion, content: Mapping[str, Any]) -> None:
    """Write ``suggestion.json``, ``table.parquet`` (a row per mix) and ``scores.safetensors``."""
    from safetensors.numpy import save_file

    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / "suggestion.json").write_text(text, encoding="utf-8")
    mixes, sign = suggestion.mixes, suggestion.sign
    mean, deviation = suggestion.fitted
    columns: dict[str, Any] = {"mix": mixes.names}
    columns |= {f"share.{name}": mixes.shares[:, number] for number, name in enumerate(mixes.components)}
    scales = {"parameters": mixes.parameters, "tokens": mixes.tokens}
    columns |= {name: values for name, values in scales.items() if values is not None}
    columns |= {"score": mixes.scores, "fitted": sign * mean, "deviation": deviation}
    columns |= {f"left_out.{kind}": sign * cv.predicted for kind, cv in suggestion.validation.items()}
    write_table(columns, folder / "table.parquet")
    tensors = {
        "shares": mixes.shares,
        "scores": mixes.scores,
        "best": suggestion.best,
        "next": suggestion.next,
        "optima": suggestion.optima,
    }
    save_file({name: np.ascontiguousarray(tensors[name]) for name in TENSORS}, folder / "scores.safetensors")
