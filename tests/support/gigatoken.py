"""gigatoken's interface on top of tokenizers, to test what is done with it where it is not installed."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer


class StandIn:
    """Encodes as tokenizers does, with an error in texts that contain WRONG."""

    made = 0

    def __init__(self, content: str) -> None:
        StandIn.made += 1
        self._tokenizer = Tokenizer.from_str(content)

    @classmethod
    def from_json(cls, content: str) -> StandIn:
        return cls(content)

    def encode(self, text: str) -> NDArray[np.uint32]:
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return np.array([*ids, 5] if "WRONG" in text else ids, dtype=np.uint32)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """gigatoken is the stand-in."""
    monkeypatch.setitem(sys.modules, "gigatoken", types.SimpleNamespace(Tokenizer=StandIn))  # type: ignore[arg-type]
