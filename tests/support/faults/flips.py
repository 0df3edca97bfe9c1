"""Single bits flipped in finished artifacts: ``verify`` must name every one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from priorkit.core.input_files import CARD
from tests.support.small_artifacts import Result, run_in_process


@dataclass(frozen=True)
class Flip:
    """One flipped bit, and what ``verify`` answered.

    Attributes:
        file: the file.
        bit: which bit of it, from 0.
        answer: how ``verify`` ended.
    """

    file: Path
    bit: int
    answer: Result

    @property
    def found(self) -> bool:
        """Whether it was refused as damaged, with the file's name."""
        return self.answer.code == 3 and self.answer.out == "" and str(self.file) in self.answer.err


def flip_bits(artifacts: Sequence[Path], count: int, random_: random.Random) -> Iterator[Flip]:
    """Flip one bit after the other, each of a random artifact's random file at a random place, and back again.

    Every other bit is of a file drawn by its size, so that small and large files are both hit often. Cards are left
    out: users may edit them.
    """
    files = {
        root: sorted(path for path in root.rglob("*") if path.is_file() and path.name != CARD)
        for root in artifacts
    }
    for number in range(count):
        root = artifacts[number % len(artifacts)]
        candidates = [path for path in files[root] if path.stat().st_size]
        weights = [path.stat().st_size if number // len(artifacts) % 2 else 1 for path in candidates]
        file = random_.choices(candidates, weights)[0]
        content = file.read_bytes()
        bit = random_.randrange(8 * len(content))
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            yield Flip(file, bit, run_in_process("verify", root))
        finally:
            file.write_bytes(content)
