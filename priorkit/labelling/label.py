"""Labelling all segments of a corpus: with a language model, with a linear labeller, or with both."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.process.progress import progress_bar
from priorkit.data.images.decoding import ImageRef
from priorkit.data.text.concepts import CONCEPT_LABELS, LabelSet
from priorkit.data.text.labelled_text import label_column
from priorkit.data.text.segments import SegmentStore
from priorkit.labelling.base import ModelLabeller, SegmentScores
from priorkit.labelling.settings import ALL_LABELS, LabelCorpusSettings
from priorkit.scoring.statistics.agreement import agreement

if TYPE_CHECKING:
    from priorkit.labelling.linear import LinearLabeller

logger = logging.getLogger(__name__)

CHUNK = 64
"""Segments whose scores are saved together: the most that an interruption costs."""


ImagesOf = Callable[[NDArray[np.int64]], Iterator[tuple[ImageRef, ...]]]
"""The images of the segments with these numbers, in order."""


@dataclass
class SegmentLabels:
    """The labels of all segments, in order.

    Attributes:
        scores: float32 ``[segments, labels]``, 0 to 1.
        present: bool ``[segments, labels]``, whether the segment has the label.
        by_model: bool ``[segments]``, whether the language model labelled it.
        thresholds: decision thresholds by labeller (``llm``, ``linear``), float64 ``[labels]``.
    """

    scores: NDArray[np.float32]
    present: NDArray[np.bool_]
    by_model: NDArray[np.bool_]
    thresholds: dict[str, NDArray[np.float64]]


def decision_thresholds(
    settings: LabelCorpusSettings, defaults: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Scores from which on a segment has each label, float64 ``[labels]``.

    Args:
        settings: the thresholds given.
        defaults: those of a linear labeller; 0.5 for each label where None.
    """
    labels = settings.label_set.labels
    thresholds = np.full(len(labels), 0.5) if defaults is None else defaults.copy()
    given = dict(settings.threshold)
    thresholds[:] = given.pop(ALL_LABELS, thresholds)
    for name, value in given.items():
        thresholds[labels.index(name)] = value
    return thresholds


def label_all(
    labeller: LinearLabeller, store: SegmentStore, count: int, thresholds: NDArray[np.float64]
) -> SegmentLabels:
    """Label all segments with a linear labeller.

    Args:
        labeller: the labeller.
        store: the segments.
        count: their number.
        thresholds: float64 ``[labels]``.
    """
    scores = np.zeros((count, len(labeller.labels)), dtype=np.float32)
    done = 0
    with progress_bar("label", count, unit="segments") as progress:
        for texts in store.texts():
            scores[done : done + len(texts)] = labeller.score(texts).scores
            done += len(texts)
            progress.advance(len(texts))
    by_model = np.zeros(count, dtype=np.bool_)
    return SegmentLabels(scores, scores >= thresholds, by_model, {"linear": thresholds})


def score_resumably(
    load: Callable[[], ModelLabeller],
    store: SegmentStore,
    numbers: NDArray[np.int64],
    file: Path,
    labels: int,
    images_of: ImagesOf | None = None,
) -> SegmentScores:
    """Score some segments with a language model; scores that an interrupted run saved are read back.

    Chunks are the same however often a run is interrupted, and so are the scores.

    Args:
        load: loads the labeller; not called where everything is scored already.
        store: the segments.
        numbers: which segments, ascending.
        file: keeps the scores, one row of float32 per segment: the labels', then 1 where it was truncated, and 1
            where its answer could not be parsed.
        labels: number of labels.
        images_of: gives the images of segments, in order; None where the labeller reads only words.
    """
    width = labels + 2
    row_bytes = 4 * width
    saved = file.stat().st_size // row_bytes if file.is_file() else 0
    done = len(numbers) if saved >= len(numbers) else saved // CHUNK * CHUNK
    if done < len(numbers):
        labeller = load()
        with (
            file.open("r+b" if file.is_file() else "w+b") as stream,
            progress_bar("label", len(numbers), start=done, unit="segments") as progress,
        ):
            stream.truncate(done * row_bytes)
            stream.seek(done * row_bytes)
            left = numbers[done:]
            shown = images_of(left) if images_of else None
            for texts in _chunks(store.chosen(left)):
                images = None if shown is None else list(itertools.islice(shown, len(texts)))
                scored = labeller.score(texts, images)
                flags = np.stack([scored.truncated, scored.unparsed], axis=1)
                rows = np.concatenate([scored.scores, flags], axis=1)
                stream.write(rows.astype("<f4").tobytes())
                stream.flush()
                os.fsync(stream.fileno())
                progress.advance(len(texts))
    rows = np.fromfile(file, dtype="<f4").reshape(-1, width)[: len(numbers)]
    return SegmentScores(rows[:, :-2].astype(np.float32), rows[:, -2] > 0, rows[:, -1] > 0)


def report_truncated(scored: SegmentScores) -> int:
    """Number of truncated segments, also printed."""
    truncated = int(scored.truncated.sum())
    if truncated:
        logger.info(f"  {truncated:,} segments exceed the model's context; their middle was left out")
    return truncated


def report_unparsed(scored: SegmentScores) -> int:
    """Number of segments whose answer could not be parsed, also printed; they have no label."""
    unparsed = int(scored.unparsed.sum())
    if unparsed:
        logger.warning(
            f"the answers about {unparsed:,} of {len(scored.unparsed):,} segments name no label and do not say "
            "none; these segments get no label (another --prompt or --labeller?)"
        )
    return unparsed


def _chunks(texts: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(itertools.islice(texts, CHUNK)):
        yield chunk


def compare_labels(
    reference: NDArray[np.bool_], predicted: NDArray[np.bool_], labels: LabelSet = CONCEPT_LABELS
) -> list[dict[str, Any]]:
    """Agreement of two labellers per label and combination; undefined values are None.

    Args:
        reference: bool ``[segments, labels]``.
        predicted: bool ``[segments, labels]``.
        labels: the labels.
    """
    rows: list[dict[str, Any]] = []
    for name in labels.all:
        measures = asdict(
            agreement(label_column(reference, name, labels), label_column(predicted, name, labels))
        )
        defined = {key: None if value != value else value for key, value in measures.items()}
        rows.append({"label": name, **defined})
    return rows
