"""Correlate what an encoder knows (Rank_e) with what models answer, entity by entity."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from priorkit.core.artifact import Artifact
from priorkit.core.console import console
from priorkit.core.errors import InputError, Problems
from priorkit.core.inputs import Input
from priorkit.core.lifecycle import Plan, Work, produce
from priorkit.core.settings import StepSettings, argument, option
from priorkit.core.values import Words
from priorkit.data.results.named_artifacts import Labelled

if TYPE_CHECKING:
    from priorkit.analysis.prior_accuracy import Joined


class CorrelateSettings(StepSettings):
    """Options of ``priorkit correlate``."""

    step: ClassVar[str] = "correlate"
    kind: ClassVar[str] = "scores"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit correlate ranks evaluation --benchmark naming --out correlation",
        "priorkit correlate ranks original=eval-before remediated=eval-after --benchmark naming "
        "--blind-evaluation eval-blind --entities world/entities.parquet --out arms",
    )

    ranks: str = argument("Scores made by rank-e; they fix the bins.", accepts=("scores",), metavar="RANKS")
    evaluations: Labelled = argument(
        "Evaluations to relate to them; NAME= in front gives one another name than its folder's.",
        accepts=("evaluation",),
        metavar="[NAME=]EVALUATION",
    )
    benchmark: Words = option(
        (), "Benchmarks whose items count; all whose items name an entity where not given."
    )
    bins: int = option(5, "Bins with equally many entities along Rank_e.", ge=2)
    blind_evaluation: str | None = option(
        None,
        "Evaluation without the images; its accuracy is held fixed in a partial correlation.",
        accepts=("evaluation",),
        metavar="EVALUATION",
    )
    entities: str | None = option(
        None,
        "Table (parquet, JSON Lines) with a row per entity; its frequency is held fixed likewise.",
        accepts=("world",),
        metavar="FILE",
    )
    frequency_column: str = option("pairs", "Column of that table that counts how often an entity was seen.")
    resamples: int = option(1000, "Bootstrap resamples of the intervals over entities.", ge=100)
    seed: int = option(42, "Seed of the resampling.", ge=0)


def plan(settings: CorrelateSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check that the scores are ranks, and that the benchmarks and the frequency column are there."""
    from priorkit.analysis.prior_accuracy import MEASURES
    from priorkit.data.io.rows import column_names
    from priorkit.data.results.artifact_graph import entity_column

    problems = Problems(InputError)
    for label, item in inputs.items():
        try:
            if label == "entities":
                entity_column(item.path, settings.frequency_column)
                continue
            if item.owner is None or item.kind.startswith("part of"):
                raise InputError("expected an artifact made by the kit", where=item.given)
            if label == "ranks":
                if item.owner.manifest.step != "rank-e":
                    raise InputError(
                        f"expected scores made by rank-e, got scores made by {item.owner.manifest.step}",
                        where=item.given,
                    )
                missing = [
                    m for m in ("entity", *MEASURES) if m not in column_names(item.path / "table.parquet")
                ]
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

    from priorkit.analysis import prior_accuracy
    from priorkit.analysis.model_comparison import comparisons
    from priorkit.data.io.tables import read_table
    from priorkit.data.results.evaluations import read_evaluation
    from priorkit.report.correlation_files import TENSORS, draw_plots, save_tables

    benchmarks: dict[str, tuple[str, ...]] = {}
    accuracies: dict[str, prior_accuracy.EntityAccuracy] = {}

    def accuracy(item: Input) -> tuple[tuple[str, ...], prior_accuracy.EntityAccuracy]:
        evaluation = read_evaluation(item.path)
        try:
            names = prior_accuracy.entity_benchmarks(evaluation, settings.benchmark)
        except InputError as error:
            first = error.problems[0]
            raise InputError(first.what, where=item.given, hint=first.hint) from None
        return names, prior_accuracy.entity_accuracy(evaluation, names)

    for label in settings.evaluations:
        benchmarks[label], accuracies[label] = accuracy(work.inputs[f"evaluations.{label}"])
    table = read_table(work.inputs["ranks"].path / "table.parquet")
    joined = prior_accuracy.join(table, accuracies)
    if joined.only_ranked or joined.only_answered:
        console.warn(
            f"{joined.only_ranked} entities have a rank but no answers in every evaluation, "
            f"{joined.only_answered} have answers but no rank; {len(joined.entities)} are compared"
        )
    controls: dict[str, Any] = {}
    if settings.blind_evaluation:
        blind = accuracy(work.inputs["blind_evaluation"])[1].accuracy
        controls["blind accuracy"] = np.array([blind.get(name, np.nan) for name in joined.entities])
    if settings.entities:
        controls["frequency"] = _frequencies(settings, work.inputs["entities"].path, joined.entities)
    draws = {"seed": settings.seed, "resamples": settings.resamples}
    bins = prior_accuracy.rank_bins(joined, settings.bins, **draws)
    overall = prior_accuracy.overall(joined, **draws)
    found: dict[str, dict[str, Any]] = {}
    for label in settings.evaluations:
        found[label] = {
            "benchmarks": list(benchmarks[label]),
            "items": int(joined.items[label].sum()),
            "entities": len(joined.entities),
            "accuracy": overall[label].to_dict(),
            "measures": prior_accuracy.coefficients(joined, label, **draws),
            "partial": _partials(joined, label, controls, draws),
        }
    content = {
        "sign": prior_accuracy.SIGN,
        "entities": {
            "compared": len(joined.entities),
            "ranked_without_answers": joined.only_ranked,
            "answered_without_rank": joined.only_answered,
        },
        "bins": [{"low": part.low, "high": part.high, "entities": len(part.rows)} for part in bins],
        "evaluations": found,
        "comparisons": comparisons(joined, bins, **draws),
        "tensors": TENSORS,
    }
    (work.path / "correlation.json").write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    save_tables(work.path, joined, bins, found, controls)
    draw_plots(work.path, joined, bins, found)
    work.metrics.update(
        sign=prior_accuracy.SIGN,
        **content["entities"],
        spearman={label: entry["measures"]["mean_rank"]["spearman"] for label, entry in found.items()},
    )
    _say(found)


