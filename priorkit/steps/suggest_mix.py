"""Suggest the next mix from evaluations of models trained on several mixes, by a fitted response surface."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from priorkit.core.errors import InputError, Problems, UsageError, nearest
from priorkit.core.inputs import Input
from priorkit.core.interval import Interval
from priorkit.core.settings import StepSettings, argument, option
from priorkit.core.step import Step
from priorkit.core.values import NamedNumbers, Words
from priorkit.core.work import Plan, Work
from priorkit.data.results.named_artifacts import Labelled
from priorkit.data.text.concepts import LABELS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from priorkit.analysis.mixes import ScoredMixes
    from priorkit.scoring.statistics.response_surface import CrossValidation, Surface

logger = logging.getLogger(__name__)


class SuggestMixSettings(StepSettings):
    """Options of ``priorkit suggest-mix``."""

    step: ClassVar[str] = "suggest-mix"
    kind: ClassVar[str] = "scores"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit suggest-mix eval-0 eval-1 eval-2 eval-3 --score naming.accuracy --out suggestion",
        "priorkit suggest-mix --table mixes.csv --shares web,code,math --score accuracy --out suggestion",
    )

    evaluations: Labelled = argument(
        "Evaluations of models pretrained on different mixes; NAME= in front names one.",
        accepts=("evaluation",),
        default={},
        metavar="[NAME=]EVALUATION",
    )
    table: str | None = option(
        None,
        "Table with a row per mix (.csv, .parquet, .jsonl) in place of evaluations.",
        accepts=("scores",),
        metavar="FILE",
    )
    shares: Words = option(
        (), "Components of the mix: columns of the table, or sources or labels; all sources where not given."
    )
    remainder: str | None = option(
        None, "Name of a further component that is what the shares leave of 1.", metavar="NAME"
    )
    score: Words = option(
        (),
        "What a mix is judged by: columns of the table, or BENCHMARK or BENCHMARK.METRIC; several are "
        "averaged. All accuracies of the evaluations where not given.",
    )
    goal: Literal["auto", "maximise", "minimise"] = option(
        "auto", "Whether more is better; auto: less is better for perplexities, losses and ranks."
    )
    surface: Literal["auto", "quadratic", "gaussian-process"] = option(
        "auto", "What is fitted; auto: what predicts mixes best that it has not seen."
    )
    acquire: Literal["expected-improvement", "variance"] = option(
        "expected-improvement", "What makes the next mix: the gain it promises, or how little is known of it."
    )
    region: Literal["hull", "simplex"] = option(
        "hull", "Where mixes are looked for: among mixtures of those tried, or everywhere."
    )
    minimum: NamedNumbers = option({}, "Smallest share of a component, 0 to 1.", metavar="NAME=X")
    maximum: NamedNumbers = option({}, "Largest share of a component, 0 to 1.", metavar="NAME=X")
    recipe_key: Literal["auto", "weight", "target"] = option(
        "auto",
        "Which option of mix the recipes set; auto: target where the components are labels.",
        advanced=True,
    )
    resamples: int = option(
        400, "Bootstrap samples, or draws of the surface, behind intervals.", ge=50, advanced=True
    )
    seed: int = option(42, "Seed of resampling and search.", ge=0)


def plan(settings: SuggestMixSettings, inputs: Mapping[str, Input]) -> Plan:
    """Read the mixes and their scores, which are small, and check that a surface can be fitted."""
    from priorkit.analysis.mixes import MixSelection, mixes_from_evaluations, mixes_from_table
    from priorkit.scoring.statistics.response_surface import MIN_MIXES

    if bool(settings.evaluations) == bool(settings.table):
        raise UsageError(
            "give evaluations, or --table FILE" + (", not both" if settings.table else ""),
            hint="priorkit suggest-mix --help has an example of each",
        )
    wanted = MixSelection(settings.shares, settings.remainder, settings.score, settings.goal)
    if settings.table:
        mixes = mixes_from_table(inputs["table"], wanted)
    else:
        items = {name: inputs[f"evaluations.{name}"] for name in settings.evaluations}
        mixes = mixes_from_evaluations(items, wanted)
    _check_bounds(settings, mixes)
    if len(mixes.names) < MIN_MIXES:
        raise InputError(f"a surface needs at least {MIN_MIXES} mixes, got {len(mixes.names)}")
    goal = "least" if mixes.minimise else "most"
    return Plan(
        [
            ("mixes", str(len(mixes.names))),
            ("components", ", ".join(mixes.components)),
            ("score", f"{goal} {mixes.score}"),
        ],
        payload=mixes,
    )


def _check_bounds(settings: SuggestMixSettings, mixes: ScoredMixes) -> None:
    problems = Problems(UsageError)
    for flag, bounds in (("--minimum", settings.minimum), ("--maximum", settings.maximum)):
        for name, value in bounds.items():
            if name not in mixes.components:
                problems.add(f"no component '{name}'", where=flag, hint=nearest(name, mixes.components))
            elif not 0 <= value <= 1:
                problems.add(f"a share lies between 0 and 1, got {value}", where=f"{flag} {name}")
            elif flag == "--maximum" and value < settings.minimum.get(name, 0):
                problems.add(f"below the smallest share of '{name}'", where=flag)
    problems.raise_if_any()


def execute(settings: SuggestMixSettings, work: Work) -> None:
    """Fit both surfaces, keep the one that predicts better, find the best and the next mix."""
    import numpy as np

    from priorkit.scoring.statistics import response_surface as rs

    mixes: ScoredMixes = work.plan.payload
    sign = -1.0 if mixes.minimise else 1.0
    values = sign * mixes.scores
    tried: tuple[rs.SurfaceKind, ...] = (
        rs.SURFACE_KINDS if settings.surface == "auto" else (settings.surface,)
    )
    checked = {kind: rs.cross_validate(kind, mixes.shares, values, seed=settings.seed) for kind in tried}
    kind = min(tried, key=lambda name: checked[name].rmse)
    surface = rs.fit_surface(kind, mixes.shares, values, seed=settings.seed, resamples=settings.resamples)
    low = [settings.minimum.get(name, 0.0) for name in mixes.components]
    high = [settings.maximum.get(name, 1.0) for name in mixes.components]
    region = rs.search_region(mixes.shares, settings.region, low, high)
    search = {"region": region, "starts": mixes.shares, "seed": settings.seed}
    best, _ = rs.maximize(lambda points: surface.predict(points)[0], **search)
    reached = float(surface.predict(mixes.shares)[0].max())

    def wish(points: NDArray[np.float64]) -> NDArray[np.float64]:
        mean, deviation = surface.predict(points)
        if settings.acquire == "variance":
            return deviation
        return rs.expected_improvement(mean, deviation, reached, checked[kind].rmse)

    next_mix, gain = rs.maximize(wish, **search)
    points = rs.candidate_mixes(region, mixes.shares, settings.seed, count=_COMPARED)
    optima = rs.best_mix_draws(surface, points, best)
    content = {
        "score": mixes.score,
        "goal": "minimise" if mixes.minimise else "maximise",
        "surface": kind,
        "fit": surface.parameters,
        "cross_validation": {name: _quality(own) for name, own in checked.items()},
        "best": {
            "shares": _shares(mixes, best),
            "score": _score(surface, best, sign),
            "shares_interval": {
                name: [float(v) for v in np.quantile(optima[:, number], _ENDS)]
                for number, name in enumerate(mixes.components)
            },
        },
        "next": {
            "shares": _shares(mixes, next_mix),
            "score": _score(surface, next_mix, sign),
            "acquire": settings.acquire,
            "value": gain,
        },
        "region": settings.region,
        "tensors": TENSORS,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (work.path / "suggestion.json").write_text(text, encoding="utf-8")
    _save(work.path, mixes, surface, checked, sign, {"best": best, "next": next_mix, "optima": optima})
    for name, what in (("best", "the best mix predicted"), ("next", "the mix to try next")):
        recipe = _recipe(settings, mixes, content[name]["shares"], what, content)
        (work.path / f"{name}-mix.toml").write_text(recipe, encoding="utf-8")
    _draw(work.path, mixes, surface, checked, best, sign)
    work.metrics.update(
        {key: content[key] for key in ("score", "goal", "surface", "cross_validation", "best", "next")}
    )
    _say(content, work.path.name)


_COMPARED = 600
"""Mixes among which resampled surfaces have their best one."""

_ENDS = (0.025, 0.975)

TENSORS = {
    "shares": "[mixes, components] float64, shares of tokens, in the order of table.parquet",
    "scores": "[mixes] float64, as observed",
    "best": "[components] float64, the best mix predicted",
    "next": "[components] float64, the mix to try next",
    "optima": "[resamples, components] float64, the best mix of each resampled surface",
}
"""What ``scores.safetensors`` holds."""


def _quality(found: CrossValidation) -> dict[str, float | None]:
    values = {"r2": found.r2, "rmse": found.rmse, "spearman": found.spearman}
    return {name: None if value != value else value for name, value in values.items()}


def _score(surface: Surface, point: NDArray[np.float64], sign: float) -> dict[str, float | None]:
    """The predicted score of a mix with its 95 % interval."""
    import numpy as np

    value = float(surface.predict(point[None])[0][0])
    ends = np.sort(sign * np.quantile(surface.resample(point[None])[:, 0], _ENDS))
    return Interval(sign * value, float(ends[0]), float(ends[1])).to_dict()


def _shares(mixes: ScoredMixes, point: NDArray[np.float64]) -> dict[str, float]:
    """Shares with four decimals that add up to 1; the largest takes the rounding."""
    import numpy as np

    rounded = np.round(np.maximum(point, 0.0), 4)
    rounded[int(np.argmax(rounded))] += 1 - rounded.sum()
    return dict(zip(mixes.components, np.round(rounded, 4).tolist(), strict=True))


def _recipe(
    settings: SuggestMixSettings,
    mixes: ScoredMixes,
    shares: Mapping[str, float],
    what: str,
    content: Mapping[str, Any],
) -> str:
    """A recipe for ``priorkit mix``."""
    kept = {name: share for name, share in shares.items() if name != settings.remainder}
    labels = all(name in LABELS for name in kept)
    key = settings.recipe_key if settings.recipe_key != "auto" else "target" if labels else "weight"
    if key == "weight":
        kept = dict(shares)
    quality = content["cross_validation"][content["surface"]]
    r2 = "not defined" if quality["r2"] is None else f"{quality['r2']:.2f}"
    pairs = ", ".join(f"{json.dumps(name, ensure_ascii=False)} = {share}" for name, share in kept.items())
    return (
        f"# {what[0].upper()}{what[1:]}, by suggest-mix ({content['goal']} {mixes.score}; {content['surface']}, "
        f"R2 {r2} by leaving one out).\n"
        "# priorkit mix NAME=SOURCE... --tokenizer TOKENIZER --recipe THIS --out CORPUS\n"
        f"[mix]\n{key} = {{ {pairs} }}\n"
    )


def _save(
    folder: Path,
    mixes: ScoredMixes,
    surface: Surface,
    checked: Mapping[Any, CrossValidation],
    sign: float,
    points: Mapping[str, NDArray[np.float64]],
) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    from priorkit.data.io.tables import write_table

    mean, deviation = surface.predict(mixes.shares)
    columns: dict[str, Any] = {"mix": mixes.names}
    columns |= {f"share.{name}": mixes.shares[:, number] for number, name in enumerate(mixes.components)}
    columns |= {"score": mixes.scores, "fitted": sign * mean, "deviation": deviation}
    columns |= {f"left_out.{name}": sign * own.predicted for name, own in checked.items()}
    write_table(columns, folder / "table.parquet")
    tensors = {"shares": mixes.shares, "scores": mixes.scores, **points}
    save_file({name: np.ascontiguousarray(tensors[name]) for name in TENSORS}, folder / "scores.safetensors")


def _draw(
    folder: Path,
    mixes: ScoredMixes,
    surface: Surface,
    checked: Mapping[Any, CrossValidation],
    best: NDArray[np.float64],
    sign: float,
) -> None:
    import numpy as np

    from priorkit.report.figures import to_png
    from priorkit.report.plots.surfaces import predicted_scores, surface_slices

    def bands(
        points: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        low, high = np.quantile(sign * surface.resample(points), _ENDS, axis=0)
        return sign * surface.predict(points)[0], low, high

    figure = surface_slices(mixes.components, mixes.shares, mixes.scores, best, bands, mixes.score)
    (folder / "slices.png").write_bytes(to_png(figure))
    predicted = {name: sign * own.predicted for name, own in checked.items()}
    (folder / "predictions.png").write_bytes(to_png(predicted_scores(mixes.scores, predicted, mixes.score)))


def _say(content: Mapping[str, Any], partial: str) -> None:
    for name, quality in content["cross_validation"].items():
        values = ", ".join(f"{key} {'-' if v is None else format(v, '.3g')}" for key, v in quality.items())
        logger.info(f"  {name}: {values} (each mix predicted from the others)")
    chosen = content["cross_validation"][content["surface"]]
    if chosen["r2"] is None or chosen["r2"] <= 0:
        logger.warning(
            "the surface predicts unseen mixes no better than their mean does; what it suggests is weakly founded"
        )
    for name in ("best", "next"):
        score, shares = content[name]["score"], content[name]["shares"]
        mix = ", ".join(f"{component} {share:.1%}" for component, share in shares.items())
        logger.info(f"  {name}: {mix}: {score['value']:.4g} [{score['low']:.4g}, {score['high']:.4g}]")
    logger.info(f"  recipes: {partial.removesuffix('.partial')}/best-mix.toml, next-mix.toml")


STEP = Step(SuggestMixSettings, plan, execute)
run = STEP.run
