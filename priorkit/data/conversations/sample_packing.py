"""Packing the samples of a batch into rows: the number of rows, their length, and the samples of each.

Samples are not cut. Rows of one batch have one length, a multiple of a step that grows with it, so that a
run has few shapes. Of all packings with little waste the one with the shortest rows is used,
as attention costs the square of a row where its blocks are not skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

WASTE = 0.03
"""Share of padded positions that a packing with shorter rows may have."""

FINE, COARSE = 32, 8
"""Row lengths per doubling: fine ones waste at most a thirty-second; coarse ones make few shapes."""


def rounded(length: int, per_octave: int) -> int:
    """The next row length: a multiple of a power of two, ``per_octave`` of them in each doubling."""
    step = max(8, (1 << (max(length, 1) - 1).bit_length()) // (2 * per_octave))
    return -(-length // step) * step


def into_rows(lengths: Sequence[int], per_octave: int = FINE) -> tuple[list[list[int]], int]:
    """Pack samples into rows without cutting them, by best fit decreasing.

    Args:
        lengths: positions of each sample, at least 1.
        per_octave: how many row lengths there are between a power of two and the next.

    Returns:
        For each row the places of its samples in ``lengths``, and the length of all rows.
    """
    total, longest = sum(lengths), max(lengths)
    best: tuple[float, list[list[int]], int] | None = None
    for count in _row_counts(len(lengths)):
        length = rounded(max(longest, -(-total // count)), per_octave)
        rows = _best_fit(lengths, length)
        while len(rows) > count:
            length = rounded(length + 1, per_octave)
            rows = _best_fit(lengths, length)
        waste = 1 - total / (len(rows) * length)
        if waste <= WASTE:
            return rows, length
        if best is None or waste < best[0]:
            best = (waste, rows, length)
    if best is None:
        raise ValueError("no samples")
    return best[1], best[2]


def _row_counts(samples: int) -> list[int]:
    """Numbers of rows to try, decreasing by about a sixth."""
    counts = [samples]
    while counts[-1] > 1:
        counts.append(min(counts[-1] - 1, counts[-1] * 5 // 6))
    return counts


def _best_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Each sample, the longest first, to the fullest row that has room; with few rows a scan is fast enough."""
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        fits = [row for row in range(len(rows)) if free[row] >= lengths[index]]
        if fits:
            row = min(fits, key=lambda row: (free[row], row))
        else:
            row = len(rows)
            rows.append([])
            free.append(room)
        rows[row].append(index)
        free[row] -= lengths[index]
    return rows
