from __future__ import annotations

from priorkit.core.process.seeds import stream_seed


def test_a_seed_depends_on_seed_and_position() -> None:
    assert stream_seed(42, 7) == 42 * 1_000_003 + 7
    assert len({stream_seed(seed, position) for seed in range(3) for position in range(100)}) == 300
