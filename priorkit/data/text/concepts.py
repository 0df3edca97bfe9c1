"""Labels: text by six concepts in two groups ("Learning to See Before Seeing", section 2), and
conversations by the ability that they train (its ablation of tuning data)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CONCEPTS = (
    "visual_concept",
    "visual_attribute",
    "visual_relationship",
    "code_reasoning",
    "math_reasoning",
    "science_reasoning",
)
"""The labels a segment of text can carry, several at once or none."""

COMBINATIONS = {"visual": CONCEPTS[:3], "reasoning": CONCEPTS[3:]}
"""Labels that follow from others: a segment is ``visual`` if it carries any visual label."""

LABELS = (*CONCEPTS, *COMBINATIONS)
"""All labels that a segment may have."""

NONE = "none"
"""The name for segments without a label in tables."""


@dataclass(frozen=True)
class LabelSet:
    """Labels that are scored together.

    Attributes:
        labels: those that a labeller scores.
        combinations: those that follow from them: any of the parts gives it.
    """

    labels: tuple[str, ...]
    combinations: Mapping[str, tuple[str, ...]]

    @property
    def all(self) -> tuple[str, ...]:
        """Labels and combinations."""
        return (*self.labels, *self.combinations)


CONCEPT_LABELS = LabelSet(CONCEPTS, COMBINATIONS)

ABILITY_LABELS = LabelSet(("perception", "reasoning"), {})
"""What a conversation trains; it has the more likely of the two, or neither."""


def with_combinations(concepts: Iterable[str]) -> list[str]:
    """A segment's labels in the order of :data:`LABELS`: its concepts and the combinations they imply.

    The paper aggregates each side without saying how; the union is our reading (its own web-crawl row,
    26.9 % for the combination and 27.7 % for one of its parts, contradicts a strict union).
    """
    names = set(concepts)
    names.update(name for name, parts in COMBINATIONS.items() if names.intersection(parts))
    return [name for name in LABELS if name in names]
