"""MME's scores: accuracy and accuracy of pairs per category, in points, added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from priorkit.evaluation.tasks.item import Item
from priorkit.scoring.statistics.bootstrap import Floats, MetricFunction

COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
"""MME's categories that are not perception."""


def pair_scores(items: Sequence[Item], scores: Sequence[float]) -> tuple[Floats, MetricFunction]:
    """Counts and metrics of questions that come in pairs about one image.

    ``mme_perception`` and ``mme_cognition`` are sums over their categories of 100 times (accuracy +
    share of pairs answered right throughout), so at most 200 for a category. Source: MME (arXiv
    2306.13394), ``calculation.py`` of its evaluation tool. A question carries its part of its pair, so
    that resampling questions keeps both numbers additive.

    Args:
        items: each with the groups ``pair`` and ``category``.
        scores: 1 for a right answer, else 0.
    """
    names = list(dict.fromkeys(item.groups["category"] for item in items))
    pairs: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        pairs[item.groups["category"], item.groups["pair"]].append(index)
    counts = np.zeros((len(items), len(names), 4))
    for (category, _), places in pairs.items():
        right = all(scores[index] for index in places)
        for index in places:
            counts[index, names.index(category)] = (1, scores[index], 1 / len(places), right / len(places))

    def metrics(sums: Floats) -> dict[str, Floats]:
        cells = sums.reshape(*sums.shape[:-1], len(names), 4)
        points = 100 * (_share(cells[..., 1], cells[..., 0]) + _share(cells[..., 3], cells[..., 2]))
        scores: dict[str, Floats] = {}
        for metric, wanted in (("mme_perception", False), ("mme_cognition", True)):
            places = [index for index, name in enumerate(names) if (name in COGNITION) == wanted]
            if places:
                scores[metric] = points[..., places].sum(-1)
        return scores

    return counts.reshape(len(items), -1), metrics


def _share(part: Floats, total: Floats) -> Floats:
    return np.divide(part, total, out=np.zeros_like(part), where=total > 0)