def _frequencies(settings: CorrelateSettings, file: Path, entities: tuple[str, ...]) -> Any:
    """How often each entity was seen; NaN where the table does not know it."""
    import numpy as np

    from priorkit.data.results.artifact_graph import entity_column

    column = entity_column(file, settings.frequency_column)
    try:
        values = np.array(
            [np.nan if column.get(name) is None else float(column[name]) for name in entities],
            dtype=np.float64,
        )
    except (TypeError, ValueError):
        raise InputError(
            f"the column '{settings.frequency_column}' holds no numbers",
            where=str(file),
            hint="name another with --frequency-column",
        ) from None
    unknown = int(np.isnan(values).sum())
    if unknown:
        console.warn(f"{unknown} entities have no frequency; they are left out where it is held fixed")
    return values


def _partials(joined: Joined, label: str, controls: dict[str, Any], draws: dict[str, int]) -> dict[str, Any]:
    from priorkit.analysis import prior_accuracy

    chosen = {name: {name: values} for name, values in controls.items()}
    if len(controls) > 1:
        chosen[" and ".join(controls)] = controls
    partials = {
        name: prior_accuracy.partial(joined, label, group, seed=draws["seed"], resamples=draws["resamples"])
        for name, group in chosen.items()
    }
    for name, value in partials.items():
        if value is None:
            console.warn(f"too few entities have a value for {name}; that partial correlation is left out")
    return {name: value for name, value in partials.items() if value is not None}


def _say(found: dict[str, dict[str, Any]]) -> None:
    from priorkit.analysis.prior_accuracy import SIGN
    from priorkit.core.interval import Interval
    from priorkit.report import numbers

    width = max(map(len, found))
    for label, entry in found.items():
        interval = Interval.from_dict(entry["measures"]["mean_rank"]["spearman"])
        console.say(
            f"  {label:<{width}}  Spearman {numbers.with_interval(interval)}, {entry['entities']} entities"
        )
    console.say(f"  {SIGN}")


def run(settings: CorrelateSettings) -> Artifact | None:
    """Correlate Rank_e with accuracy; see :class:`CorrelateSettings`."""
    return produce(settings, plan, execute)
