"""Training a linear labeller on a sample that a language model labelled, and comparing the two."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.data.io.tables import write_table
from priorkit.data.shuffling import permute
from priorkit.data.text.segments import SegmentStore
from priorkit.labelling.label import compare_labels, decision_thresholds
from priorkit.labelling.linear import fit_linear_labeller
from priorkit.labelling.plan import LABELLER
from priorkit.labelling.settings import LabelCorpusSettings
from priorkit.models.language.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)

MEASURES = ("precision", "recall", "f1", "kappa")


@dataclass(frozen=True)
class DistillationSample:
    """Segments drawn at random, of which the last ones are held out.

    Attributes:
        drawn: numbers of the segments in random order, so that any prefix is a random sample too.
        held_out: how many of them, at the end, are held out.
    """

    drawn: NDArray[np.int64]
    held_out: int

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Numbers of the segments, ascending."""
        return np.sort(self.drawn)

    @property
    def is_held_out(self) -> NDArray[np.bool_]:
        """Whether each of :attr:`numbers` is held out."""
        return np.isin(self.numbers, self.drawn[len(self.drawn) - self.held_out :])


def draw_sample(settings: LabelCorpusSettings, segments: int) -> DistillationSample:
    """Draw ``--sample`` segments of all."""
    drawn = permute(np.arange(min(settings.sample, segments)), segments, settings.seed)
    return DistillationSample(drawn, max(1, round(settings.held_out * len(drawn))))


def distil(
    settings: LabelCorpusSettings,
    store: SegmentStore,
    sample: DistillationSample,
    present: NDArray[np.bool_],
    tokenizer: Path,
    folder: Path,
) -> list[dict[str, Any]]:
    """Train a linear labeller on the sample, without its held-out part, and compare it with the model there.

    Args:
        settings: label set, thresholds and seed.
        store: the segments.
        sample: the sample.
        present: bool ``[sample, labels]``, the model's labels, in the order of ``sample.numbers``.
        tokenizer: folder of the tokenizer that cut the segments, saved with the labeller.
        folder: folder of the artifact; gets the labeller and ``agreement.parquet``.

    Returns:
        Its agreement with the model on the held-out part, one row per label.
    """
    held_out = sample.is_held_out
    texts = list(store.chosen(sample.numbers))
    train = [text for text, held in zip(texts, held_out, strict=True) if not held]
    test = [text for text, held in zip(texts, held_out, strict=True) if held]
    linear = fit_linear_labeller(train, present[~held_out], settings.seed, settings.label_set.labels)
    predicted = linear.score(test).scores >= decision_thresholds(settings, linear.thresholds)
    rows = compare_labels(present[held_out], predicted, settings.label_set)
    write_table({name: [row[name] for row in rows] for name in rows[0]}, folder / "agreement.parquet")
    linear.save(folder / LABELLER, {"learnt_from": len(train), "agreement": rows})
    load_tokenizer(tokenizer).save_pretrained(folder / LABELLER)
    logger.info(f"  agreement with the model on {sample.held_out:,} held-out segments:")
    for row in rows:
        values = ", ".join(
            f"{key} {'-' if row[key] is None else format(row[key], '.2f')}" for key in MEASURES
        )
        logger.info(f"    {row['label']:<20} {row['given']:,} given, {values}")
    return rows
