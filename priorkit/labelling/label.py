"""Labelling all segments of a corpus: by a model, by a linear labeller, or by both."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.progress import progress_bar
from priorkit.data.text.concepts import CONCEPT_LABELS, LabelSet
from priorkit.data.text.labelled_text import label_column
from priorkit.data.text.segments import SegmentStore
from priorkit.scoring.statistics.agreement import agreement

if TYPE_CHECKING:
    from priorkit.labelling.language_model import LanguageModelLabeller
    from priorkit.labelling.linear import LinearLabeller

CHUNK = 64
"""Segments whose scores are saved together: what an interruption costs, at most."""


@dataclass
class Labelled:
    """What the labellers said of all segments, in order.

    Attributes:
        scores: float32 ``[segments, labels]``, 0 to 1.
        present: bool ``[segments, labels]``.
        by_model: bool ``[segments]``, whether the language model labelled it.
    """

    scores: NDArray[np.float32]
    present: NDArray[np.bool_]
    by_model: NDArray[np.bool_]


def label_by_linear(
    linear: LinearLabeller, store: SegmentStore, count: int, thresholds: NDArray[np.float64]
) -> Labelled:
    """Label all segments by a linear labeller.

    Args:
        linear: the labeller.
        store: the segments.
        count: their number.
        thresholds: float64 ``[labels]``.
    """
    scores = np.zeros((count, len(linear.labels)), dtype=np.float32)
    done = 0
    with progress_bar("label", count, unit="segments") as progress:
        for batch in store.texts():
            scores[done : done + len(batch)] = linear.score(batch)
            done += len(batch)
            progress.advance(len(batch))
    return Labelled(scores, scores >= thresholds, np.zeros(count, dtype=np.bool_))


def score_by_model(
    load: Callable[[], LanguageModelLabeller],
    store: SegmentStore,
    numbers: NDArray[np.int64],
    file: Path,
    batch_size: int,
    labels: int,
) -> tuple[NDArray[np.float32], int]:
    """Scores of some segments by a language model; what a killed run has scored is read back.

    Chunks are the same however often a run is interrupted, and so are the scores.

    Args:
        load: loads the labeller; not called where everything is scored already.
        store: the segments.
        numbers: which segments, ascending.
        file: keeps the scores, a row of float32 per segment: the labels', and 1 where it was truncated.
        batch_size: segments per pass of the model.
        labels: how many there are.

    Returns:
        float32 ``[numbers, labels]``, and how many segments the model did not see whole.
    """
    width = labels + 1
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
            for texts in _chunks(store.chosen(numbers[done:])):
                scored = labeller.score(texts, batch_size)
                rows = np.concatenate([scored.scores, scored.truncated[:, None]], axis=1)
                stream.write(rows.astype("<f4").tobytes())
                stream.flush()
                os.fsync(stream.fileno())
                progress.advance(len(texts))
    rows = np.fromfile(file, dtype="<f4").reshape(-1, width)[: len(numbers)]
    return rows[:, :-1].astype(np.float32), int(rows[:, -1].sum())


def _chunks(texts: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(itertools.islice(texts, CHUNK)):
        yield chunk


def compare_labels(
    reference: NDArray[np.bool_], predicted: NDArray[np.bool_], known: LabelSet = CONCEPT_LABELS
) -> list[dict[str, Any]]:
    """Agreement of two labellers per label and combination; undefined values are None.

    Args:
        reference: bool ``[segments, labels]``.
        predicted: bool ``[segments, labels]``.
        known: the labels.
    """
    rows: list[dict[str, Any]] = []
    for name in known.all:
        found = asdict(agreement(label_column(reference, name, known), label_column(predicted, name, known)))
        plain = {key: None if value != value else value for key, value in found.items()}
        rows.append({"label": name, **plain})
    return rows
