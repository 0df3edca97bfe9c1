"""Correlate Rank_e with the accuracy of models, entity by entity."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from priorkit.core.errors import InputError, Problems
from priorkit.core.inputs import Input
from priorkit.core.interval import Interval
from priorkit.core.settings import StepSettings, argument, option
from priorkit.core.step import Step
from priorkit.core.values import Words
from priorkit.core.work import Plan, Work
from priorkit.data.results.named_artifacts import Labelled

if TYPE_CHECKING:
    from priorkit.analysis.prior_accuracy import EntityAccuracy, PriorAccuracy, RankBin

logger = logging.getLogger(__name__)


class CorrelateSettings(StepSettings):
    """Options of ``priorkit correlate``."""

    step: ClassVar[str] = "correlate"
    kind: ClassVar[str] = "scores"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit correlate ranks evaluation --benchmark naming --out correlation",
        "priorkit correlate ranks original=eval-before remediated=eval-after --benchmark naming "
        "--blind-evaluation eval-blind --entities world/entities.parquet --out arms",
    )

    ranks: str = argument(
        "Scores made by rank-e; they define the bins.", accepts=("scores",), metavar="RANKS"
    )
    evaluations: Labelled = argument(
        "Evaluations to correlate with them; NAME= sets the name shown instead of the folder's.",
        accepts=("evaluation",),
        metavar="[NAME=]EVALUATION",
    )
    benchmark: Words = option((), "Benchmarks whose items count; default: all whose items name an entity.")
    bins: int = option(5, "Number of bins along Rank_e, with equally many entities each.", ge=2)
    blind_evaluation: str | None = option(
        None,
        "Evaluation without the images; adds the partial correlation given its accuracy.",
        accepts=("evaluation",),
        metavar="EVALUATION",
    )
    entities: str | None = option(
        None,
        "Table (parquet, JSON Lines) with a row per entity; adds the partial correlation given frequency.",
        accepts=("world",),
        metavar="FILE",
    )
    frequency_column: str = option(
        "pairs", "Column of that table with the number of times an entity was seen."
    )
    resamples: int = option(1000, "Bootstrap resamples of entities for the intervals.", ge=100, advanced=True)
    seed: int = option(42, "Seed of the resampling.", ge=0)


def plan(settings: CorrelateSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check that the scores are ranks, and that the benchmarks and the frequency column are there."""
    from priorkit.data.io.rows import column_names
    from priorkit.data.results.artifact_graph import entity_column
    from priorkit.scoring.representations.rank_summary import RANK_MEASURES

    problems = Problems(InputError)
    for label, item in inputs.items():
        try:
            if label == "entities":
                entity_column(item.path, settings.frequency_column)
                continue
            if item.owner is None or item.kind.startswith("part of"):
                raise InputError("expected an artifact made by priorkit", where=item.given)
            if label == "ranks":
                if item.owner.manifest.step != "rank-e":
                    raise InputError(
                        f"expected scores made by rank-e, got scores made by {item.owner.manifest.step}",
                        where=item.given,
                    )
                columns = column_names(item.path / "table.parquet")
                missing = [name for name in ("entity", *RANK_MEASURES) if name not in columns]
                if missing:
                    raise InputError(f"the table has no column {missing[0]}", where=item.given)
            else:
                _check_evaluation(settings, item)
        except InputError as error:
            problems.extend(error)
    problems.raise_if_any()
    return Plan(
        [
            ("evaluations", ", ".join(settings.evaluations)),
            ("benchmarks", ", ".join(settings.benchmark) or "all whose items name an entity"),
            ("bins", str(settings.bins)),
        ]
    )


def _check_evaluation(settings: CorrelateSettings, item: Input) -> None:
    from priorkit.core.errors import nearest
    from priorkit.data.results.evaluations import read_results

    found = read_results(item.path)
    for name in settings.benchmark:
        if name not in found:
            raise InputError(f"no benchmark '{name}' here", where=item.given, hint=nearest(name, found))


