"""Labelled text: a parquet file per source, a row per segment, and how often each label was given.

Columns of ``text/SOURCE.parquet``: those of the segment (``text, document, segment, tokens, source,
metadata``), ``labels`` (list of words, combinations included; empty for none), ``scores`` (a float32 per
concept), ``labeller`` (``llm`` or ``linear``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorkit.data.text.concepts import CONCEPT_LABELS, CONCEPTS, NONE, LabelSet, with_combinations

if TYPE_CHECKING:
    import pyarrow as pa


def label_column(
    present: NDArray[np.bool_], label: str, known: LabelSet = CONCEPT_LABELS
) -> NDArray[np.bool_]:
    """Which segments have a label or combination.

    Args:
        present: bool ``[segments, concepts]``.
        label: one of the known.

    Returns:
        bool ``[segments]``.
    """
    parts = known.combinations.get(label, (label,))
    return np.asarray(present[:, [known.labels.index(part) for part in parts]].any(1))


def write_labelled_text(
    batches: Iterator[pa.RecordBatch],
    path: Path,
    scores: NDArray[np.float32],
    present: NDArray[np.bool_],
    labellers: Sequence[str],
) -> None:
    """Write a source's segments with their labels.

    Args:
        batches: the segments in order.
        path: the file to write.
        scores: float32 ``[segments, concepts]``.
        present: bool ``[segments, concepts]``.
        labellers: the labeller of each segment.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    start = 0
    writer: pq.ParquetWriter | None = None
    for batch in batches:
        part = slice(start, start + len(batch))
        table = pa.Table.from_batches([batch])
        for name, values in _label_columns(scores[part], present[part], labellers[part]).items():
            table = table.append_column(name, values)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
        start += len(batch)
    if writer is not None:
        writer.close()


def _label_columns(
    scores: NDArray[np.float32], present: NDArray[np.bool_], labellers: Sequence[str]
) -> dict[str, pa.Array]:
    import pyarrow as pa

    names = [
        with_combinations(name for name, is_present in zip(CONCEPTS, row, strict=True) if is_present)
        for row in present
    ]
    columns = [pa.array(scores[:, number]) for number in range(len(CONCEPTS))]
    return {
        "labels": pa.array(names, pa.list_(pa.string())),
        "scores": pa.StructArray.from_arrays(columns, names=list(CONCEPTS)),
        "labeller": pa.array(labellers, pa.string()),
    }


def proportions(
    present: NDArray[np.bool_], tokens: NDArray[np.int64], known: LabelSet = CONCEPT_LABELS
) -> dict[str, Any]:
    """How often each label was given: ``LABEL`` by tokens and ``LABEL_segments`` by segments, 0 to 1.

    Args:
        present: bool ``[segments, concepts]``.
        tokens: int64 ``[segments]``.

    Returns:
        ``segments`` and ``tokens`` (totals), then the shares of all labels, combinations and ``none``.
    """
    chosen = {name: label_column(present, name, known) for name in known.all}
    chosen[NONE] = np.asarray(~present.any(1))
    total = int(tokens.sum())
    shares: dict[str, Any] = {"segments": len(present), "tokens": total}
    shares |= {name: float(tokens[mask].sum() / max(1, total)) for name, mask in chosen.items()}
    shares |= {f"{name}_segments": float(mask.sum() / max(1, len(mask))) for name, mask in chosen.items()}
    return shares


def shares_of(row: Mapping[str, Any], known: LabelSet = CONCEPT_LABELS) -> dict[str, float]:
    """The shares of tokens in a row of :func:`proportions`."""
    return {name: row[name] for name in (*known.all, NONE)}
