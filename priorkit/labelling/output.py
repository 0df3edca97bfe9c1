"""What label-corpus leaves: text or conversations with their labels, and how often each label was given."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from priorkit.data.text.concepts import CONCEPT_LABELS, NONE, LabelSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from priorkit.core.work import Work
    from priorkit.data.io.rejects import Rejects
    from priorkit.data.text.segments import SegmentStore
    from priorkit.labelling.label import Labelled
    from priorkit.steps.label_corpus import LabelCorpusSettings

logger = logging.getLogger(__name__)


def write_text_of_sources(
    settings: LabelCorpusSettings,
    work: Work,
    store: SegmentStore,
    cuts: Mapping[str, Any],
    labelled: Labelled,
) -> None:
    """Write the labelled text, a file per source."""
    import numpy as np

    from priorkit.data.text.labelled_text import write_labelled_text

    (work.path / "text").mkdir()
    labellers = np.where(labelled.by_model, "llm", "linear").tolist()
    for number, (name, part) in enumerate(_parts(settings, cuts)):
        write_labelled_text(
            store.batches(number),
            work.path / "text" / f"{name}.parquet",
            labelled.scores[part],
            labelled.present[part],
            labellers[part],
        )


def write_conversations(
    settings: LabelCorpusSettings,
    work: Work,
    store: SegmentStore,
    cuts: Mapping[str, Any],
    labelled: Labelled,
    rejects: Rejects,
) -> None:
    """Write the conversations with at most one label each, a folder per source and label."""
    from priorkit.data.conversations.labelled_conversations import (
        Abilities,
        likelier,
        write_by_ability,
    )

    labelled.present[:] = likelier(labelled.scores, labelled.present)
    before = len(rejects)
    for number, (name, part) in enumerate(_parts(settings, cuts)):
        ids = (own for batch in store.batches(number) for own in batch.column("document").to_pylist())
        write_by_ability(
            work.inputs[f"sources.{name}"].path,
            work.path / "conversations" / name,
            Abilities(ids, labelled.present[part]),
            rejects,
        )
    if len(rejects) > before:
        rejects.judge()


def _parts(settings: LabelCorpusSettings, cuts: Mapping[str, Any]) -> Iterator[tuple[str, slice]]:
    """The sources, and where their segments lie among all."""
    start = 0
    for name in settings.sources:
        part = slice(start, start + cuts["counts"][name])
        yield name, part
        start = part.stop


def write_figures(
    settings: LabelCorpusSettings,
    work: Work,
    store: SegmentStore,
    cuts: Mapping[str, Any],
    labelled: Labelled,
    thresholds: Mapping[str, NDArray[np.float64]],
    rejects: Rejects,
) -> None:
    """Write the proportions as table and plot, and say them."""
    from priorkit.data.io.tables import write_table
    from priorkit.data.text.labelled_text import proportions as proportions_of
    from priorkit.data.text.labelled_text import shares_of
    from priorkit.report.figures import to_png
    from priorkit.report.plots.runs import label_proportions

    known = settings.known
    rows: list[dict[str, Any]] = []
    for number, (name, part) in enumerate(_parts(settings, cuts)):
        found = proportions_of(labelled.present[part], store.lengths(number), known)
        rows.append({"source": name, "documents": cuts["documents"][name], **found})
        shown = ", ".join(f"{label} {found[label]:.1%}" for label in (*_groups(known), NONE))
        logger.info(f"  {name:<16} {found['segments']:,} segments, {shown} of tokens")
    if labelled.by_model.any() and not labelled.present[labelled.by_model].any():
        logger.warning("the model gives no label to any segment; see --prompt, --calibrate and --threshold")
    write_table({key: [row[key] for row in rows] for key in rows[0]}, work.path / "table.parquet")
    names = [*(own for group in _groups(known) for own in (*known.combinations.get(group, ()), group)), NONE]
    figure = label_proportions(
        list(settings.sources), names, [[row[name] for name in names] for row in rows], "tokens"
    )
    (work.path / "proportions.png").write_bytes(to_png(figure))
    header = {
        "labels": list(known.labels),
        "combinations": {name: list(parts) for name, parts in known.combinations.items()},
        "segment_tokens": settings.segment_tokens if known is CONCEPT_LABELS else None,
        "thresholds": {
            who: dict(zip(known.labels, own.tolist(), strict=True)) for who, own in thresholds.items()
        },
    }
    (work.path / "labels.json").write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
    work.metrics.update(
        segments=cuts["segments"],
        tokens=sum(row["tokens"] for row in rows),
        by_model=int(labelled.by_model.sum()),
        rejected=len(rejects),
        shares={row["source"]: shares_of(row, known) for row in rows},
    )


def _groups(known: LabelSet) -> tuple[str, ...]:
    """What is told of a source in a line: combinations, reasoning first, or the labels themselves."""
    return tuple(known.combinations)[::-1] or known.labels
