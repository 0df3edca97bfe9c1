"""What a scorer takes from one prediction: the score and the text it read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scored:
    """One scored prediction.

    Attributes:
        score: between 0 and 1.
        parsed: the prediction as it was compared with the truth.
    """

    score: float
    parsed: str
