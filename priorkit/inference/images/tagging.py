"""Tags of the images in tables: scores, thresholds per tag calibrated on true tags, and the tags they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError
from priorkit.data.columns import RowLayout
from priorkit.data.conversations.task_conversations import tags_of
from priorkit.data.images.decoding import BrokenImageError, ImageRef
from priorkit.data.images.tagged_tables import Row, row_image, rows_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.tables import write_table
from priorkit.inference.images.batches import encode_batches
from priorkit.models.vision.tagger import Tagger
from priorkit.scoring.answers.tagging import (
    PrecisionRecallCurve,
    calibrate_thresholds,
    precision_recall,
    precision_recall_curve,
)

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class TableTagger:
    """A tagger applied to the rows of tables.

    Attributes:
        tagger: scores images.
        batch_size: images per forward pass.
        threads: number of threads that decode.
        layout: where the images are that rows name.
    """

    tagger: Tagger
    batch_size: int
    threads: int
    layout: RowLayout

    def scores(self, rows: Sequence[Row], file: Path) -> dict[int, Scores | BrokenImageError]:
        """Scores ``[tags]`` of the rows with an image, by position; the error where it is broken."""
        references: dict[int, ImageRef] = {}
        results: dict[int, Scores | BrokenImageError] = {}
        for position, (number, row) in enumerate(rows):
            try:
                reference = row_image(row, file, number, self.layout)
            except BrokenImageError as error:
                results[position] = error
            else:
                if reference is not None:
                    references[position] = reference
        positions = list(references)
        for batch in encode_batches(
            list(references.values()),
            self.tagger,
            lambda tagger, prepared: tagger.score(prepared),
            batch_size=self.batch_size,
            threads=self.threads,
            skip_broken=True,
        ):
            results.update((positions[row], BrokenImageError(reason)) for row, reason in batch.broken.items())
            if batch.features is not None:
                values = batch.features.double().numpy()
                results.update(
                    (positions[row], scores) for row, scores in zip(batch.rows, values, strict=True)
                )
        return results

    def tags(
        self, rows: Sequence[Row], file: Path, thresholds: Scores, most: int
    ) -> list[list[str] | BrokenImageError | None]:
        """The tags of each row, highest score first; None without an image.

        Args:
            rows: of a table.
            file: the table.
            thresholds: ``[tags]``.
            most: largest number of tags of an image; 0 for all.
        """
        scored = self.scores(rows, file)
        results: list[list[str] | BrokenImageError | None] = []
        for position in range(len(rows)):
            scores = scored.get(position)
            if not isinstance(scores, np.ndarray):
                results.append(scores)
                continue
            chosen = [
                int(tag) for tag in np.argsort(-scores, kind="stable") if scores[tag] >= thresholds[tag]
            ]
            results.append([self.tagger.tags[tag] for tag in chosen[: most or None]])
        return results


@dataclass(frozen=True)
class Calibration:
    """Thresholds calibrated on odd rows and measured on even ones.

    Attributes:
        tags: the tags.
        thresholds: ``[tags]``, the best of each by F1.
        positives: int64 ``[tags]``, number of odd rows with the tag.
        curve: precision and recall of one threshold for all tags.
        precision: of the thresholds on the even rows.
        recall: likewise.
        rows: number of labelled rows.
    """

    tags: Sequence[str]
    thresholds: Scores
    positives: NDArray[np.int64]
    curve: PrecisionRecallCurve
    precision: float
    recall: float
    rows: int

    def write(self, folder: Path) -> None:
        """Write the thresholds and the curve as tables."""
        write_table(
            {"tag": self.tags, "threshold": self.thresholds, "positives": self.positives},
            folder / "thresholds.parquet",
        )
        curve = self.curve
        write_table(
            {"threshold": curve.threshold, "precision": curve.precision, "recall": curve.recall},
            folder / "sweep.parquet",
        )


def calibrated(tables: TableTagger, files: Sequence[Path], column: str, rejects: Rejects) -> Calibration:
    """Calibrate a threshold per tag on tables with true tags.

    Args:
        tables: scores their images.
        files: the tables.
        column: of the true tags.
        rejects: takes the rows with a broken image.

    Raises:
        InputError: odd or even rows without any true tag of the vocabulary.
    """
    tags = tables.tagger.tags
    number = {tag: index for index, tag in enumerate(tags)}
    scores: list[Scores] = []
    true_tags: list[list[str]] = []
    for file in files:
        for rows in rows_of(file, rejects, tables.layout):
            for position, values in sorted(tables.scores(rows, file).items()):
                row_number, row = rows[position]
                if not isinstance(values, np.ndarray):
                    rejects.add(str(file), row_number, str(values))
                    continue
                rejects.accept()
                true = present_tags(row, column)
                if true is not None:
                    scores.append(values)
                    true_tags.append(true)
    truth = np.zeros((len(scores), len(tags)), dtype=bool)
    for row, true in enumerate(true_tags):
        truth[row, [number[tag] for tag in true if tag in number]] = True
    if not truth[::2].any() or not truth[1::2].any():
        raise InputError(
            "the labelled table has too few true tags of the vocabulary",
            hint="both its odd and its even rows need true tags that are in the vocabulary",
        )
    table = np.stack(scores)
    thresholds = calibrate_thresholds(table[::2], truth[::2])
    precision, recall = precision_recall(table[1::2] >= thresholds, truth[1::2])
    curve = precision_recall_curve(table[1::2], truth[1::2])
    return Calibration(tags, thresholds, truth[::2].sum(0), curve, precision, recall, len(scores))


def present_tags(row: Mapping[str, Any], column: str) -> list[str] | None:
    """The tags that a row has already; None without any.

    Raises:
        InputError: the column does not hold tags.
    """
    try:
        tags = tags_of(row.get(column))
    except ValueError as error:
        raise InputError(str(error), where=column) from None
    return None if tags is None else list(tags)
