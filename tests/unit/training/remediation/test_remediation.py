from __future__ import annotations

import copy
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.pixels import Pixels
from priorkit.models.vision.building import build_encoder
from priorkit.models.vision.encoder import Encoder, zero_shot_head
from priorkit.training.objectives.contrastive import Captions, contrastive_loss
from priorkit.training.remediation import losses
from priorkit.training.remediation.interpolation import InterpolationPath
from priorkit.training.remediation.objective import (
    NameFeatures,
    RemediationObjective,
    Replay,
    Terms,
    TrainableNameHead,
)
from priorkit.training.remediation.settings import TrainableParameters
from priorkit.training.remediation.teachers import Teacher, ViewSchedule, cache_key, teacher_features
from priorkit.training.remediation.trainable_parameters import merge_lora, set_trainable

ENTITY_OF = (0, 0, 1, 1, 2, 2)
STILL = AugmentationSettings()


def features(rows: int, seed: int, width: int = 5) -> Tensor:
    return normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    texts = ["a photo of a heron", "an egret"]
    return build_encoder("pocket-tiny", texts, [Image.linear_gradient("L").convert("RGB")], 300, seed=1)


@pytest.fixture(scope="module")
def images() -> list[ImageRef]:
    found: list[ImageRef] = []
    for seed in range(6):
        pixels = np.random.default_rng(seed).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        found.append(ImageRef(str(seed), content=stream.getvalue()))
    return found


def remediation(
    encoder: Encoder, images: list[ImageRef], terms: Terms, **changes: Any
) -> RemediationObjective:
    options: dict[str, Any] = {
        "names": NameFeatures(features(3, 6, 32)),
        "feature_layer": -2,
        "teachers": [],
        "replay": None,
        "original": None,
        "seed": 3,
        **changes,
    }
    views = ViewSchedule(Pixels(images, encoder.prepare), STILL, 3, 1 if options["teachers"] else 0)
    return RemediationObjective(encoder, views, ENTITY_OF, terms=terms, **options)


def batch_of(objective: RemediationObjective, indices: range) -> Any:
    return objective.collate([objective.sample(index, index) for index in indices])


def terms(contrastive: float = 0.0, keep: float = 0.0, form: Any = "cross-entropy") -> Terms:
    return Terms(form, contrastive, keep)


def seen_by(encoder: Encoder, objective: RemediationObjective, batch: Any) -> Tensor:
    count = objective.weight(batch)
    return normalize(encoder.image_features(batch["pixels"][:count]), dim=-1)


def test_the_entity_term_is_cross_entropy_over_all_names(encoder: Encoder, images: list[ImageRef]) -> None:
    objective = remediation(encoder, images, terms(2.0))
    batch = batch_of(objective, range(6))
    loss = objective.loss(batch)
    with torch.no_grad():
        scale = encoder.model.logit_scale.exp().clamp(max=100.0)
        logits = scale * seen_by(encoder, objective, batch) @ features(3, 6, 32).T
        expected = cross_entropy(logits, torch.tensor(ENTITY_OF), reduction="sum")
    torch.testing.assert_close(loss.metrics["contrastive"], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss.total, 2 * expected, rtol=1e-5, atol=1e-5)


def test_infonce_takes_all_images_of_an_entity_as_positives(encoder: Encoder, images: list[ImageRef]) -> None:
    objective = remediation(encoder, images, terms(1.0, form="infonce"))
    batch = batch_of(objective, range(6))
    with torch.no_grad():
        found = objective.loss(batch).total
        seen, names = seen_by(encoder, objective, batch), features(3, 6, 32)[list(ENTITY_OF)]
        logits = encoder.model.logit_scale.exp() * seen @ names.T
        expected = 0.0
        for rows in (logits, logits.T):
            for row in range(6):
                same = [c for c in range(6) if ENTITY_OF[c] == ENTITY_OF[row]]
                expected -= float(rows[row].log_softmax(0)[same].mean()) / 2
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_sigmoid_asks_every_name_by_itself(encoder: Encoder, images: list[ImageRef]) -> None:
    objective = remediation(encoder, images, terms(1.0, form="sigmoid"))
    batch = batch_of(objective, range(6))
    bias = objective.module.get_parameter("bias.0")
    found = objective.loss(batch).total
    with torch.no_grad():
        seen, names = seen_by(encoder, objective, batch).double(), features(3, 6, 32).double()
        logits = encoder.model.logit_scale.exp().double() * seen @ names.T + bias.double()
        truth = torch.nn.functional.one_hot(torch.tensor(ENTITY_OF)).bool()
        expected = -(logits[truth].sigmoid().log().sum() + (1 - logits[~truth].sigmoid()).log().sum())
        # Before any training, an image says yes to one name in all.
        assert float((logits.mean()).sigmoid()) == pytest.approx(1 / 3, abs=0.09)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    found.backward()
    assert bias.grad is not None
    assert float(bias.grad) != 0


