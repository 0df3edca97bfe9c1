"""The evidence of a diagnosis: what is measured of each part, one line per measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Part = Literal["encoder", "language", "projector", "tuning"]

PARTS: tuple[Part, ...] = ("encoder", "language", "projector", "tuning")
"""Parts in the order in which they are tested: what comes later also looks weak where an earlier one fails."""

FED_BY: Mapping[Part, tuple[Part, ...]] = {
    "encoder": (),
    "language": (),
    "projector": ("encoder", "language"),
    "tuning": ("encoder", "language", "projector"),
}
"""Parts whose weakness also shows in the evidence of a part: an unknown image in all that is made of it, an unknown name in
retrieval and in the answer."""

NONE, UNDECIDED = "none", "not decidable"
VERDICTS = ("encoder", "projector", "language", "tuning", NONE, UNDECIDED)

PLANTED = {
    "in_pairs": "encoder",
    "in_captions": "projector",
    "in_text": "language",
    "in_instructions": "tuning",
}
"""The part that fails on an entity that is absent from this training data: columns of a world's ``entities.parquet``."""


@dataclass(frozen=True)
class EvidenceMeasure:
    """One measure per entity; high is healthy.

    Attributes:
        name: its column in ``table.parquet``; the interval is in ``NAME_low`` and ``NAME_high``.
        part: the part that it is evidence of; empty for what is only described.
        meaning: what it is.
        by_ratio: whether values are compared by their ratio: reciprocal ranks, where 0.02 is as far from 0.2 as 0.1 from 1.
    """

    name: str
    part: Part | Literal[""]
    meaning: str
    by_ratio: bool = False


MEASURES = (
    EvidenceMeasure(
        "rank_e",
        "encoder",
        "mean reciprocal rank of the own name among all names, by the text tower",
        by_ratio=True,
    ),
    EvidenceMeasure(
        "encoder_separability",
        "encoder",
        "mean reciprocal rank of the own centroid, of the tokens that the projector reads",
        by_ratio=True,
    ),
    EvidenceMeasure(
        "name_log_probability",
        "language",
        "log-probability of the name in neutral contexts, in nats",
    ),
    EvidenceMeasure(
        "fact_margin",
        "language",
        "log-probability per token of true minus best false answers about the name, in nats",
    ),
    EvidenceMeasure(
        "projector_change",
        "projector",
        "separability of the projected tokens minus that of the tokens that the projector reads",
    ),
    EvidenceMeasure(
        "name_retrieval",
        "projector",
        "mean reciprocal rank of the name's embedding for the projected tokens",
        by_ratio=True,
    ),
    EvidenceMeasure("captions", "projector", "rows of the captions that name the entity"),
    EvidenceMeasure("instructions", "tuning", "rows of the instructions that ask about the entity"),
    EvidenceMeasure(
        "presence_accuracy",
        "tuning",
        "share of images where yes is more probable of the name than of another",
    ),
    EvidenceMeasure(
        "readout_change",
        "tuning",
        "separability at the last layer, where the answer begins, minus that of the projected tokens",
    ),
    EvidenceMeasure(
        "blind_accuracy", "", "share of images whose name is the most probable without the image"
    ),
    EvidenceMeasure(
        "generation_accuracy", "", "share of images whose name is the first that the model writes"
    ),
    EvidenceMeasure(
        "fact_accuracy",
        "",
        "share of facts whose true answer is the most probable, with the name in the text",
    ),
    EvidenceMeasure(
        "likelihood_margin", "", "log-probability of the own name minus that of the best wrong one, in nats"
    ),
    EvidenceMeasure(
        "arbitration", "", "logit of the own name minus that of the name expected blind, at the last layer"
    ),
)
"""All measures in the order of the table."""


BY_RATIO = frozenset(measure.name for measure in MEASURES if measure.by_ratio)
"""Measures whose values are compared by their ratio."""

COUNTS = ("captions", "instructions")
"""Measures that count training data: where a cause was planted by leaving data out, they are nearly the cause itself."""


def measures_of(part: Part) -> list[str]:
    """Names of the measures that are evidence of a part."""
    return [measure.name for measure in MEASURES if measure.part == part]
