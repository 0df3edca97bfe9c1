from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from priorkit.core.errors import UsageError
from priorkit.core.options.settings import option
from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.pixels import Pixels
from priorkit.models.vision.encoder import Encoder
from priorkit.training.remediation.compatibility import conflicts
from priorkit.training.remediation.objective import NameFeatures, RemediationObjective
from priorkit.training.remediation.settings import RemediationSettings, TermSettings
from priorkit.training.remediation.terms import TERMS, LossTerm, TermInputs, active_terms
from priorkit.training.remediation.views import ViewSchedule


class UniformitySettings(RemediationSettings):
    """A further term's weight."""

    group: ClassVar[str] = "terms"

    uniformity_weight: float = option(0.0, "Weight of uniformity (Wang and Isola 2020).", ge=0)


def uniformity(inputs: TermInputs, settings: TermSettings) -> Tensor:
    return torch.pdist(inputs.images).square().mul(-2).exp().mean().log() * len(inputs.entity)


@pytest.fixture
def term() -> Iterator[LossTerm]:
    """What a newcomer adds: a function, an option, a row of the table."""
    row = LossTerm("uniformity", "uniformity_weight", uniformity, regularizes=True, compares_images=True)
    TERMS.append(row)
    yield row
    TERMS.remove(row)


def test_a_further_term_takes_part_in_loss_and_metrics(
    encoder: Encoder, images: list[ImageRef], term: LossTerm
) -> None:
    names = torch.nn.functional.normalize(torch.eye(3, 32), dim=-1)
    views = ViewSchedule(Pixels(images, encoder.prepare), AugmentationSettings(), 3, 0)

    def loss(weight: float):
        settings = UniformitySettings(seed=3, keep_weight=0.0, uniformity_weight=weight)
        objective = RemediationObjective(encoder, views, (0, 0, 1, 1, 2, 2), NameFeatures(names), settings)
        return objective.loss(objective.collate([objective.sample(index, index) for index in range(6)]))

    without, with_term = loss(0.0), loss(0.5)
    assert set(without.metrics) == {"contrastive"}
    assert set(with_term.metrics) == {"contrastive", "uniformity"}
    expected = without.total + 0.5 * with_term.metrics["uniformity"]
    torch.testing.assert_close(with_term.total, expected)
    assert float(with_term.metrics["uniformity"]) < 0


def test_the_checks_follow_from_a_further_terms_row(term: LossTerm) -> None:
    def problems(**options: float) -> str:
        try:
            conflicts(UniformitySettings(**options), 4).raise_if_any()
        except UsageError as error:
            return str(error)
        return ""

    assert not problems(uniformity_weight=1.0)
    assert "cannot be split into micro-batches" in problems(uniformity_weight=1.0, micro_batch_size=2)
    assert not problems(micro_batch_size=2)
    assert "nothing to train on" in problems(uniformity_weight=1.0, contrastive_weight=0.0)


def test_terms_come_in_the_order_alignment_teachers_regularizers() -> None:
    settings = RemediationSettings(
        teacher=("a", "b"), teacher_weight=(1.0, 2.0), relational_weight=0.5, replay="pairs"
    )
    assert [(row.name, row.weight) for row in active_terms(settings)] == [
        ("contrastive", 1.0),
        ("teacher_0", 1.0),
        ("relational_0", 0.5),
        ("teacher_1", 2.0),
        ("relational_1", 0.5),
        ("keep", 1.0),
        ("keep_pooled", 1.0),
        ("replay", 1.0),
    ]


def test_every_weight_is_an_option_and_every_requirement_an_input() -> None:
    for term in TERMS:
        assert term.weight in RemediationSettings.model_fields, term.name
        assert term.requires in ("", *RemediationSettings.model_fields), term.name
