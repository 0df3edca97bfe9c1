from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.pixels import Pixels
from priorkit.models.vision.encoder import Encoder, zero_shot_head
from priorkit.training.objectives.captions import Captions
from priorkit.training.objectives.contrastive_losses import contrastive_loss
from priorkit.training.remediation import losses
from priorkit.training.remediation.objective import (
    NameFeatures,
    RemediationObjective,
    Replay,
    TrainableNameHead,
)
from priorkit.training.remediation.settings import RemediationSettings
from priorkit.training.remediation.teachers import TeacherTargets
from priorkit.training.remediation.views import ViewSchedule

ENTITY_OF = (0, 0, 1, 1, 2, 2)
STILL = AugmentationSettings()


def features(rows: int, seed: int, width: int = 5) -> Tensor:
    return normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def remediation(
    encoder: Encoder, images: list[ImageRef], settings: RemediationSettings, **changes: Any
) -> RemediationObjective:
    options: dict[str, Any] = {"names": NameFeatures(features(3, 6, 32)), "teachers": [], **changes}
    options["teachers"] = [
        TeacherTargets(each) if isinstance(each, Tensor) else each for each in options["teachers"]
    ]
    views = ViewSchedule(Pixels(images, encoder.prepare), STILL, 3, 1 if options["teachers"] else 0)
    return RemediationObjective(encoder, views, ENTITY_OF, settings=settings, **options)


def batch_of(objective: RemediationObjective, indices: range) -> Any:
    return objective.collate([objective.sample(index, index) for index in indices])


def weighted(
    contrastive: float = 0.0, keep: float = 0.0, form: Any = "cross-entropy", **options: Any
) -> RemediationSettings:
    return RemediationSettings(
        seed=3, contrastive=form, contrastive_weight=contrastive, keep_weight=keep, **options
    )


def student_features(encoder: Encoder, objective: RemediationObjective, batch: Any) -> Tensor:
    count = objective.weight(batch)
    return normalize(encoder.image_features(batch["pixels"][:count]), dim=-1)


def test_the_entity_term_is_cross_entropy_over_all_names(encoder: Encoder, images: list[ImageRef]) -> None:
    objective = remediation(encoder, images, weighted(2.0))
    batch = batch_of(objective, range(6))
    loss = objective.loss(batch)
    with torch.no_grad():
        scale = encoder.model.logit_scale.exp().clamp(max=100.0)
        logits = scale * student_features(encoder, objective, batch) @ features(3, 6, 32).T
        expected = cross_entropy(logits, torch.tensor(ENTITY_OF), reduction="sum")
    torch.testing.assert_close(loss.metrics["contrastive"], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss.total, 2 * expected, rtol=1e-5, atol=1e-5)


def test_infonce_takes_all_images_of_an_entity_as_positives(encoder: Encoder, images: list[ImageRef]) -> None:
    objective = remediation(encoder, images, weighted(1.0, form="infonce"))
    batch = batch_of(objective, range(6))
    with torch.no_grad():
        found = objective.loss(batch).total
        seen, names = student_features(encoder, objective, batch), features(3, 6, 32)[list(ENTITY_OF)]
        logits = encoder.model.logit_scale.exp() * seen @ names.T
        expected = 0.0
        for rows in (logits, logits.T):
            for row in range(6):
                same = [c for c in range(6) if ENTITY_OF[c] == ENTITY_OF[row]]
                expected -= float(rows[row].log_softmax(0)[same].mean()) / 2
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_sigmoid_form_is_a_sigmoid_loss_for_every_name(encoder: Encoder, images: list[ImageRef]) -> None:
    objective = remediation(encoder, images, weighted(1.0, form="sigmoid"))
    batch = batch_of(objective, range(6))
    bias = objective.module.get_parameter("bias.0")
    found = objective.loss(batch).total
    with torch.no_grad():
        seen, names = student_features(encoder, objective, batch).double(), features(3, 6, 32).double()
        logits = encoder.model.logit_scale.exp().double() * seen @ names.T + bias.double()
        truth = torch.nn.functional.one_hot(torch.tensor(ENTITY_OF)).bool()
        expected = -(logits[truth].sigmoid().log().sum() + (1 - logits[~truth].sigmoid()).log().sum())
        # Before training, an image matches one name in expectation.
        assert float((logits.mean()).sigmoid()) == pytest.approx(1 / 3, abs=0.09)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    found.backward()
    assert bias.grad is not None
    assert float(bias.grad) != 0