def test_the_keep_term_is_zero_at_the_start_and_grows(encoder: Encoder, images: list[ImageRef]) -> None:
    original = copy.deepcopy(encoder.model)
    changed = Encoder(copy.deepcopy(encoder.model), encoder.image_processor, encoder.tokenizer)
    objective = remediation(changed, images, terms(keep=0.5), original=replace(encoder, model=original))
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
        expected = (tokens - before).square().sum(-1).mean(-1) + (pooled[0] - pooled[1]).square().sum(-1)
    assert float(loss.total) > 0
    torch.testing.assert_close(loss.metrics["keep"], expected.sum(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss.total, 0.5 * expected.sum(), rtol=1e-4, atol=1e-5)


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


def test_keep_loss_by_hand() -> None:
    one, two = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    keep_loss = losses.keep_loss
    assert keep_loss(one, one).tolist() == [0.0]
    assert keep_loss(one, two).tolist() == [2.0]
    assert keep_loss(torch.stack([one, one], dim=1), torch.stack([two, one], dim=1)).tolist() == [1.0]


def test_the_teachers_term_is_the_squared_distance_through_a_projection(
    encoder: Encoder, images: list[ImageRef]
) -> None:
    taught = features(6, 9, 7)
    objective = remediation(encoder, images, terms(), teachers=[Teacher(taught[None], 0.7)])
    batch = batch_of(objective, range(6))
    loss = objective.loss(batch)
    projection = objective.module.get_submodule("projections.0")
    with torch.no_grad():
        mapped = normalize(projection(seen_by(encoder, objective, batch)), dim=-1)
        expected = (2 - 2 * (mapped * taught).sum(-1)).sum()
    torch.testing.assert_close(loss.metrics["teacher_0"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss.total, 0.7 * expected, rtol=1e-4, atol=1e-5)
    loss.total.backward()
    assert next(projection.parameters()).grad is not None


def test_likenesses_are_compared_without_oneself() -> None:
    student, teacher = features(5, 1, 4).requires_grad_(), features(5, 2, 9)
    found = losses.relational_loss(student, teacher, 0.2)
    expected = 0.0
    for row in range(5):
        others = [c for c in range(5) if c != row]
        p = ((teacher[row] @ teacher[others].T) / 0.2).double().softmax(0)
        q = ((student[row] @ student[others].T) / 0.2).double().softmax(0)
        expected += float((p * (p / q).log()).sum())
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(losses.relational_loss(teacher, teacher, 0.2)) == pytest.approx(0.0, abs=1e-6)
    # A rotation keeps all likenesses.
    turned = teacher @ torch.linalg.qr(torch.randn(9, 9))[0]
    assert float(losses.relational_loss(turned, teacher, 0.2)) == pytest.approx(0.0, abs=1e-4)
    assert float(losses.relational_loss(student[:2], teacher[:2], 0.2)) == 0.0
    found.backward()
    assert bool(student.grad is not None and student.grad.isfinite().all())


def test_the_relational_term_needs_no_projection(encoder: Encoder, images: list[ImageRef]) -> None:
    taught = features(6, 9, 7)
    objective = remediation(encoder, images, terms(), teachers=[Teacher(taught[None], 0.0, 2.0)])
    batch = batch_of(objective, range(6))
    loss = objective.loss(batch)
    expected = losses.relational_loss(seen_by(encoder, objective, batch), taught, 0.1)
    assert set(loss.metrics) == {"relational_0"}
    torch.testing.assert_close(loss.total, 2 * expected, rtol=1e-4, atol=1e-5)


def test_the_replay_term_is_clips_loss_on_the_general_pairs(encoder: Encoder, images: list[ImageRef]) -> None:
    texts = ["a heron", "an egret", "a photo", "of a", "heron an", "photo"]
    general = ViewSchedule(Pixels(images, encoder.prepare), STILL, 4, 0)
    replay = Replay(general, Captions(encoder, texts), per_image=2, weight=0.5)
    objective = remediation(encoder, images, terms(), replay=replay)
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
def test_gradient_caching_gives_the_loss_and_gradients_of_the_whole_batch(
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
            encoder, images, terms(1.0, 0.7, "infonce"), teachers=[Teacher(features(6, 9, 7)[None], 0.7, 0.3)],
            names=NameFeatures(zero_shot_head(encoder, names, ["a {}"]), TrainableNameHead(encoder, names, ["a {}"], size)),
            replay=Replay(general, Captions(encoder, texts), per_image=1, weight=0.5),
            original=replace(encoder, model=original), gradient_cache=size,
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
    assert set(cached_terms) == {"contrastive", "teacher_0", "relational_0", "keep", "replay"}
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
    teachers = [Teacher(features(6, 9)[None], 1.0)] if term == "teacher" else []
    form = "sigmoid" if term == "sigmoid" else "cross-entropy"
    chosen = terms(float(term in ("contrastive", "sigmoid")), float(term == "keep"), form)
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


@pytest.mark.parametrize(
    ("parts", "trained", "frozen"),
    [
        (
            TrainableParameters(),
            {"vision_model.embeddings", "visual_projection"},
            {"text_model", "logit_scale"},
        ),
        (
            TrainableParameters(last_blocks=1),
            {"vision_model.encoder.layers.1", "vision_model.post_layernorm"},
            {"vision_model.encoder.layers.0", "vision_model.embeddings", "text_model"},
        ),
        (
            TrainableParameters(lora_rank=2),
            {"lora_A", "lora_B"},
            {"text_model", "base_layer", "visual_projection"},
        ),
        (TrainableParameters(text=True), {"text_model.encoder", "text_projection"}, {"logit_scale"}),
    ],
)
def test_what_trains_is_what_was_asked_for(
    encoder: Encoder, parts: TrainableParameters, trained: set[str], frozen: set[str]
) -> None:
    model = copy.deepcopy(encoder.model)
    set_trainable(model, parts)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for word in trained:
        assert any(on for name, on in flags.items() if word in name), word
    for word in frozen:
        assert not any(on for name, on in flags.items() if word in name), word
    merge_lora(model, parts)
    assert set(model.state_dict()) == set(encoder.model.state_dict())


def test_the_line_ends_exactly_at_both_encoders(encoder: Encoder) -> None:
    tuned = copy.deepcopy(encoder.model)
    with torch.no_grad():
        for number, parameter in enumerate(tuned.vision_model.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    after = copy.deepcopy(tuned.state_dict())
    line = InterpolationPath(tuned, encoder.model)
    line.set(0.25)
    for name, value in tuned.state_dict().items():
        expected = 0.75 * encoder.model.state_dict()[name] + 0.25 * after[name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    line.set(0.0)
    assert all(torch.equal(v, encoder.model.state_dict()[k]) for k, v in tuned.state_dict().items())
    line.set(1.0)
    assert all(torch.equal(v, after[k]) for k, v in tuned.state_dict().items())


class Counting:
    """A teacher that counts how often it looks."""

    looks = 0
    batch = staticmethod(torch.stack)

    def encode_images(self, batches: Any) -> Tensor:
        type(self).looks += 1
        return torch.cat([normalize(batch.float().mean(dim=(2, 3)) + 1, dim=-1) for batch in batches])


def test_teachers_features_are_those_of_the_views_and_are_kept(
    encoder: Encoder, images: list[ImageRef], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIORKIT_CACHE", str(tmp_path))
    moving = AugmentationSettings(augment_shift=4, augment_crop=0.4)
    views = ViewSchedule(Pixels(images, encoder.prepare), moving, 3, 2)
    large = Pixels(
        images, lambda image: torch.from_numpy(np.asarray(image.resize((96, 96))).copy()).permute(2, 0, 1)
    )
    key = cache_key(a=1)
    found = teacher_features(Counting(), large, views, "teacher", key)
    assert found.shape == (2, 6, 3)
    for number in range(2):
        for index in range(6):
            seen = large.view(index, views.numbered(index, number))[None]
            assert seen.shape == (1, 3, 96, 96)
            torch.testing.assert_close(found[number, index], Counting().encode_images([seen])[0])
    before = Counting.looks
    assert torch.equal(teacher_features(Counting(), large, views, "teacher", key), found)
    assert Counting.looks == before
    assert cache_key(a=2) != key
    monkeypatch.setattr("priorkit.core.runtime.versions", lambda: {"torch": "0.1"})
    assert cache_key(a=1) != key
    monkeypatch.undo()
    monkeypatch.setenv("PRIORKIT_CACHE", str(tmp_path))
    (tmp_path / "features" / f"{key}.safetensors").write_bytes(b"damaged")
    assert torch.equal(teacher_features(Counting(), large, views, "teacher", key), found)


def test_the_student_sees_the_view_that_its_teachers_features_are_of(
    encoder: Encoder, images: list[ImageRef]
) -> None:
    moving = AugmentationSettings(augment_shift=4)
    views = ViewSchedule(Pixels(images, encoder.prepare), moving, 3, 2)
    taught = features(12, 9).view(2, 6, 5)
    objective = RemediationObjective(
        encoder, views, ENTITY_OF, NameFeatures(features(3, 6, 32)), terms(), -2, [Teacher(taught, 1.0)], None, None, 3
    )  # fmt: skip
    for position, number in ((2, 0), (8, 1), (14, 0)):
        batch = objective.collate([objective.sample(4, position)])
        assert torch.equal(batch["teachers"][0][0], taught[number, 4])
        assert torch.equal(batch["pixels"][0], views.pixels.view(4, views.numbered(4, number)))
