"""Suggest the next mix from evaluations of models trained on several mixes, by a fitted response surface."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from priorkit.core.errors import InputError, Problems, UsageError, nearest
from priorkit.core.options.settings import StepSettings, argument, option
from priorkit.core.options.specs import refuse_changed
from priorkit.core.options.values import Count, NamedNumbers, Words
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.data.results.named_artifacts import Labelled

if TYPE_CHECKING:
    from priorkit.analysis.mix_scale import Scale
    from priorkit.analysis.mix_suggestion import Suggestion
    from priorkit.analysis.mixes import ScoredMixes


logger = logging.getLogger(__name__)


class SuggestMixSettings(StepSettings):
    """Options of ``priorkit suggest-mix``."""

    step: ClassVar[str] = "suggest-mix"
    kind: ClassVar[str] = "scores"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit suggest-mix eval-0 eval-1 eval-2 eval-3 --score naming.accuracy --out suggestion",
        "priorkit suggest-mix --table runs.csv --shares web,code,math --score loss --scale --at-parameters 7B "
        "--out suggestion",
    )

    evaluations: Labelled = argument(
        "Evaluations of models pretrained on different mixes; NAME= sets the name shown.",
        accepts=("evaluation",),
        default={},
        metavar="[NAME=]EVALUATION",
    )
    table: str | None = option(
        None,
        "Table with a row per mix (.csv, .parquet, .jsonl) instead of evaluations.",
        accepts=("scores",),
        metavar="FILE",
    )
    shares: Words = option(
        (), "Components of the mix: columns of the table, or sources or labels; default: all sources."
    )
    remainder: str | None = option(
        None, "Name of an additional component: 1 minus the sum of the shares.", metavar="NAME"
    )
    score: Words = option(
        (),
        "Score to optimize: columns of the table, or BENCHMARK or BENCHMARK.METRIC; several are averaged. "
        "Default: all accuracies of the evaluations.",
    )
    goal: Literal["auto", "maximise", "minimise"] = option(
        "auto", "Whether higher scores are better; auto: lower for perplexities, losses and ranks."
    )
    surface: Literal[
        "auto",
        "quadratic",
        "gaussian-process",
        "linear-law",
        "exponential-law",
        "reciprocal-law",
        "joint-law",
    ] = option(
        "auto",
        "Response surface, or with --scale a law; auto: the one with the lowest leave-one-out error.",
    )
    scale: bool = option(
        False,
        "Fit laws that also carry model size and training tokens, as the pretraining runs or a table's columns say.",
    )
    parameters_column: str = option(
        "parameters",
        "Column of a table with the model's number of parameters.",
        metavar="NAME",
        advanced=True,
    )
    tokens_column: str = option(
        "tokens", "Column of a table with the number of training tokens.", metavar="NAME", advanced=True
    )
    at_parameters: Count | None = option(
        None, "Model size that the mix is suggested for; default the largest evaluated.", metavar="N"
    )
    at_tokens: Count | None = option(
        None, "Training tokens that the mix is suggested for; default the most evaluated.", metavar="N"
    )
    acquire: Literal["expected-improvement", "variance"] = option(
        "expected-improvement", "Acquisition: expected improvement or predictive variance."
    )
    region: Literal["hull", "simplex"] = option(
        "hull", "Search region: mixtures of the mixes tried, or all mixes."
    )
    minimum: NamedNumbers = option({}, "Smallest share of a component, 0 to 1.", metavar="NAME=X")
    maximum: NamedNumbers = option({}, "Largest share of a component, 0 to 1.", metavar="NAME=X")
    recipe_key: Literal["auto", "weight", "target"] = option(
        "auto",
        "Option of mix that the recipes set; auto: target if the components are labels.",
        advanced=True,
    )
    resamples: int = option(
        400, "Bootstrap samples or posterior draws of the surface for the intervals.", ge=50, advanced=True
    )
    seed: int = option(42, "Seed of resampling and search.", ge=0)


@dataclass(frozen=True)
class PlannedMixes:
    """What was read.

    Attributes:
        mixes: the mixes that were tried.
        scale: the scale to suggest for; None without --scale.
    """

    mixes: ScoredMixes
    scale: Scale | None


def plan(settings: SuggestMixSettings, inputs: Inputs) -> Plan[PlannedMixes]:
    """Read the mixes and their scores, which are small, and check that a surface can be fitted."""
    from priorkit.analysis.mix_checks import check_mixes
    from priorkit.analysis.mix_scale import describe_scale
    from priorkit.analysis.mix_suggestion import searched_region
    from priorkit.analysis.mixes import MixSelection, mixes_from_evaluations, mixes_from_table
    from priorkit.scoring.statistics.mix_search import candidate_mixes

    if bool(settings.evaluations) == bool(settings.table):
        raise UsageError(
            "give evaluations, or --table FILE" + (", not both" if settings.table else ""),
            hint="priorkit suggest-mix --help has an example of each",
        )
    _check_scale_options(settings)
    selection = MixSelection(
        settings.shares, settings.remainder, settings.score, settings.goal, settings.scale,
        settings.parameters_column, settings.tokens_column,
    )  # fmt: skip
    if settings.table:
        mixes = mixes_from_table(inputs.one("table"), selection)
    else:
        mixes = mixes_from_evaluations(inputs.named("evaluations"), selection)
    _check_bounds(settings, mixes)
    scale: Scale | None = None
    try:
        check_mixes(
            mixes, surface="gaussian-process" if settings.scale else settings.surface, region=settings.region
        )
        if settings.scale:
            scale = _plan_scale(settings, mixes)
    except InputError as error:
        raise error.at(settings.table or "EVALUATIONS") from None
    region = searched_region(mixes, settings.region, settings.minimum, settings.maximum)
    candidate_mixes(region, mixes.shares, settings.seed)
    goal = "minimise" if mixes.lower_is_better else "maximise"
    return Plan(
        [
            ("mixes", str(len(mixes.names))),
            ("components", ", ".join(mixes.components)),
            ("score", f"{goal} {mixes.score}"),
            *(describe_scale(mixes) if scale is not None else ()),
        ],
        payload=PlannedMixes(mixes, scale),
    )


def _check_scale_options(settings: SuggestMixSettings) -> None:
    """Check the options about scale against one another.

    Raises:
        UsageError: an option has no effect; all of them are named.
    """
    problems = Problems(UsageError)
    law = settings.surface.endswith("-law")
    if not settings.scale:
        names = ("parameters_column", "tokens_column", "at_parameters", "at_tokens")
        refuse_changed(settings, names, problems, "no effect without --scale", hint="give --scale")
        if law:
            problems.add("a law needs --scale", where=f"--surface {settings.surface}")
    elif settings.surface != "auto" and not law:
        problems.add(
            "a surface without scale",
            where=f"--surface {settings.surface}",
            hint="use a law, or leave out --scale",
        )
    problems.raise_if_any()


def _plan_scale(settings: SuggestMixSettings, mixes: ScoredMixes) -> Scale:
    """The scale to suggest for.

    Raises:
        InputError: too few runs for the law, or for the scale.
    """
    from priorkit.analysis.mix_scale import target_scale, usable_laws

    usable = usable_laws(mixes)
    if settings.surface != "auto" and settings.surface not in usable:
        raise InputError(
            f"too few runs for {settings.surface}; {len(mixes.names)} carry {', '.join(usable)}",
            hint="train and evaluate more, or join components (--shares A,B --remainder rest)",
        )
    return target_scale(mixes, settings.at_parameters, settings.at_tokens)


def _check_bounds(settings: SuggestMixSettings, mixes: ScoredMixes) -> None:
    problems = Problems(UsageError)
    for flag, bounds in (("--minimum", settings.minimum), ("--maximum", settings.maximum)):
        for name, value in bounds.items():
            if name not in mixes.components:
                problems.add(f"no component '{name}'", where=flag, hint=nearest(name, mixes.components))
            elif not 0 <= value <= 1:
                problems.add(f"a share must be between 0 and 1, got {value}", where=f"{flag} {name}")
            elif flag == "--maximum" and value < settings.minimum.get(name, 0):
                problems.add(f"below the minimum of '{name}'", where=flag)
    problems.raise_if_any()


def execute(settings: SuggestMixSettings, work: Work[PlannedMixes]) -> None:
    """Fit the surfaces or laws, keep the one that predicts best, find the best and the next mix."""
    from priorkit.analysis.mix_suggestion import TENSORS, mix_recipe, save_suggestion

    suggestion = _suggest(settings, work.plan.payload)
    content = suggestion.content()
    content["next"] |= {"acquire": settings.acquire, "value": suggestion.acquisition}
    content |= {"region": settings.region, "tensors": TENSORS}
    save_suggestion(work.path, suggestion, content)
    recipes: tuple[Literal["best", "next"], ...] = ("best", "next")
    for name in recipes:
        recipe = mix_recipe(content, name, remainder=settings.remainder, key=settings.recipe_key)
        (work.path / f"{name}-mix.toml").write_text(recipe, encoding="utf-8")
    _draw(work.path, suggestion)
    work.metrics.update(
        {key: content[key] for key in ("score", "goal", "surface", "cross_validation", "best", "next")}
    )
    _report(content, work.path.name)


def _suggest(settings: SuggestMixSettings, planned: PlannedMixes) -> Suggestion:
    from priorkit.analysis.mix_scale import suggest_at_scale
    from priorkit.analysis.mix_suggestion import suggest

    options: dict[str, Any] = {
        "surface": settings.surface,
        "acquisition": settings.acquire,
        "region": settings.region,
        "minimum": settings.minimum,
        "maximum": settings.maximum,
        "resamples": settings.resamples,
        "seed": settings.seed,
    }
    if planned.scale is None:
        return suggest(planned.mixes, **options)
    return suggest_at_scale(planned.mixes, planned.scale, **options)


def _draw(folder: Path, suggestion: Suggestion) -> None:
    from priorkit.report.figures import to_png
    from priorkit.report.plots.surfaces import predicted_scores, surface_slices

    mixes = suggestion.mixes
    figure = surface_slices(
        mixes.components, mixes.shares, mixes.scores, suggestion.best, suggestion.bands, mixes.score
    )
    (folder / "slices.png").write_bytes(to_png(figure))
    predicted: dict[str, Any] = {
        kind: suggestion.sign * cv.predicted for kind, cv in suggestion.validation.items()
    }
    figure = predicted_scores(mixes.scores, predicted, mixes.score)
    (folder / "predictions.png").write_bytes(to_png(figure))


def _report(content: Mapping[str, Any], partial: str) -> None:
    for name, quality in content["cross_validation"].items():
        values = ", ".join(f"{key} {'-' if v is None else format(v, '.3g')}" for key, v in quality.items())
        logger.info(f"  {name}: {values} (each mix predicted from the others)")
    for name, test in content.get("scale", {}).get("left_out_largest", {}).items():
        logger.info(
            f"  the largest number of {name}, predicted from the smaller ones: error {test['rmse']:.3g}, without a "
            f"change {test['baseline_rmse']:.3g}"
        )
    chosen = content["cross_validation"][content["surface"]]
    if chosen["r2"] is None or chosen["r2"] <= 0:
        logger.warning(
            "the surface predicts unseen mixes no better than their mean does; treat the suggestion with caution"
        )
    for name in ("best", "next"):
        score, shares = content[name]["score"], content[name]["shares"]
        mix = ", ".join(f"{component} {share:.1%}" for component, share in shares.items())
        logger.info(f"  {name}: {mix}: {score['value']:.4g} [{score['low']:.4g}, {score['high']:.4g}]")
    logger.info(f"  recipes: {partial.removesuffix('.partial')}/best-mix.toml, next-mix.toml")


STEP = Step(SuggestMixSettings, plan, execute)
run = STEP.run