def test_the_keep_term_is_zero_at_the_start_and_grows(encoder: Encoder, images: list[ImageRef]) -> None:
    original = copy.deepcopy(encoder.model)
    changed = Encoder(copy.deepcopy(encoder.model), encoder.image_processor, encoder.tokenizer)
    objective = remediation(changed, images, weighted(keep=0.5), original=replace(encoder, model=original))
    batch = batch_of(objective, range(6))
    assert float(objective.loss(batch).metrics["keep"]) == 0.0
    with torch.no_grad():
        changed.model.vision_model.encoder.layers[0].mlp.fc2.weight.add_(0.3)
        loss = objective.loss(batch)
        values = encoder.normalize(batch["pixels"])
        outputs = [
            m.vision_model(pixel_values=values, output_hidden_states=True) for m in (changed.model, original)
        ]
        tokens, before = (normalize(output.hidden_states[-2][:, 1:], dim=-1) for output in outputs)
        pooled = [
            normalize(m.get_image_features(pixel_values=values).pooler_output, dim=-1)
            for m in (changed.model, original)
        ]
        patches, feature = (
            (tokens - before).square().sum(-1).mean(-1),
            (pooled[0] - pooled[1]).square().sum(-1),
        )
    assert float(loss.total) > 0
    torch.testing.assert_close(loss.metrics["keep"], patches.sum(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss.metrics["keep_pooled"], feature.sum(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss.total, 0.5 * (patches + feature).sum(), rtol=1e-4, atol=1e-5)


def test_each_keep_term_has_its_own_weight_and_layers(encoder: Encoder, images: list[ImageRef]) -> None:
    """Patches and class token of two layers, averaged; the pooled feature left free."""
    original = copy.deepcopy(encoder.model)
    changed = Encoder(copy.deepcopy(encoder.model), encoder.image_processor, encoder.tokenizer)
    settings = weighted(keep=0.5, keep_class_weight=2.0, keep_pooled_weight=0.0, keep_layer=(-2, -1))
    objective = remediation(changed, images, settings, original=replace(encoder, model=original))
    batch = batch_of(objective, range(6))
    with torch.no_grad():
        changed.model.vision_model.encoder.layers[0].mlp.fc2.weight.add_(0.3)
        loss = objective.loss(batch)
        values = encoder.normalize(batch["pixels"])
        states = [
            m.vision_model(pixel_values=values, output_hidden_states=True).hidden_states
            for m in (changed.model, original)
        ]
        distances = [
            (normalize(states[0][layer], dim=-1) - normalize(states[1][layer], dim=-1)).square().sum(-1)
            for layer in (-2, -1)
        ]  # [images, tokens] each
        patches = sum(distance[:, 1:].mean(1).sum() for distance in distances) / 2
        class_token = sum(distance[:, 0].sum() for distance in distances) / 2
    assert set(loss.metrics) == {"keep", "keep_class"}
    torch.testing.assert_close(loss.metrics["keep"], patches, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss.metrics["keep_class"], class_token, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss.total, 0.5 * patches + 2 * class_token, rtol=1e-4, atol=1e-5)


def test_teachers_patches_and_distributions_are_matched(encoder: Encoder, images: list[ImageRef]) -> None:
    """Patches through a projection of their own; names by the teacher's own features and temperature."""
    count = encoder.shape.patches[-2]
    generator = torch.Generator().manual_seed(8)
    taught, names = features(6, 9, 7), features(3, 10, 7)
    patches = torch.randn(6, count, 11, generator=generator).half()
    teacher = TeacherTargets(taught[None], [patches], names, 20.0)
    settings = weighted(
        teacher=("a",), teacher_weight=(0.0,), teacher_patch_weight=(0.3,), teacher_logit_weight=(2.0,)
    )
    objective = remediation(encoder, images, settings, teachers=[teacher])
    batch = batch_of(objective, range(6))
    loss = objective.loss(batch)
    projection = objective.module.get_submodule("patch_projections.0")
    with torch.no_grad():
        tokens = encoder.forward_vision(batch["pixels"], hidden_states=True).layer(-2)
        mapped, wanted = normalize(projection(tokens), dim=-1), normalize(patches.float(), dim=-1)
        expected = (mapped - wanted).square().sum(-1).mean(-1).sum()
        seen = student_features(encoder, objective, batch)
        student = (encoder.model.logit_scale.exp() * seen @ features(3, 6, 32).T).log_softmax(-1)
        target = (20.0 * taught @ names.T).softmax(-1)
        divergence = (target * (target.log() - student)).sum()
    assert set(loss.metrics) == {"teacher_patches_0", "teacher_logits_0"}
    torch.testing.assert_close(loss.metrics["teacher_patches_0"], expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(loss.metrics["teacher_logits_0"], divergence, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss.total, 0.3 * expected + 2 * divergence, rtol=1e-3, atol=1e-3)
    loss.total.backward()
    assert next(projection.parameters()).grad is not None
    torch.testing.assert_close(
        losses.logit_distillation_loss(taught, names, torch.tensor(20.0), 20.0 * taught @ names.T),
        torch.tensor(0.0), atol=1e-5, rtol=0,
    )  # fmt: skip


def test_a_last_layers_update_is_invisible_at_the_layer_that_llava_reads(
    encoder: Encoder, images: list[ImageRef]
) -> None:
    changed = copy.deepcopy(encoder.model)
    with torch.no_grad():
        changed.vision_model.encoder.layers[-1].mlp.fc2.weight.add_(0.3)
        values = encoder.normalize(torch.stack([encoder.prepare(Image.new("RGB", (48, 48), "red"))]))
        one, two = (
            m.vision_model(pixel_values=values, output_hidden_states=True) for m in (encoder.model, changed)
        )
    assert torch.equal(one.hidden_states[-2], two.hidden_states[-2])
    assert not torch.equal(one.pooler_output, two.pooler_output)


def test_the_teachers_term_is_the_squared_distance_through_a_projection(
    encoder: Encoder, images: list[ImageRef]
) -> None:
    taught = features(6, 9, 7)
    objective = remediation(
        encoder, images, weighted(teacher=("a",), teacher_weight=(0.7,)), teachers=[taught[None]]
    )
    batch = batch_of(objective, range(6))
    loss = objective.loss(batch)
    projection = objective.module.get_submodule("projections.0")
    with torch.no_grad():
        mapped = normalize(projection(student_features(encoder, objective, batch)), dim=-1)
        expected = (2 - 2 * (mapped * taught).sum(-1)).sum()
    torch.testing.assert_close(loss.metrics["teacher_0"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss.total, 0.7 * expected, rtol=1e-4, atol=1e-5)
    loss.total.backward()
    assert next(projection.parameters()).grad is not None


def test_the_relational_term_needs_no_projection(encoder: Encoder, images: list[ImageRef]) -> None:
    taught = features(6, 9, 7)
    objective = remediation(
        encoder,
        images,
        weighted(teacher=("a",), teacher_weight=(0.0,), relational_weight=2.0),
        teachers=[taught[None]],
    )
    batch = batch_of(objective, range(6))
    loss = objective.loss(batch)
    expected = losses.relational_loss(student_features(encoder, objective, batch), taught, 0.1)
    assert set(loss.metrics) == {"relational_0"}
    torch.testing.assert_close(loss.total, 2 * expected, rtol=1e-4, atol=1e-5)


def test_the_replay_term_is_clips_loss_on_the_general_pairs(encoder: Encoder, images: list[ImageRef]) -> None:
    texts = ["a heron", "an egret", "a photo", "of a", "heron an", "photo"]
    general = ViewSchedule(Pixels(images, encoder.prepare), STILL, 4, 0)
    replay = Replay(general, Captions(encoder, texts))
    settings = weighted(replay="pairs", replay_weight=0.5, replay_per_image=2)
    objective = remediation(encoder, images, settings, replay=replay)
    batch = batch_of(objective, range(3))
    assert len(batch["pixels"]) == 9
    loss = objective.loss(batch)
    with torch.no_grad():
        images_units = normalize(encoder.image_features(batch["pixels"][3:]), dim=-1)
        text_units = normalize(encoder.text_features(batch["captions"]), dim=-1)
        scale = encoder.model.logit_scale.exp()
        expected = contrastive_loss(images_units, text_units, scale, batch["keys"]) / 2
    torch.testing.assert_close(loss.metrics["replay"], expected)
    torch.testing.assert_close(loss.total, 0.5 * expected)


@pytest.mark.parametrize("part", [1, 4, 5])
def test_gradient_caching_gives_the_loss_and_gradients_of_the_full_batch(
    encoder: Encoder, images: list[ImageRef], part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = copy.deepcopy(encoder.model).requires_grad_(False)
    with torch.no_grad():
        original.vision_model.encoder.layers[0].mlp.fc2.weight.add_(0.1)
    general = ViewSchedule(Pixels(images, encoder.prepare), STILL, 4, 0)
    texts = ["a heron", "an egret", "a photo", "of a", "heron an", "photo"]
    names = ["heron", "egret", "ibis"]
    most = [0]
    forward = Encoder.forward_vision

    def counted(self: Encoder, pixels: Any, hidden_states: bool = False) -> Any:
        most[0] = max(most[0], len(pixels))
        return forward(self, pixels, hidden_states)

    found: list[tuple[Tensor, dict[str, Tensor], list[Tensor], int]] = []
    for size in (0, part):
        objective = remediation(
            encoder, images,
            weighted(
                1.0, 0.7, "infonce", teacher=("a",), teacher_weight=(0.7,), relational_weight=0.3,
                replay="pairs", replay_weight=0.5, gradient_cache=size,
            ),
            teachers=[features(6, 9, 7)[None]],
            names=NameFeatures(zero_shot_head(encoder, names, ["a {}"]), TrainableNameHead(encoder, names, ["a {}"], size)),
            replay=Replay(general, Captions(encoder, texts)),
            original=replace(encoder, model=original),
        )  # fmt: skip
        objective.module.zero_grad()
        batch = batch_of(objective, range(6))
        monkeypatch.setattr(Encoder, "forward_vision", counted)
        most[0] = 0
        loss = objective.loss(batch)
        loss.total.backward()
        monkeypatch.undo()
        gradients = [
            parameter.grad.clone()
            for parameter in objective.module.parameters()
            if parameter.grad is not None
        ]
        found.append((loss.total.detach(), loss.metrics, gradients, most[0]))
    (whole, terms_of, slopes, _), (cached, cached_terms, cached_slopes, largest) = found
    assert largest == part
    torch.testing.assert_close(cached, whole, rtol=1e-5, atol=1e-5)
    assert set(cached_terms) == {"contrastive", "teacher_0", "relational_0", "keep", "keep_pooled", "replay"}
    for name, value in terms_of.items():
        torch.testing.assert_close(cached_terms[name], value, rtol=1e-5, atol=1e-5)
    assert len(slopes) == len(cached_slopes) > 40
    for one, other in zip(slopes, cached_slopes, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("term", ["contrastive", "sigmoid", "keep", "teacher"])
def test_sums_over_micro_batches_are_those_of_the_batch(
    encoder: Encoder, images: list[ImageRef], term: str
) -> None:
    original = copy.deepcopy(encoder.model)
    with torch.no_grad():
        original.vision_model.encoder.layers[0].mlp.fc2.weight.add_(0.1)
    teachers = [features(6, 9)[None]] if term == "teacher" else []
    form = "sigmoid" if term == "sigmoid" else "cross-entropy"
    chosen = weighted(
        float(term in ("contrastive", "sigmoid")), float(term == "keep"), form, teacher=("a",) * len(teachers)
    )
    kept = replace(encoder, model=original) if term == "keep" else None
    objective = remediation(encoder, images, chosen, teachers=teachers, original=kept)
    with torch.no_grad():
        whole = objective.loss(batch_of(objective, range(6))).total
        parts = [objective.loss(batch_of(objective, r)).total for r in (range(1), range(1, 4), range(4, 6))]
    torch.testing.assert_close(torch.stack(parts).sum(), whole, rtol=1e-5, atol=1e-6)


def test_a_text_tower_that_trains_gives_the_same_head_with_gradients(encoder: Encoder) -> None:
    names, templates = ["heron", "little egret"], ["a {}", "a photo of a {}"]
    head = TrainableNameHead(encoder, names, templates)()
    torch.testing.assert_close(head, zero_shot_head(encoder, names, templates), rtol=1e-4, atol=1e-5)
    assert head.requires_grad


def test_the_student_gets_the_view_of_its_teachers_features(encoder: Encoder, images: list[ImageRef]) -> None:
    moving = AugmentationSettings(augment_shift=4)
    views = ViewSchedule(Pixels(images, encoder.prepare), moving, 3, 2)
    taught = features(12, 9).view(2, 6, 5)
    objective = RemediationObjective(
        encoder, views, ENTITY_OF, NameFeatures(features(3, 6, 32)), weighted(teacher=("a",)), [TeacherTargets(taught)]
    )  # fmt: skip
    for position, number in ((2, 0), (8, 1), (14, 0)):
        batch = objective.collate([objective.sample(4, position)])
        assert torch.equal(batch["teachers"][0][0], taught[number, 4])
        assert torch.equal(batch["pixels"][0], views.pixels.view(4, views.fixed_view(4, number)))
