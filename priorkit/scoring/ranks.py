"""Rank of the true name among all candidates, by cosine: the measurement behind Rank_e.

    rank = 1 + #{others with a larger cosine} + 0.5 * #{others with an equal cosine}

Scores are counted block by block and never stored or sorted. A block is scored in float32; the pairs
that float32 cannot tell from the true score, by a rigorous bound on its error, are scored again in
float64 by arithmetic that depends on nothing but the pair. So the ranks equal those of a float64
computation, and neither the block sizes nor the order of queries or candidates changes a bit of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from priorkit.core.errors import InputError

QUERY_BLOCK = 2000
CANDIDATE_BLOCK = 512
_PAIR_BLOCK = 1 << 15
# Cosines are equal within the rounding of float64, far below what float32 features can tell apart. So a
# candidate that is a multiple of the true one ties with it, whatever its length.
_EQUAL_WITHIN = 1e-14


def true_ranks(
    queries: Tensor,
    candidates: Tensor,
    true_index: Tensor,
    *,
    query_block: int = QUERY_BLOCK,
    candidate_block: int = CANDIDATE_BLOCK,
) -> Tensor:
    """Rank of the true candidate for every query.

    Args:
        queries: [queries, width] features, of any length and floating dtype, e.g. of images.
        candidates: [candidates, width] features on the same device, e.g. of names.
        true_index: [queries] int64, the row of ``candidates`` that is right for each query.
        query_block: queries scored at once.
        candidate_block: candidates scored at once.

    Returns:
        [queries] float64 on the CPU; 1 is best, ties share the mean of their ranks.

    Raises:
        InputError: shapes do not fit, an index is out of range, or a feature is zero or not finite.
    """
    _check(queries, candidates, true_index)
    query = _Features.of(queries, "queries")
    candidate = _Features.of(candidates, "candidates")
    true_index = true_index.to(candidates.device)
    every_query = torch.arange(len(queries), device=queries.device)
    true_cosine = _cosines(query, every_query, candidate, true_index)
    margin = _float32_error(queries.shape[1])
    upper, lower = (true_cosine + margin).float(), (true_cosine - margin).float()
    candidate_units = candidate.units()

    ranks = torch.ones(len(queries), dtype=torch.float64, device=queries.device)
    with torch.autocast(queries.device.type, enabled=False):
        for start in range(0, len(queries), query_block):
            rows = slice(start, start + query_block)
            query_units = query.units(rows)
            for first in range(0, len(candidates), candidate_block):
                scores = query_units @ candidate_units[first : first + candidate_block].T
                larger = scores > upper[rows, None]
                ranks[rows] += larger.sum(1)
                i, j = ((scores >= lower[rows, None]) ^ larger).nonzero(as_tuple=True)
                i, j = i + start, j + first
                open_pairs = j != true_index[i]
                i, j = i[open_pairs], j[open_pairs]
                difference = _cosines(query, i, candidate, j) - true_cosine[i]
                equal = difference.abs() <= _EQUAL_WITHIN
                ranks.index_add_(0, i, (difference > _EQUAL_WITHIN) + 0.5 * equal.double())
    return ranks.cpu()


def most_similar(
    queries: Tensor, candidates: Tensor, count: int, *, candidate_block: int = 1 << 14
) -> tuple[Tensor, Tensor]:
    """The candidates nearest to each query by float32 cosine, best first.

    Args:
        queries: [queries, width] features.
        candidates: [candidates, width] features.
        count: how many to keep; at most all of them are.
        candidate_block: candidates scored at once.

    Returns:
        Cosines [queries, count] float32 and candidate rows [queries, count] int64, on the CPU.

    Raises:
        InputError: a feature is zero or not finite.
    """
    query_unit = _Features.of(queries, "queries").units()
    candidate_unit = _Features.of(candidates, "candidates").units()
    best = query_unit.new_empty(len(queries), 0)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for first in range(0, len(candidates), candidate_block):
        scores = query_unit @ candidate_unit[first : first + candidate_block].T
        indices = torch.arange(first, first + scores.shape[1], device=queries.device).expand_as(scores)
        best, kept = torch.cat([best, scores], 1).topk(min(count, best.shape[1] + scores.shape[1]), dim=1)
        rows = torch.cat([rows, indices], 1).gather(1, kept)
    return best.cpu(), rows.cpu()


def _check(queries: Tensor, candidates: Tensor, true_index: Tensor) -> None:
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise InputError(
            f"features must be two matrices of one width, got {tuple(queries.shape)} and"
            f" {tuple(candidates.shape)}",
            hint="do both come from the same encoder?",
        )
    if true_index.shape != (len(queries),):
        raise InputError(f"{len(queries)} queries need as many true indices, got {tuple(true_index.shape)}")
    wrong = ((true_index < 0) | (true_index >= len(candidates))).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"true index {int(true_index[row])} of query {row} is outside the {len(candidates)} candidates"
        )


@dataclass(frozen=True, slots=True)
class _Features:
    """Rows as given, and their lengths in float64."""

    rows: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, rows: Tensor, name: str) -> _Features:
        rows = rows.detach()
        lengths = torch.cat([_fold(part.double().square()).sqrt() for part in rows.split(_PAIR_BLOCK)])
        wrong = (~(lengths.isfinite() & (lengths > 0))).nonzero()
        if len(wrong):
            raise InputError("feature is zero or not finite", where=f"{name}, row {int(wrong[0])}")
        return cls(rows, lengths)

    def units(self, rows: slice = slice(None)) -> Tensor:
        """Rows at length 1, rounded to float32."""
        return (self.rows[rows].double() / self.lengths[rows, None]).float()

    def take(self, index: Tensor) -> Tensor:
        """Rows at length 1 in float64."""
        return self.rows[index].double() / self.lengths[index, None]


def _cosines(query: _Features, i: Tensor, candidate: _Features, j: Tensor) -> Tensor:
    """float64 cosines of pairs of rows; each depends on its own two rows only."""
    return torch.cat(
        [
            _fold(query.take(rows) * candidate.take(columns))
            for rows, columns in zip(i.split(_PAIR_BLOCK), j.split(_PAIR_BLOCK), strict=True)
        ]
    )


def _float32_error(width: int) -> float:
    """Largest possible error of a float32 dot product of two rounded unit vectors, with slack of two.

    Where float32 products may be taken in TF32 or bfloat16 (``torch.set_float32_matmul_precision``), their
    rounding adds; the ranks stay the same, only more pairs are scored again.
    """
    product_error = {"highest": 0.0, "high": 2.0**-10, "medium": 2.0**-7}
    return 2 * ((width + 4) * 2.0**-24 + product_error[torch.get_float32_matmul_precision()])


def _fold(values: Tensor) -> Tensor:
    """Sum of each row by folding it in halves: element-wise steps only, so the shape cannot matter."""
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        rest = values[:, 2 * half :]
        values = values[:, :half] + values[:, half : 2 * half]
        if rest.shape[1]:
            values = torch.cat([values[:, :1] + rest, values[:, 1:]], 1)
    return values[:, 0]
