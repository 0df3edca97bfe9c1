"""The files that `correlate` leaves: tables, tensors and plots, each with the sign convention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from priorkit.analysis.prior_accuracy import SIGN, Joined, RankBin
from priorkit.data.io.tables import write_table
from priorkit.report import figures, numbers, plots
from priorkit.report.sections.correlation import caption

TENSORS = {
    "rank_e": "[entities] float64, mean rank, in the order of table.parquet",
    "bin": "[entities] int64, the bin of Rank_e, 0 for the strongest priors",
    "accuracy": "[evaluations, entities] float64, mean score of the entity's items",
    "items": "[evaluations, entities] int64, number of the entity's items",
    "spearman": "[evaluations, 3] float64, value, low, high",
    "kendall": "[evaluations, 3] float64, value, low, high",
    "bin_accuracy": "[evaluations, bins, 3] float64, value, low, high",
}
"""What ``scores.safetensors`` holds."""


def save_tables(
    folder: Path,
    joined: Joined,
    bins: Sequence[RankBin],
    found: Mapping[str, dict[str, Any]],
    controls: Mapping[str, Any],
) -> None:
    """Write ``table.parquet`` (a row per entity), ``bins.parquet`` and ``scores.safetensors``, signs included."""
    from safetensors.numpy import save_file

    labels = list(joined.accuracy)
    number = np.zeros(len(joined.entities), dtype=np.int64)
    for index, part in enumerate(bins):
        number[part.rows] = index
    columns: dict[str, Any] = {"entity": joined.entities, **joined.measures, "bin": number}
    for label in labels:
        columns[f"accuracy.{label}"] = joined.accuracy[label]
        columns[f"items.{label}"] = joined.items[label]
    columns.update({name.replace(" ", "_"): values for name, values in controls.items()})
    write_table(columns, folder / "table.parquet", {"sign": SIGN})
    write_table(_bin_columns(bins, labels), folder / "bins.parquet", {"sign": SIGN})

    def coefficients(method: str) -> Any:
        entries = [found[label]["measures"]["mean_rank"][method] for label in labels]
        rows = [[entry[key] for key in ("value", "low", "high")] for entry in entries]
        return np.array(rows, dtype=np.float64)

    save_file(
        {
            "rank_e": joined.measures["mean_rank"],
            "bin": number,
            "accuracy": np.stack([joined.accuracy[label] for label in labels]),
            "items": np.stack([joined.items[label] for label in labels]),
            "spearman": coefficients("spearman"),
            "kendall": coefficients("kendall"),
            "bin_accuracy": np.array(
                [
                    [[p.accuracy[label].value, p.accuracy[label].low, p.accuracy[label].high] for p in bins]
                    for label in labels
                ]
            ),
        },
        folder / "scores.safetensors",
        metadata={"sign": SIGN},
    )


def _bin_columns(bins: Sequence[RankBin], labels: list[str]) -> dict[str, list[Any]]:
    """A row per evaluation and bin; differences are from the first evaluation, null in its own rows."""
    rows: list[dict[str, Any]] = []
    for label in labels:
        for number, part in enumerate(bins):
            accuracy, difference = part.accuracy[label], part.difference.get(label)
            rows.append(
                {
                    "evaluation": label,
                    "bin": number,
                    "low": part.low,
                    "high": part.high,
                    "entities": len(part.rows),
                    "mean_rank": part.mean_rank,
                    "accuracy": accuracy.value,
                    "accuracy_low": accuracy.low,
                    "accuracy_high": accuracy.high,
                    "difference": difference.value if difference else None,
                    "difference_low": difference.low if difference else None,
                    "difference_high": difference.high if difference else None,
                }
            )
    return {name: [row[name] for row in rows] for name in rows[0]}


def draw_plots(
    folder: Path, joined: Joined, bins: Sequence[RankBin], found: Mapping[str, dict[str, Any]]
) -> None:
    """Draw scatter and bins as SVG and PNG, with the sign convention below."""
    captions = {label: caption(entry["measures"]["mean_rank"]["spearman"]) for label, entry in found.items()}
    drawn = {
        "scatter": plots.scatter(joined.measures["mean_rank"], joined.accuracy, captions),
        "bins": plots.bins(
            [part.mean_rank for part in bins],
            [f"{numbers.plain(part.low)} to {numbers.plain(part.high)}" for part in bins],
            {label: [part.accuracy[label] for part in bins] for label in joined.accuracy},
        ),
    }
    for name, figure in drawn.items():
        figures.footnote(figure, SIGN)
        (folder / f"{name}.svg").write_bytes(figures.to_svg(figure))
        (folder / f"{name}.png").write_bytes(figures.to_png(figure))
