"""Correlation of Rank_e with accuracy, from artifacts of `correlate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from priorkit.core.errors import InputError
from priorkit.core.interval import Interval
from priorkit.core.json_text import parse_json
from priorkit.data.io.tables import read_table
from priorkit.data.results.artifact_graph import Member, Members, prior_name
from priorkit.report import numbers
from priorkit.report.blocks import (
    Block,
    Cell,
    FormattedNumber,
    Plot,
    Section,
    SignedInterval,
    Table,
    numbered,
)
from priorkit.report.plots.correlation import accuracy_by_bin, accuracy_scatter, bin_name, spearman_caption
from priorkit.scoring.representations.rank_summary import (
    OPTIONAL_RANK_MEASURES,
    RANK_MEASURES,
    SIGN_CONVENTION,
)

_TITLES = {
    "mean_rank": "Rank_e",
    "percentile": "percentile",
    "mean_log_rank": "mean ln rank",
    "mrr": "MRR (high: strong prior)",
    "recall_at_1": "R@1 (high: strong prior)",
    "recall_at_5": "R@5 (high: strong prior)",
    "median_rank": "median rank",
    "reverse_mean_rank": "rank of the images for the name",
}


def correlation_section(members: Members) -> Section | None:
    """Coefficients, scatter and bins of every correlate artifact."""
    blocks: list[Block] = []
    headline: list[Table] = []
    correlations = members.correlations()
    for index, member in enumerate(correlations):
        title = member.label if len(correlations) > 1 else ""
        headline_table = _headline(read_correlation(member)["evaluations"])
        headline.append(numbered(headline_table, index, title))
        blocks += [numbered(block, index, title) for block in _blocks(member, members)]
    return (
        Section("correlation", "Rank_e and accuracy", SIGN_CONVENTION, blocks, headline) if blocks else None
    )


def read_correlation(member: Member) -> dict[str, Any]:
    """Read ``correlation.json``.

    Raises:
        InputError: it is missing or damaged.
    """
    file = member.artifact.path / "correlation.json"
    try:
        return parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"not a readable correlation: {error}", where=str(file)) from None


def _blocks(member: Member, members: Members) -> list[Table | Plot]:
    content = read_correlation(member)
    evaluations: dict[str, Any] = content["evaluations"]
    table = member.table
    priors = [members.priors.get(str(name), "") for name in table["entity"]]
    groups = [prior_name(prior) for prior in priors] if all(priors) else None
    accuracy = {label: table[f"accuracy.{label}"] for label in evaluations}
    captions = {
        label: spearman_caption(Interval.from_dict(evaluation["measures"]["mean_rank"]["spearman"]))
        for label, evaluation in evaluations.items()
    }
    scatter = accuracy_scatter(table["mean_rank"], accuracy, captions, groups)
    return [
        _coefficients(evaluations),
        Plot(
            "correlation-scatter",
            "Every dot is an entity (equal accuracies are jittered)",
            scatter,
        ),
        *_bins(member, list(evaluations)),
        _variants(evaluations),
    ]


def _coefficients(evaluations: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for label, correlation in evaluations.items():
        for method in ("spearman", "kendall"):
            entry = correlation["measures"]["mean_rank"][method]
            rows.append(_row(label, method.capitalize(), entry, correlation["entities"]))
        for name, entry in correlation.get("partial", {}).items():
            rows.append(_row(label, f"Spearman, given {name}", entry, entry["entities"]))
    return Table(
        "correlation",
        "Correlation of Rank_e with accuracy (negative: stronger priors, higher accuracy)",
        ["evaluation", "coefficient", "value", "p", "entities"],
        rows,
    )


def _headline(evaluations: Mapping[str, Any]) -> Table:
    """Spearman's coefficient, and the partial one given all controls."""
    rows: list[list[Cell]] = []
    for label, correlation in evaluations.items():
        partial = list(correlation.get("partial", {}).items())[-1:]
        name, entry = partial[0] if partial else ("", {})
        rows.append([label, Interval.from_dict(correlation["measures"]["mean_rank"]["spearman"])])
        if partial:
            rows.append([f"{label}, given {name}", Interval.from_dict(entry)])
    return Table(
        "correlation-in-brief",
        "Spearman's correlation of Rank_e with accuracy (negative: stronger priors, higher accuracy)",
        ["evaluation", "Spearman"],
        rows,
    )


def _row(label: str, name: str, entry: Mapping[str, Any], entities: int) -> list[Cell]:
    p = float("nan") if entry.get("p_value") is None else float(entry["p_value"])
    return [label, name, Interval.from_dict(entry), FormattedNumber(p, numbers.p_value(p)), entities]


def _bins(member: Member, labels: list[str]) -> list[Table | Plot]:
    table = read_table(member.artifact.path / "bins.parquet")
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    by_label = {label: [row for row in rows if row["evaluation"] == label] for label in labels}
    first = by_label[labels[0]]
    names = [bin_name(row["low"], row["high"]) for row in first]
    accuracy = {
        label: [Interval(row["accuracy"], row["accuracy_low"], row["accuracy_high"]) for row in bins]
        for label, bins in by_label.items()
    }
    cells: list[list[Cell]] = []
    for number, row in enumerate(first):
        differences = [by_label[label][number] for label in labels[1:]]
        cells.append(
            [
                names[number],
                row["entities"],
                float(row["mean_rank"]),
                *(accuracy[label][number] for label in labels),
                *(SignedInterval(_difference(other)) for other in differences),
            ]
        )
    heading = ["Rank_e", "entities", "mean", *labels]
    heading += [f"{label} \N{MINUS SIGN} {labels[0]}" for label in labels[1:]]
    return [
        Plot(
            "correlation-bins",
            "Accuracy in bins with equal numbers of entities, with 95 % intervals",
            accuracy_by_bin([row["mean_rank"] for row in first], names, accuracy),
        ),
        Table(
            "correlation-bins",
            "Bins of Rank_e",
            heading,
            cells,
            colors=[-1, -1, -1, *range(len(labels))],
        ),
    ]


def _difference(row: Mapping[str, Any]) -> Interval:
    return Interval(row["difference"], row["difference_low"], row["difference_high"])


def _variants(evaluations: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for label, correlation in evaluations.items():
        for measure in (*RANK_MEASURES, *OPTIONAL_RANK_MEASURES):
            entry = correlation["measures"].get(measure)
            if entry:
                spearman, kendall = (
                    Interval.from_dict(entry["spearman"]),
                    Interval.from_dict(entry["kendall"]),
                )
                rows.append([label, _TITLES[measure], spearman, kendall])
    return Table(
        "correlation-variants",
        "Variants of Rank_e",
        ["evaluation", "measure", "Spearman", "Kendall"],
        rows,
        folded=True,
    )
