from __future__ import annotations

import torch

from priorkit.data.pixels import shift


def test_a_shift_is_a_function_of_its_seed_and_repeats_the_border() -> None:
    pixels = torch.arange(3 * 6 * 6, dtype=torch.uint8).view(3, 6, 6)
    assert torch.equal(shift(pixels, 0, 1), pixels)
    assert torch.equal(shift(pixels, 2, 5), shift(pixels, 2, 5))
    seen = {shift(pixels, 2, seed).numpy().tobytes() for seed in range(400)}
    assert len(seen) == 25
    one = next(
        s
        for s in (shift(pixels, 1, seed) for seed in range(99))
        if torch.equal(s[:, :-1, :-1], pixels[:, 1:, 1:])
    )
    assert torch.equal(one[:, -1, :-1], pixels[:, -1, 1:])
