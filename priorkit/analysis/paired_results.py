"""What an evaluation is set against: another one, the same model without images, its base language model."""

from __future__ import annotations

import logging
from pathlib import Path

from priorkit.analysis.evaluation_comparison import compare, lines_of
from priorkit.analysis.leakage import leakage_of, lines_of_leakage, write_leakage

logger = logging.getLogger(__name__)


def write_paired_results(
    folder: Path, other: Path | None, blind: Path | None, base: Path | None, seed: int, resamples: int
) -> None:
    """Write ``comparison.json`` and ``comparison.jsonl``, and ``leakage.json``, and print their lines.

    Args:
        folder: of the evaluation, written already.
        other: of the evaluation to compare with; None for none.
        blind: of the same model's evaluation without images; None for none.
        base: of the evaluation of its base language model; None for none.
        seed: of the resampling.
        resamples: number of bootstrap samples.

    Raises:
        InputError: the evaluations share no item.
    """
    lines: list[str] = []
    if other is not None:
        compared = compare(folder, other, seed, resamples)
        compared.write(folder)
        lines += lines_of(compared)
    if blind is not None:
        found = leakage_of(folder, blind, base, seed, resamples)
        write_leakage(found, folder / "leakage.json")
        lines += lines_of_leakage(found)
    for line in lines:
        logger.info(f"  {line}")
