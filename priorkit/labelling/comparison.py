"""Comparing the two ways of labelling by a model, by likelihood and by generation, on the same segments."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.work import Work
from priorkit.data.conversations.labelled_conversations import most_likely
from priorkit.data.io.tables import write_table
from priorkit.data.shuffling import permute
from priorkit.data.text.segments import SegmentStore
from priorkit.labelling.label import compare_labels, decision_thresholds, report_unparsed, score_resumably
from priorkit.labelling.plan import LabelPlan
from priorkit.labelling.settings import LabelCorpusSettings

logger = logging.getLogger(__name__)

WAYS = "agreement-of-ways.parquet"
"""File of an artifact with the agreement, one row per label."""


def compare_ways(
    settings: LabelCorpusSettings,
    plan: LabelPlan,
    store: SegmentStore,
    numbers: NDArray[np.int64],
    present: NDArray[np.bool_],
    work: Work[LabelPlan],
) -> list[dict[str, Any]]:
    """Label ``--compare`` of the segments the other way of ``--by`` and measure the agreement.

    Args:
        settings: of the run.
        plan: the labeller and both prompts.
        store: the segments.
        numbers: int64 ``[labelled]``, segments that the model labelled, ascending.
        present: bool ``[labelled, labels]``, the labels it gave.
        work: gets the table; its state keeps the scores.

    Returns:
        Agreement per label; the way of ``--by`` is the reference.
    """
    from priorkit.labelling.language_models.loading import load_language_model

    count = min(settings.compare, len(numbers))
    drawn = np.sort(permute(np.arange(count), len(numbers), settings.seed))
    other, other_plan = settings.other_way, replace(plan, prompt=plan.other_prompt)
    scored = score_resumably(
        lambda: load_language_model(other, other_plan, work.state),
        store,
        numbers[drawn],
        work.state / "scores-other-way.f32",
        present.shape[1],
    )
    if other.by == "generation":
        report_unparsed(scored)
    reference, predicted = present[drawn], scored.scores >= decision_thresholds(other)
    if settings.labels == "abilities":
        # Each conversation keeps one ability; ties of written answers go to the first.
        reference = most_likely(reference.astype(np.float32), reference)
        predicted = most_likely(scored.scores, predicted)
    rows = compare_labels(reference, predicted, settings.label_set)
    write_table({name: [row[name] for row in rows] for name in rows[0]}, work.path / WAYS)
    logger.info(f"  {other.by} agrees with {settings.by} on {count:,} segments:")
    for row in rows:
        kappa = "-" if row["kappa"] is None else format(row["kappa"], ".2f")
        logger.info(
            f"    {row['label']:<20} {row['given']:,} by {settings.by}, {row['predicted']:,} by {other.by}, "
            f"kappa {kappa}"
        )
    return rows
