"""Lines of progress name what is done, how fast, and the time left."""

from __future__ import annotations

import pytest

from priorkit.core.process.progress import progress_line


@pytest.mark.parametrize(
    ("done", "total", "rate", "expected"),
    [
        (5, 20, 2.5, "read: 5/20 items  (2.5 items/s, 6 s left)"),
        (5, 20, 0.125, "read: 5/20 items  (0.125 items/s, 2 min 0 s left)"),
        (1, 3, 0.01, "read: 1/3 items  (1 min 40 s per items, 3 min 20 s left)"),
        (0, 36000, 1.0, "read: 0/36000 items  (1 items/s, 10 h 0 min left)"),
        (0, 200000, 1.0, "read: 0/200000 items  (1 items/s, 2 d 7 h left)"),
        (7, 0, 3.0, "read: 7 items  (3 items/s)"),
    ],
)
def test_lines(done: int, total: int, rate: float, expected: str) -> None:
    assert progress_line("read", done, total, "items", rate) == expected


def test_further_words() -> None:
    assert (
        progress_line("train", 1, 2, "step", 1.0, "loss 3") == "train: 1/2 step  loss 3  (1 step/s, 1 s left)"
    )
