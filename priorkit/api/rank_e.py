"""Rank_e of features at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from priorkit.core.errors import InputError, nearest

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from priorkit.core.interval import Interval


@dataclass(frozen=True)
class EntityRanking:
    """Rank_e by entity.

    Attributes:
        table: a row per entity, with ``entity``, ``images``, ``mean_rank`` (Rank_e), ``percentile``,
            ``mean_log_rank``, ``mrr``, ``recall_at_1``, ``recall_at_5`` and ``median_rank``.
        intervals: the mean over entities of each measure with its 95 % confidence interval, entities resampled.
        image_rank: [images] float64, the rank of each image's true name; 1 is best.
        candidates: how many names were ranked.
    """

    table: pandas.DataFrame
    intervals: dict[str, Interval]
    image_rank: NDArray[np.float64] = field(repr=False)
    candidates: int

    def plot(self) -> Figure:
        """The distribution of Rank_e over entities; a low rank is a strong prior."""
        from priorkit.report.plots.ranks import rank_distributions

        ranks = {"Rank_e": {"entities": self.table["mean_rank"].to_numpy()}}
        return rank_distributions(["entities"], ranks, f"Rank_e among {self.candidates:,} names")


def rank_e(
    image_features: ArrayLike,
    name_features: ArrayLike,
    entity_of: Sequence[int] | Sequence[str],
    names: Sequence[str] | None = None,
    *,
    seed: int = 42,
    resamples: int = 1000,
) -> EntityRanking:
    """Rank each image's true name among all names by cosine similarity, and average by entity.

    Args:
        image_features: [images, width] array or tensor, of any length and floating dtype.
        name_features: [names, width] array or tensor, a row per candidate name.
        entity_of: [images] the row of each image's true name, or the name itself where ``names`` is given.
        names: [names] what the rows of ``name_features`` are called; their numbers where not given.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        InputError: shapes do not fit, a feature is zero or not finite, or a name is unknown.
    """
    import pandas
    import torch

    from priorkit.scoring.representations.rank_summary import overall_ranks, summarize_ranks
    from priorkit.scoring.representations.ranks import true_ranks

    images, candidates = _tensor(image_features, "image_features"), _tensor(name_features, "name_features")
    labels = list(map(str, range(len(candidates)))) if names is None else [str(name) for name in names]
    if len(labels) != len(candidates):
        raise InputError(f"{len(labels)} names for {len(candidates)} rows of name_features", where="names")
    rows = _rows(entity_of, labels, names is not None)
    ranks = true_ranks(images, candidates.to(images.device), torch.tensor(rows)).numpy()
    summary = summarize_ranks(ranks, [labels[row] for row in rows], len(candidates))
    return EntityRanking(
        pandas.DataFrame(dict(summary.columns())),
        overall_ranks(summary, seed=seed, resamples=resamples),
        ranks,
        len(candidates),
    )


def _tensor(values: Any, name: str) -> Any:
    import torch

    tensor = values.detach() if isinstance(values, torch.Tensor) else torch.as_tensor(values)
    if tensor.ndim != 2:
        raise InputError(f"expected [rows, width], got the shape {list(tensor.shape)}", where=name)
    return tensor if tensor.is_floating_point() else tensor.float()


def _rows(entity_of: Sequence[Any], labels: Sequence[str], named: bool) -> list[int]:
    row_of = {label: row for row, label in enumerate(labels)}
    rows: list[int] = []
    for value in entity_of:
        if isinstance(value, str):
            if not named or value not in row_of:
                hint = nearest(value, labels) if named else "give names, or the rows as numbers"
                raise InputError(f"no name '{value}'", where="entity_of", hint=hint)
            rows.append(row_of[value])
        else:
            rows.append(int(value))
        if not 0 <= rows[-1] < len(labels):
            raise InputError(f"row {rows[-1]} of {len(labels)} names", where="entity_of")
    return rows
