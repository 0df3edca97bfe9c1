"""Correlate Rank_e with the accuracy of models, entity by entity."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from priorkit.core.errors import InputError, Problems
from priorkit.core.inputs import Input
from priorkit.core.interval import Interval
from priorkit.core.options.settings import StepSettings, argument, option, resamples_option
from priorkit.core.options.values import Words
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
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
        "Evaluations to correlate with them; NAME= sets the name shown instead of the folder's. Evaluations "
        "NAME@1=, NAME@2= of several seeds count as one, with the items of all.",
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
        "Table (CSV, JSON Lines, parquet) with a row per entity; adds the partial correlation given frequency.",
        accepts=("world",),
        metavar="FILE",
    )
    frequency_column: str = option(
        "pairs", "Column of that table with the number of times an entity was seen."
    )
    resamples: int = resamples_option("entities")
    seed: int = option(42, "Seed of the resampling.", ge=0)


@dataclass(frozen=True)
class _Joined:
    """What ``plan`` read.

    Attributes:
        benchmarks: evaluation -> the benchmarks of it that count.
        data: ranks and accuracies by entity.
    """

    benchmarks: Mapping[str, tuple[str, ...]]
    data: PriorAccuracy


def plan(settings: CorrelateSettings, inputs: Inputs) -> Plan[_Joined]:
    """Check that the scores are ranks, that benchmarks and frequencies are there, and join them by entity."""
    from priorkit.analysis.correlation_inputs import (
        check_evaluation,
        check_ranks,
        entity_frequencies,
        read_entity_accuracy,
    )
    from priorkit.analysis.prior_accuracy import join_by_entity, pool_seeds
    from priorkit.data.io.tables import read_table
    from priorkit.data.results.artifact_graph import seeds_of_variants

    problems = Problems(InputError)
    for label, item in inputs.items():
        try:
            if label == "entities":
                entity_frequencies(item, settings.frequency_column)
            elif label == "ranks":
                check_ranks(item)
            else:
                check_evaluation(item, settings.benchmark)
        except InputError as error:
            problems.extend(error)
    problems.raise_if_any()
    answers = {
        label: read_entity_accuracy(item, settings.benchmark)
        for label, item in inputs.named("evaluations").items()
    }
    benchmarks: dict[str, tuple[str, ...]] = {}
    accuracies: dict[str, EntityAccuracy] = {}
    for name, labels in seeds_of_variants(answers).items():
        benchmarks[name] = tuple(dict.fromkeys(found for label in labels for found in answers[label][0]))
        accuracies[name] = pool_seeds([answers[label][1] for label in labels])
    if (item := inputs.optional("blind_evaluation")) is not None:
        read_entity_accuracy(item, settings.benchmark)
    table = read_table(inputs.one("ranks").path / "table.parquet")
    data = join_by_entity(table, accuracies)
    if len(data.entities) < settings.bins:
        raise InputError(
            f"{len(data.entities)} entities cannot be put into {settings.bins} bins",
            where="--bins",
            hint="ask for fewer bins",
        )
    return Plan(
        [
            ("evaluations", ", ".join(accuracies)),
            ("benchmarks", ", ".join(settings.benchmark) or "all whose items name an entity"),
            ("bins", str(settings.bins)),
        ],
        payload=_Joined(benchmarks, data),
    )


def execute(settings: CorrelateSettings, work: Work[_Joined]) -> None:
    """Correlate, bin, compare the models bin by bin; write tables, tensors and plots."""
    import numpy as np

    from priorkit.analysis.correlation_inputs import read_entity_accuracy
    from priorkit.analysis.correlation_result import evaluation_results, result_content, save_result
    from priorkit.analysis.prior_accuracy import rank_bins

    data = work.plan.payload.data
    if data.only_ranked or data.only_answered:
        logger.warning(
            f"{data.only_ranked} entities have a rank but no answers in every evaluation, "
            f"{data.only_answered} have answers but no rank; {len(data.entities)} are compared"
        )
    controls: dict[str, Any] = {}
    if (item := work.inputs.optional("blind_evaluation")) is not None:
        blind = read_entity_accuracy(item, settings.benchmark)[1].accuracy
        controls["blind accuracy"] = np.array([blind.get(name, np.nan) for name in data.entities])
    if (item := work.inputs.optional("entities")) is not None:
        controls["frequency"] = _frequencies(settings, item, data.entities)
    resampling = {"seed": settings.seed, "resamples": settings.resamples}
    bins = rank_bins(data, settings.bins, **resampling)
    evaluations = evaluation_results(data, work.plan.payload.benchmarks, controls, **resampling)
    _drop_undefined_partials(evaluations)
    content = result_content(data, bins, evaluations, **resampling)
    save_result(work.path, content, data, bins, controls)
    spearman = {label: entry["measures"]["mean_rank"]["spearman"] for label, entry in evaluations.items()}
    rho = {label: Interval.from_dict(entry) for label, entry in spearman.items()}
    _draw(work.path, data, bins, rho, content["sign"])
    work.metrics.update(sign=content["sign"], **content["entities"], spearman=spearman)
    _report(rho, len(data.entities), content["sign"])


def _frequencies(settings: CorrelateSettings, item: Input, entities: Sequence[str]) -> Any:
    """How often each entity was seen, with a warning if some are missing."""
    import numpy as np

    from priorkit.analysis.correlation_inputs import entity_frequencies

    counts = entity_frequencies(item, settings.frequency_column)
    frequencies = np.array([counts.get(name, np.nan) for name in entities])
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


def _draw(
    folder: Path, data: PriorAccuracy, bins: Sequence[RankBin], rho: Mapping[str, Interval], sign: str
) -> None:
    """Save the scatter plot and the plot of bins, with the sign convention below."""
    from priorkit.report.figures import save_figures
    from priorkit.report.plots.correlation import (
        accuracy_by_bin,
        accuracy_scatter,
        bin_name,
        spearman_caption,
    )

    captions = {label: spearman_caption(coefficient) for label, coefficient in rho.items()}
    figures = {
        "scatter": accuracy_scatter(data.rank_e, data.accuracy, captions),
        "bins": accuracy_by_bin(
            [rank_bin.mean_rank for rank_bin in bins],
            [bin_name(rank_bin.low, rank_bin.high) for rank_bin in bins],
            {label: [rank_bin.accuracy[label] for rank_bin in bins] for label in data.accuracy},
        ),
    }
    save_figures(folder, figures, sign)


def _report(rho: Mapping[str, Interval], entities: int, sign: str) -> None:
    from priorkit.report.plots.correlation import spearman_caption

    width = max(map(len, rho))
    for label, coefficient in rho.items():
        logger.info(f"  {label:<{width}}  {spearman_caption(coefficient)}, {entities} entities")
    logger.info(f"  {sign}")


STEP = Step(CorrelateSettings, plan, execute)
run = STEP.run
