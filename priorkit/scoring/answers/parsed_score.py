"""The score of one prediction, with the text it was parsed to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParsedScore:
    """One scored prediction.

    Attributes:
        score: between 0 and 1.
        parsed: the prediction in the form compared with the true answer.
    """

    score: float
    parsed: str
