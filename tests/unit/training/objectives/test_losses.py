from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from priorkit.core.errors import InputError
from priorkit.data.conversations.conversation import Conversation, Turn
from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.pixels import Pixels
from priorkit.models.vision.building import build_encoder
from priorkit.models.vision.encoder import Encoder
from priorkit.training.finetuning.batches import tokenize_conversation
from priorkit.training.objectives.captions import Captions, text_key
from priorkit.training.objectives.contrastive import ContrastiveObjective
from priorkit.training.objectives.contrastive_losses import contrastive_loss, sigmoid_loss, soft_cross_entropy
from priorkit.training.objectives.language_modeling import padding_mask

STILL, MOVING = AugmentationSettings(), AugmentationSettings(augment_shift=3)


def features(rows: int, seed: int) -> Tensor:
    return normalize(torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_clips_loss_for_distinct_captions() -> None:
    images, texts, scale = features(6, 1), features(6, 2), torch.tensor(14.0)
    expected = image_text_contrastive_loss(scale * texts @ images.T)
    ours = contrastive_loss(images, texts, scale, torch.arange(6)) / 6
    torch.testing.assert_close(ours, expected)


def test_repeated_captions_are_positives_of_one_another() -> None:
    images, texts, scale = features(4, 1), features(4, 2), torch.tensor(3.0)
    keys = torch.tensor([0, 1, 0, 2])
    expected = 0.0
    for logits in (scale * images @ texts.T, scale * texts @ images.T):
        for row in range(4):
            same = [column for column in range(4) if keys[column] == keys[row]]
            chances = logits[row].softmax(dim=0)
            expected -= float(torch.stack([chances[column].log() for column in same]).mean()) / 2
    assert float(contrastive_loss(images, texts, scale, keys)) == pytest.approx(expected, rel=1e-6)


def test_siglips_loss_equals_transformers() -> None:
    images, texts = features(6, 1), features(6, 2)
    scale, bias = torch.tensor(10.0), torch.tensor(-10.0)
    logits = scale * texts @ images.T + bias
    signs = 2 * torch.eye(6) - 1
    expected = -torch.nn.functional.logsigmoid(signs * logits).sum(dim=-1).mean()
    torch.testing.assert_close(sigmoid_loss(images, texts, scale, bias, torch.arange(6)) / 6, expected)


def test_equal_texts_are_positives_under_the_sigmoid_too() -> None:
    images, texts, keys = features(4, 1).double(), features(4, 2).double(), torch.tensor([0, 1, 0, 2])
    expected = 0.0
    for row in range(4):
        for column in range(4):
            chance = (5.0 * images[row] @ texts[column] - 2.0).sigmoid()
            expected -= float((chance if keys[row] == keys[column] else 1 - chance).log())
    found = sigmoid_loss(images, texts, torch.tensor(5.0), torch.tensor(-2.0), keys)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_both_losses_are_open_clips() -> None:
    losses = pytest.importorskip("open_clip.loss")
    images, texts, scale = features(6, 1), features(6, 2), torch.tensor(14.0)
    clip = losses.ClipLoss()(images, texts, scale)
    torch.testing.assert_close(contrastive_loss(images, texts, scale, torch.arange(6)) / 6, clip)
    bias = torch.tensor(-3.0)
    siglip = losses.SigLipLoss()(images, texts, scale, bias)
    torch.testing.assert_close(sigmoid_loss(images, texts, scale, bias, torch.arange(6)) / 6, siglip)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_gradient_caching_gives_the_full_batchs_gradient_and_keeps_one_parts_activations(
    images: list[ImageRef], loss: Any
) -> None:
    texts = ["a heron", "an egret", "a photo", "of a", "heron an", "photo"]
    encoder = build_encoder(
        "pocket-tiny", texts, [Image.linear_gradient("L").convert("RGB")], 300, seed=1, loss=loss
    )
    found: dict[int, dict[str, Tensor]] = {}
    kept: dict[int, int] = {}
    for part in (0, 2, 4):
        objective = ContrastiveObjective(
            encoder, Pixels(images, encoder.prepare), texts, STILL, 1, loss, gradient_cache=part
        )
        batch = objective.collate([objective.sample(index, index) for index in range(6)])
        kept[part] = 0

        def pack(value: Tensor, part: int = part) -> Tensor:
            kept[part] += value.numel()
            return value

        encoder.model.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            total = objective.loss(batch).total
        total.backward()
        found[part] = {n: p.grad.clone() for n, p in encoder.model.named_parameters() if p.grad is not None}
    largest = max(float(value.abs().max()) for value in found[0].values())
    for part in (2, 4):
        assert set(found[part]) == set(found[0])
        assert kept[part] < kept[0] / 10
        for name, value in found[0].items():
            torch.testing.assert_close(found[part][name], value, rtol=1e-4, atol=1e-6 * largest, msg=name)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_captions_tokenised_once_are_those_tokenised_per_batch(loss: Any) -> None:
    texts = ["a heron", "an egret by the water in the evening", "a", "of a"]
    encoder = build_encoder(
        "pocket-tiny", texts, [Image.linear_gradient("L").convert("RGB")], 300, seed=1, loss=loss
    )
    captions = Captions(encoder, texts)
    for chosen in ([0, 2], [3], [1, 0, 1], [2, 2]):
        expected, found = encoder.tokenize([texts[i] for i in chosen]), captions.batch(chosen)
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert torch.equal(found[name], value), (chosen, name)


def test_soft_cross_entropy_with_one_positive_is_cross_entropy() -> None:
    logits = torch.randn(5, 7)
    target = torch.tensor([0, 6, 3, 3, 1])
    positives = torch.nn.functional.one_hot(target, 7).bool()
    torch.testing.assert_close(
        soft_cross_entropy(logits, positives), cross_entropy(logits, target, reduction="none")
    )


def test_keys_of_texts_differ_and_are_the_same_in_every_process() -> None:
    assert text_key("a") == 3904355907
    assert text_key("b") == 1908338681


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build_encoder(
        "pocket-tiny",
        ["a photo of a heron", "an egret"],
        [Image.linear_gradient("L").convert("RGB")],
        300,
        seed=1,
    )


@pytest.fixture(scope="module")
def images() -> list[ImageRef]:
    import io

    found: list[ImageRef] = []
    for seed in range(6):
        pixels = np.random.default_rng(seed).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        found.append(ImageRef(str(seed), content=stream.getvalue()))
    return found


def test_the_contrastive_objective_equals_the_models_loss(encoder: Encoder, images: list[ImageRef]) -> None:
    texts = ["a heron", "an egret", "a photo"]
    objective = ContrastiveObjective(encoder, Pixels(images[:3], encoder.prepare), texts, STILL, seed=1)
    batch = objective.collate([objective.sample(index, index) for index in range(3)])
    with torch.no_grad():
        values = encoder.normalize(batch["pixels"])
        expected = encoder.model(pixel_values=values, **encoder.tokenize(texts), return_loss=True).loss
        ours = objective.loss(batch).total / objective.weight(batch)
    torch.testing.assert_close(ours, expected)


def test_the_augmentation_of_a_sample_follows_from_its_position(
    encoder: Encoder, images: list[ImageRef]
) -> None:
    objective = ContrastiveObjective(encoder, Pixels(images, encoder.prepare), ["x"] * 6, MOVING, seed=1)
    assert torch.equal(objective.sample(2, 5)[0], objective.sample(2, 5)[0])
    assert len({objective.sample(2, position)[0].numpy().tobytes() for position in range(20)}) > 5


def test_padding_is_the_run_at_the_end() -> None:
    ids = torch.tensor([[5, 0, 7, 0, 0], [0, 0, 0, 0, 0], [1, 2, 3, 4, 5]])
    apart = padding_mask(ids, 0, ends_document=False)
    assert apart.int().tolist() == [[0, 0, 0, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]
    shared = padding_mask(ids, 0, ends_document=True)
    assert shared.int().tolist() == [[0, 0, 0, 0, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]]


class Refusing:
    def encode(self, turns: object) -> None:
        raise InputError("too long", hint="shorten it")


def test_an_error_of_a_conversation_names_it() -> None:
    with pytest.raises(InputError, match="conversation 17: too long"):
        tokenize_conversation(Refusing(), Conversation("17", (Turn("user", "q"), Turn("assistant", "a")), ()))  # type: ignore[arg-type]