def execute(settings: CorrelateSettings, work: Work) -> None:
    """Join by entity, correlate, bin, compare the models bin by bin; write tables, tensors and plots."""
    import numpy as np

    from priorkit.analysis.correlation_result import evaluation_results, result_content, save_result
    from priorkit.analysis.prior_accuracy import join_by_entity, rank_bins
    from priorkit.data.io.tables import read_table

    answers = {
        label: _entity_accuracy(work.inputs[f"evaluations.{label}"], settings.benchmark)
        for label in settings.evaluations
    }
    table = read_table(work.inputs["ranks"].path / "table.parquet")
    data = join_by_entity(table, {label: accuracy for label, (_, accuracy) in answers.items()})
    if data.only_ranked or data.only_answered:
        logger.warning(
            f"{data.only_ranked} entities have a rank but no answers in every evaluation, "
            f"{data.only_answered} have answers but no rank; {len(data.entities)} are compared"
        )
    controls: dict[str, Any] = {}
    if settings.blind_evaluation:
        blind = _entity_accuracy(work.inputs["blind_evaluation"], settings.benchmark)[1].accuracy
        controls["blind accuracy"] = np.array([blind.get(name, np.nan) for name in data.entities])
    if settings.entities:
        controls["frequency"] = _frequencies(settings, work.inputs["entities"].path, data.entities)
    resampling = {"seed": settings.seed, "resamples": settings.resamples}
    bins = rank_bins(data, settings.bins, **resampling)
    benchmarks = {label: names for label, (names, _) in answers.items()}
    evaluations = evaluation_results(data, benchmarks, controls, **resampling)
    _drop_undefined_partials(evaluations)
    content = result_content(data, bins, evaluations, **resampling)
    save_result(work.path, content, data, bins, controls)
    spearman = {label: entry["measures"]["mean_rank"]["spearman"] for label, entry in evaluations.items()}
    rho = {label: Interval.from_dict(entry) for label, entry in spearman.items()}
    _draw(work.path, data, bins, rho)
    work.metrics.update(sign=content["sign"], **content["entities"], spearman=spearman)
    _report(rho, len(data.entities), content["sign"])


def _entity_accuracy(item: Input, requested: Sequence[str]) -> tuple[tuple[str, ...], EntityAccuracy]:
    """The benchmarks of an evaluation that count, and its accuracy per entity on them."""
    from priorkit.analysis.prior_accuracy import entity_accuracy, entity_benchmarks
    from priorkit.data.results.evaluations import read_evaluation

    evaluation = read_evaluation(item.path)
    try:
        names = entity_benchmarks(evaluation, requested)
    except InputError as error:
        problem = error.problems[0]
        raise InputError(problem.what, where=item.given, hint=problem.hint) from None
    return names, entity_accuracy(evaluation, names)


def _frequencies(settings: CorrelateSettings, file: Path, entities: Sequence[str]) -> Any:
    """How often each entity was seen, with a warning if some are missing."""
    import numpy as np

    from priorkit.analysis.correlation_result import entity_frequencies

    frequencies = entity_frequencies(file, settings.frequency_column, entities)
    missing = int(np.isnan(frequencies).sum())
    if missing:
        logger.warning(
            f"{missing} entities have no frequency; the partial correlations given frequency leave them out"
        )
    return frequencies


def _drop_undefined_partials(evaluations: Mapping[str, dict[str, Any]]) -> None:
    for evaluation in evaluations.values():
        for name, value in evaluation["partial"].items():
            if value is None:
                logger.warning(f"too few entities have a value for {name}; skipping that partial correlation")
        evaluation["partial"] = {n: value for n, value in evaluation["partial"].items() if value is not None}


def _draw(folder: Path, data: PriorAccuracy, bins: Sequence[RankBin], rho: Mapping[str, Interval]) -> None:
    """Save the scatter plot and the plot of bins, with the sign convention below."""
    from priorkit.report.figures import save_figures
    from priorkit.report.plots.correlation import (
        accuracy_by_bin,
        accuracy_scatter,
        bin_name,
        spearman_caption,
    )
    from priorkit.scoring.representations.rank_summary import SIGN_CONVENTION

    captions = {label: spearman_caption(coefficient) for label, coefficient in rho.items()}
    figures = {
        "scatter": accuracy_scatter(data.rank_e, data.accuracy, captions),
        "bins": accuracy_by_bin(
            [rank_bin.mean_rank for rank_bin in bins],
            [bin_name(rank_bin.low, rank_bin.high) for rank_bin in bins],
            {label: [rank_bin.accuracy[label] for rank_bin in bins] for label in data.accuracy},
        ),
    }
    save_figures(folder, figures, SIGN_CONVENTION)


def _report(rho: Mapping[str, Interval], entities: int, sign: str) -> None:
    from priorkit.report import numbers

    width = max(map(len, rho))
    for label, coefficient in rho.items():
        logger.info(f"  {label:<{width}}  Spearman {numbers.with_interval(coefficient)}, {entities} entities")
    logger.info(f"  {sign}")


STEP = Step(CorrelateSettings, plan, execute)
run = STEP.run
