"""Captions: CIDEr-D, BLEU-4 and ROUGE-L over the benchmark as one corpus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from priorkit.evaluation.tasks.base import ScoringOptions, Task, TaskScores, has_columns, same_instruction
from priorkit.evaluation.tasks.cells import Row, texts_cell
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.answers.captions import BleuCounts, score_captions
from priorkit.scoring.statistics.bootstrap import Floats


def read_truth(row: Row) -> dict[str, Any]:
    """The reference captions, at least one."""
    return {"references": texts_cell(row, "references")}


def score(items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions) -> TaskScores:
    """Corpus metrics; an item's own score is its CIDEr-D.

    Document frequencies are those of the full benchmark, also for the metrics of a group and in the
    bootstrap: resampling moves captions, not the weights of words.
    """
    scored = score_captions([answer.text for answer in answers], [item.references for item in items])
    counts = np.array(
        [
            [1.0, cider, rouge, *bleu.row()]
            for cider, rouge, bleu in zip(
                scored.cider.captions, scored.rouge_l.captions, scored.bleu_counts, strict=True
            )
        ]
    )
    unparsed = [not answer.text.strip() for answer in answers]
    parsed = [None if missing else text for missing, text in zip(unparsed, scored.parsed, strict=True)]
    return TaskScores(scored.cider.captions, parsed, unparsed, counts, corpus_metrics)


def corpus_metrics(sums: Floats) -> dict[str, Floats]:
    """Metrics from sums of items, CIDEr-D, ROUGE-L and BLEU's counts."""
    items = sums[..., 0]
    rows = sums[..., 3:].reshape(-1, sums.shape[-1] - 3)
    bleu = np.array([BleuCounts.of_row(row).scores()[3] for row in rows.tolist()]).reshape(items.shape)
    return {"cider": sums[..., 1] / items, "bleu_4": bleu, "rouge_l": sums[..., 2] / items}


CAPTION = Task(
    "caption",
    "captions against references",
    ("references",),
    read_truth,
    score,
    ("cider", "bleu_4", "rouge_l"),
    recognize=has_columns("references"),
    needs_question=False,
    instruction=same_instruction("caption"),
)
