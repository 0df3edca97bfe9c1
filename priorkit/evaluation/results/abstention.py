"""What a model does with questions whose image is withheld: abstain, or answer all the same.

LSBS (arXiv 2509.26625, section 4 and appendix H) trains models without images and notes that few of them
decline to answer such questions; here that is a number for every blind evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from priorkit.evaluation.tasks.base import TaskScores
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.answers.refusals import abstains
from priorkit.scoring.statistics.bootstrap import Floats

CONFIDENT = 0.5
"""An option compared by likelihood is taken with confidence where it holds at least this share."""


def with_abstention(items: Sequence[Item], answers: Sequence[ModelAnswer], scored: TaskScores) -> TaskScores:
    """Add ``abstention_rate`` and ``confident_rate`` over the questions that need the image withheld.

    A written answer abstains by :func:`priorkit.scoring.answers.refusals.abstains`, and is confident where it could
    be read and does not abstain. Where options were compared, an answer cannot abstain; it is confident where
    the option taken holds half of the options' probability. Questions with ``needs_image`` false, which can
    be answered without, are left out.
    """
    rows: list[tuple[float, float, float]] = []
    for item, answer, unparsed in zip(items, answers, scored.unparsed, strict=True):
        counted = item.withheld and item.groups.get("needs_image") != "false"
        if not counted:
            rows.append((0.0, 0.0, 0.0))
        elif answer.taken is not None:
            rows.append((1.0, 0.0, float(_share_taken(answer) >= CONFIDENT)))
        else:
            declined = abstains(answer.text)
            rows.append((1.0, float(declined), float(not declined and not unparsed)))
    width = scored.counts.shape[1]
    before = scored.metrics

    def metrics(sums: Floats) -> dict[str, Floats]:
        resampled = sums[..., width:]
        return {
            **before(sums[..., :width]),
            "abstention_rate": resampled[..., 1] / resampled[..., 0],
            "confident_rate": resampled[..., 2] / resampled[..., 0],
        }

    return replace(scored, counts=np.concatenate([scored.counts, np.array(rows)], axis=1), metrics=metrics)


def _share_taken(answer: ModelAnswer) -> float:
    largest = max(answer.loglikelihoods)
    return 1 / math.fsum(math.exp(value - largest) for value in answer.loglikelihoods)
