"""Files of ``label-corpus``: labelled text or conversations, and how often each label was given."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from priorkit.data.columns import RowLayout
from priorkit.data.conversations.labelled_conversations import Abilities, most_likely, write_by_ability
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.tables import write_table
from priorkit.data.text.concepts import CONCEPT_LABELS, NONE, LabelSet
from priorkit.data.text.labelled_text import proportions, shares_of, write_labelled_text
from priorkit.data.text.segments import SegmentStore
from priorkit.labelling.label import SegmentLabels
from priorkit.labelling.segmentation import Segmentation
from priorkit.labelling.settings import LabelCorpusSettings

logger = logging.getLogger(__name__)


def write_text(labels: SegmentLabels, segmentation: Segmentation, store: SegmentStore, folder: Path) -> None:
    """Write the labelled text, one file per source."""
    folder.mkdir()
    labellers = np.where(labels.by_model, "llm", "linear").tolist()
    for source in segmentation.sources():
        write_labelled_text(
            store.batches(source.number),
            folder / f"{source.name}.parquet",
            labels.scores[source.rows],
            labels.present[source.rows],
            labellers[source.rows],
        )


def write_conversations(
    labels: SegmentLabels,
    segmentation: Segmentation,
    store: SegmentStore,
    sources: Mapping[str, Path],
    folder: Path,
    rejects: Rejects,
    layout_for: Callable[[str], RowLayout],
) -> None:
    """Write the conversations, one folder per source and label; each keeps only its most likely label.

    Args:
        labels: of all conversations; those that are not their most likely are taken off.
        segmentation: says which conversations are of which source.
        store: their texts.
        sources: paths by name.
        folder: where they go.
        rejects: takes rows that cannot be written.
        layout_for: how a source is read, by its name.

    Raises:
        InputError: too many conversations cannot be written.
    """
    labels.present[:] = most_likely(labels.scores, labels.present)
    before = len(rejects)
    for source in segmentation.sources():
        ids = (id_ for batch in store.batches(source.number) for id_ in batch.column("document").to_pylist())
        abilities = Abilities(ids, labels.present[source.rows])
        layout = layout_for(source.name)
        write_by_ability(sources[source.name], folder / source.name, abilities, rejects, layout)
    if len(rejects) > before:
        rejects.raise_if_over_limit()


def label_shares(
    labels: SegmentLabels, segmentation: Segmentation, store: SegmentStore, label_set: LabelSet
) -> list[dict[str, Any]]:
    """How often each label was given, one row per source, also printed.

    Returns:
        ``source``, ``documents``, and the columns of :func:`priorkit.data.text.labelled_text.proportions`.
    """
    rows: list[dict[str, Any]] = []
    for source in segmentation.sources():
        shares = proportions(labels.present[source.rows], store.lengths(source.number), label_set)
        rows.append({"source": source.name, "documents": source.documents, **shares})
        listed = ", ".join(f"{label} {shares[label]:.1%}" for label in (*_groups(label_set), NONE))
        logger.info(f"  {source.name:<16} {shares['segments']:,} segments, {listed} of tokens")
    if labels.by_model.any() and not labels.present[labels.by_model].any():
        logger.warning("the model gives no label to any segment; try --prompt, --calibrate or --threshold")
    return rows


def write_tables(
    settings: LabelCorpusSettings, labels: SegmentLabels, rows: Sequence[Mapping[str, Any]], folder: Path
) -> None:
    """Write the shares (``table.parquet``) and the labels with their thresholds (``labels.json``)."""
    write_table({key: [row[key] for row in rows] for key in rows[0]}, folder / "table.parquet")
    label_set = settings.label_set
    header = {
        "labels": list(label_set.labels),
        "combinations": {name: list(parts) for name, parts in label_set.combinations.items()},
        "segment_tokens": settings.segment_tokens if label_set is CONCEPT_LABELS else None,
        "thresholds": {
            labeller: dict(zip(label_set.labels, values.tolist(), strict=True))
            for labeller, values in labels.thresholds.items()
        },
    }
    (folder / "labels.json").write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")


def token_shares(rows: Sequence[Mapping[str, Any]], label_set: LabelSet) -> dict[str, dict[str, float]]:
    """Shares of tokens by source and label, for the manifest."""
    return {row["source"]: shares_of(row, label_set) for row in rows}


def table_columns(label_set: LabelSet) -> list[str]:
    """The labels in the order of a table: each combination after its parts, reasoning first, ``none`` last."""
    groups = _groups(label_set)
    return [*(name for group in groups for name in (*label_set.combinations.get(group, ()), group)), NONE]


def _groups(label_set: LabelSet) -> tuple[str, ...]:
    """The combinations, reasoning first; the labels themselves where there are none."""
    return tuple(label_set.combinations)[::-1] or label_set.labels
