"""The result of `correlate`: coefficients per evaluation, and its JSON, tables and tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from priorkit.analysis.model_comparison import compare_models
from priorkit.analysis.prior_accuracy import (
    Floats,
    PriorAccuracy,
    RankBin,
    mean_accuracies,
    partial_correlation,
    rank_correlations,
)
from priorkit.data.io.tables import write_table
from priorkit.scoring.representations.rank_summary import SIGN_CONVENTION

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


def partial_correlations(
    data: PriorAccuracy, label: str, controls: Mapping[str, Floats], *, seed: int, resamples: int
) -> dict[str, dict[str, object] | None]:
    """Partial correlations given each control and, if there are several, all of them together.

    Returns:
        Names of the controls -> see :func:`~priorkit.analysis.prior_accuracy.partial_correlation`.
    """
    groups: dict[str, Mapping[str, Floats]] = {name: {name: values} for name, values in controls.items()}
    if len(controls) > 1:
        groups[" and ".join(controls)] = controls
    return {
        name: partial_correlation(data, label, group, seed=seed, resamples=resamples)
        for name, group in groups.items()
    }


def evaluation_results(
    data: PriorAccuracy,
    benchmarks: Mapping[str, Sequence[str]],
    controls: Mapping[str, Floats],
    *,
    seed: int,
    resamples: int,
) -> dict[str, dict[str, Any]]:
    """Accuracy and correlations of every evaluation; a partial correlation is None if too few entities have its controls.

    Args:
        data: ranks and accuracies by entity.
        benchmarks: evaluation -> the benchmarks whose items count.
        controls: name -> float64 ``[entities]``.
        seed: of the resampling.
        resamples: number of bootstrap samples.
    """
    resampling = {"seed": seed, "resamples": resamples}
    means = mean_accuracies(data, **resampling)
    return {
        label: {
            "benchmarks": list(names),
            "items": int(data.items[label].sum()),
            "entities": len(data.entities),
            "accuracy": means[label].to_dict(),
            "measures": rank_correlations(data, label, **resampling),
            "partial": partial_correlations(data, label, controls, **resampling),
        }
        for label, names in benchmarks.items()
    }


def result_content(
    data: PriorAccuracy,
    bins: Sequence[RankBin],
    evaluations: Mapping[str, dict[str, Any]],
    *,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """What ``correlation.json`` holds."""
    return {
        "sign": SIGN_CONVENTION,
        "entities": {
            "compared": len(data.entities),
            "ranked_without_answers": data.only_ranked,
            "answered_without_rank": data.only_answered,
        },
        "bins": [{"low": b.low, "high": b.high, "entities": len(b.rows)} for b in bins],
        "evaluations": evaluations,
        "comparisons": compare_models(data, bins, seed=seed, resamples=resamples),
        "tensors": TENSORS,
    }


def save_result(
    folder: Path,
    content: Mapping[str, Any],
    data: PriorAccuracy,
    bins: Sequence[RankBin],
    controls: Mapping[str, Floats],
) -> None:
    """Write ``correlation.json``, ``table.parquet`` (a row per entity), ``bins.parquet`` and ``scores.safetensors``."""
    from safetensors.numpy import save_file

    (folder / "correlation.json").write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    labels = list(data.accuracy)
    bin_numbers = np.zeros(len(data.entities), dtype=np.int64)
    for number, rank_bin in enumerate(bins):
        bin_numbers[rank_bin.rows] = number
    columns: dict[str, Any] = {"entity": data.entities, **data.measures, "bin": bin_numbers}
    for label in labels:
        columns[f"accuracy.{label}"] = data.accuracy[label]
        columns[f"items.{label}"] = data.items[label]
    columns.update({name.replace(" ", "_"): values for name, values in controls.items()})
    write_table(columns, folder / "table.parquet", {"sign": SIGN_CONVENTION})
    write_table(_bin_columns(bins, labels), folder / "bins.parquet", {"sign": SIGN_CONVENTION})
    save_file(
        {
            "rank_e": data.rank_e,
            "bin": bin_numbers,
            "accuracy": np.stack([data.accuracy[label] for label in labels]),
            "items": np.stack([data.items[label] for label in labels]),
            "spearman": _coefficients(content["evaluations"], "spearman"),
            "kendall": _coefficients(content["evaluations"], "kendall"),
            "bin_accuracy": np.array(
                [
                    [[b.accuracy[label].value, b.accuracy[label].low, b.accuracy[label].high] for b in bins]
                    for label in labels
                ]
            ),
        },
        folder / "scores.safetensors",
        metadata={"sign": SIGN_CONVENTION},
    )


def _coefficients(evaluations: Mapping[str, Any], method: str) -> Floats:
    """float64 ``[evaluations, 3]``: the coefficient of Rank_e with its interval."""
    entries = [evaluation["measures"]["mean_rank"][method] for evaluation in evaluations.values()]
    return np.array([[entry[key] for key in ("value", "low", "high")] for entry in entries], dtype=np.float64)


def _bin_columns(bins: Sequence[RankBin], labels: Sequence[str]) -> dict[str, list[Any]]:
    """A row per evaluation and bin; differences are from the first evaluation, null in its own rows."""
    rows: list[dict[str, Any]] = []
    for label in labels:
        for number, rank_bin in enumerate(bins):
            accuracy, difference = rank_bin.accuracy[label], rank_bin.difference.get(label)
            rows.append(
                {
                    "evaluation": label,
                    "bin": number,
                    "low": rank_bin.low,
                    "high": rank_bin.high,
                    "entities": len(rank_bin.rows),
                    "mean_rank": rank_bin.mean_rank,
                    "accuracy": accuracy.value,
                    "accuracy_low": accuracy.low,
                    "accuracy_high": accuracy.high,
                    "difference": difference.value if difference else None,
                    "difference_low": difference.low if difference else None,
                    "difference_high": difference.high if difference else None,
                }
            )
    return {name: [row[name] for row in rows] for name in rows[0]}
