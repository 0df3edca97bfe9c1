"""The region term: parity with a plain float64 reference, closed forms, gradient caching."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.data.images.pixels import Pixels
from priorkit.data.images.regions import ImageRegion
from priorkit.data.io.rejects import Rejects
from priorkit.data.pairs.reading import read_pairs
from priorkit.data.pairs.stored_pairs import Pairs
from priorkit.models.kernels.pooled_token import pooled_token_only
from priorkit.models.vision.building import build_encoder
from priorkit.models.vision.encoder import Encoder
from priorkit.training.objectives import regions as region_module
from priorkit.training.objectives.contrastive import ContrastiveObjective
from priorkit.training.objectives.region_losses import box_loss, gathered_texts, generalized_iou, name_loss
from priorkit.training.objectives.regions import RegionTerm, RegionWeights
from tests.support.region_pairs import region_rows, write_pairs

STILL = AugmentationSettings()
MOVING = AugmentationSettings(augment_shift=6, augment_flip=True, augment_crop=0.5)
SHAPE = {
    "projection_dim": 16,
    "vision": {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
               "image_size": 48, "patch_size": 12},
    "text": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
             "max_position_embeddings": 16},
}  # fmt: skip
Form = Literal["clip", "siglip"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    rows = region_rows(12, size=(60, 48), keep=lambda row: row % 4 != 3)
    # Regions of one text twice, and one inside another.
    rows[0]["regions"] += [rows[0]["regions"][0], {"text": "a thing", "box": [0.0, 0.0, 1.0, 1.0]}]
    folder: Path = tmp_path_factory.mktemp("pairs")
    return read_pairs(write_pairs(folder / "pairs.parquet", rows), Rejects(0.0), with_regions=True)


def new_encoder(pairs: Pairs, loss: Form) -> Encoder:
    from priorkit.data.images.decoding import decode

    texts = [*pairs.texts, "a thing"]
    encoder = build_encoder(SHAPE, texts, [decode(ref) for ref in pairs.images], 300, 1, loss)
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
    return encoder


def new_objective(
    encoder: Encoder,
    pairs: Pairs,
    loss: Form,
    weights: RegionWeights,
    views: AugmentationSettings = STILL,
    chunk: int = 0,
) -> ContrastiveObjective:
    term = RegionTerm(encoder, pairs.images, pairs.regions, weights, sigmoid=loss == "siglip")
    pixels = Pixels(pairs.images, encoder.prepare)
    return ContrastiveObjective(encoder, pixels, pairs.texts, views, 3, loss, chunk, term)


def batch_of(objective: ContrastiveObjective, count: int = 8) -> dict[str, Any]:
    return objective.collate([objective.sample(index, index) for index in range(count)])


def giou(a: list[float], b: list[float]) -> float:
    """From the definition of Rezatofighi et al. 2019, on corners."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(wide, 0) * max(high, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return both / union - (hull - union) / hull


def reference(
    encoder: Encoder, pairs: Pairs, loss: Form, layer: int, pixels: Tensor, head: Any
) -> tuple[float, float]:
    """Both parts of the term for unaugmented images of 60 x 48 pixels, in float64, region by region."""
    model = copy.deepcopy(encoder.model).double().eval()
    vision = model.vision_model
    with torch.no_grad():
        values = encoder.normalize(pixels).double()
        states = vision(pixel_values=values, output_hidden_states=True).hidden_states
        tokens = states[layer][:, -16:]
        distinct = sorted({region.text for row in pairs.regions[: len(pixels)] for region in row})
        texts = model.get_text_features(**encoder.tokenize(distinct)).pooler_output
        texts = texts / texts.norm(dim=1, keepdim=True)
        scale = float(model.logit_scale.exp())
        names = boxes = 0.0
        count = 0
        for place, row in enumerate(pairs.regions[: len(pixels)]):

            def held(box: tuple[float, ...], patch: int) -> bool:
                x, y = (patch % 4 + 0.5) / 4, (patch // 4 + 0.5) / 4
                return box[0] - 1e-9 <= x < box[2] - 1e-9 and box[1] - 1e-9 <= y < box[3] - 1e-9

            # CLIP crops the middle 48 of 60 columns; SigLIP squashes.
            seen = [
                region.box if loss == "siglip"
                else ((region.box[0] - 0.1) / 0.8, region.box[1], (region.box[2] - 0.1) / 0.8, region.box[3])
                for region in row
            ]  # fmt: skip
            visible = [(r, b) for r, b in zip(row, seen, strict=True) if 0 <= (b[0] + b[2]) / 2 < 1]
            normed = vision.post_layernorm(tokens[place])
            features = model.visual_projection(normed) if loss == "clip" else vision.head(normed[:, None])
            features = features / features.norm(dim=1, keepdim=True)
            logits = (scale * features @ texts.T).tolist()
            true = {
                (patch, distinct.index(region.text))
                for region, box in visible
                for patch in range(16)
                if held(box, patch)
            }
            for region, box in visible:
                count += 1
                patches = [patch for patch in range(16) if held(box, patch)]
                assert patches, "squares of ten pixels hold a center of patches of twelve in this data"
                own = distinct.index(region.text)
                for patch in patches:
                    value = logits[patch][own]
                    other_texts = [logits[patch][t] for t in range(len(distinct)) if (patch, t) not in true]
                    other_patches = [logits[q][own] for q in range(16) if (q, own) not in true]
                    part = 0.0
                    for others in (other_texts, other_patches):
                        if loss == "clip":
                            part += math.log(sum(map(math.exp, [value, *others]))) - value
                        else:
                            bias = float(model.logit_bias)
                            part += math.log(1 + math.exp(-value - bias))
                            part += sum(math.log(1 + math.exp(other + bias)) for other in others)
                    names += part / 2 / len(patches)
                    cx, cy, w, h = head(normed[patch].float()).double().sigmoid().tolist()
                    x1, y1, x2, y2 = max(box[0], 0), max(box[1], 0), min(box[2], 1), min(box[3], 1)
                    truth = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
                    distance = sum(abs(p - t) for p, t in zip((cx, cy, w, h), truth, strict=True))
                    corners = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
                    boxes += (5 * distance + 2 * (1 - giou(corners, [x1, y1, x2, y2]))) / len(patches)
    return names / count, boxes / count


@pytest.mark.parametrize("loss", ["clip", "siglip"])
@pytest.mark.parametrize("layer", [-2, -1, 0])
def test_the_term_is_the_plain_float64_reference(loss: Form, layer: int, pairs: Pairs) -> None:
    encoder = new_encoder(pairs, loss)
    objective = new_objective(encoder, pairs, loss, RegionWeights(0.7, 0.3, layer))
    head = objective.module.box_head
    with torch.no_grad():
        head.weight += 0.1 * torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(1))
    batch = batch_of(objective)
    found = objective.loss(batch)
    count = objective.weight(batch)
    names, boxes = reference(encoder, pairs, loss, layer, batch["pixels"], head)
    assert found.metrics["region"].item() / count == pytest.approx(names, rel=2e-5)
    assert found.metrics["region_box"].item() / count == pytest.approx(boxes, rel=2e-5)
    plain = ContrastiveObjective(encoder, Pixels(pairs.images, encoder.prepare), pairs.texts, STILL, 3, loss)
    contrastive = plain.loss(batch).total.item()
    assert found.metrics["contrastive"].item() == pytest.approx(contrastive, rel=1e-6)
    total = contrastive + count * (0.7 * names + 0.3 * boxes)
    assert found.total.item() == pytest.approx(total, rel=2e-5)
    assert tuple(found.metrics) == objective.metrics


def gradients(objective: ContrastiveObjective, batch: dict[str, Any]) -> dict[str, Tensor]:
    objective.module.zero_grad()
    objective.loss(batch).total.backward()
    return {n: p.grad.clone() for n, p in objective.module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_gradient_caching_gives_the_same_gradient(
    loss: Form, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, weights = new_encoder(pairs, loss), RegionWeights(1.0, 0.5, -2)
    whole = new_objective(encoder, pairs, loss, weights, MOVING)
    expected = gradients(whole, batch_of(whole))
    assert {"box_head.weight", "encoder.logit_scale"} <= set(expected)
    for chunk, rows in ((3, 16384), (2, 32)):
        monkeypatch.setattr(region_module, "PATCHES", rows)
        parts = new_objective(encoder, pairs, loss, weights, MOVING, chunk)
        found = gradients(parts, batch_of(parts))
        assert set(found) == set(expected)
        largest = max(float(value.abs().max()) for value in expected.values())
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6 * largest, msg=name)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_the_pooled_token_suffices_where_an_earlier_layer_is_trained(loss: Form, pairs: Pairs) -> None:
    encoder = new_encoder(pairs, loss)
    for layer, suffices in ((-2, True), (1, True), (0, True), (-1, False), (2, False)):
        objective = new_objective(encoder, pairs, loss, RegionWeights(1.0, 0.5, layer))
        batch = batch_of(objective)
        assert objective.pooled_only == suffices
        with torch.no_grad():
            expected = objective.loss(batch).total
            with pooled_token_only(encoder.model):
                found = objective.loss(batch).total
        # SigLIP's images are pooled from all tokens, so only its text tower is shortened.
        assert torch.allclose(found, expected, rtol=1e-5) == (suffices or loss == "siglip")


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_a_batch_without_regions_trains_as_without_the_term(loss: Form, pairs: Pairs) -> None:
    encoder = new_encoder(pairs, loss)
    without = Pairs(pairs.images[3:4] * 3, pairs.texts[:3], ((), (), (ImageRegion("x", (0, 0, 1, 1)),)))
    objective = new_objective(encoder, without, loss, RegionWeights(1.0, 1.0, -2))
    batch = batch_of(objective, 2)
    found = objective.loss(batch)
    assert found.metrics["region"].item() == found.metrics["region_box"].item() == 0.0
    assert found.total.item() == found.metrics["contrastive"].item()
    found.total.backward()
    assert float(objective.module.box_head.weight.grad.abs().sum()) == 0.0


def test_only_names_or_only_boxes(pairs: Pairs) -> None:
    encoder = new_encoder(pairs, "clip")
    names = new_objective(encoder, pairs, "clip", RegionWeights(1.0, 0.0, -2))
    assert names.module is encoder.model
    assert names.metrics == ("contrastive", "regions_per_image", "region")
    assert tuple(names.loss(batch_of(names)).metrics) == names.metrics
    boxes = new_objective(encoder, pairs, "clip", RegionWeights(0.0, 1.0, -2))
    assert boxes.metrics == ("contrastive", "regions_per_image", "region_box")
    batch = batch_of(boxes)
    assert batch["regions"]["tokens"] == {}
    assert tuple(boxes.loss(batch).metrics) == boxes.metrics


def test_regions_are_counted_where_they_are_seen(pairs: Pairs) -> None:
    encoder = new_encoder(pairs, "clip")
    small = AugmentationSettings(augment_crop=0.1)
    objective = new_objective(encoder, pairs, "clip", RegionWeights(1.0, 0.0, -2), small)
    batch = batch_of(objective)
    visible = [region for index in range(8) for region in objective.sample(index, index)[2]]
    assert float(objective.loss(batch).metrics["regions_per_image"]) == len(visible)
    assert 0 < len(visible) < sum(map(len, pairs.regions[:8]))


def test_names_in_closed_form() -> None:
    # One image of two patches, three texts; all similarities equal.
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    patch, text = torch.tensor([[0]]), torch.tensor([[1]])
    found = name_loss(logits, patch, text)
    assert found.item() == pytest.approx((math.log(3) + math.log(2)) / 2)
    found.sum().backward()
    assert logits.grad is not None
    third, half = 1 / 3, 1 / 2
    expected = torch.tensor([[[third, third - 1 + half - 1, third], [0.0, half, 0.0]]]) / 2
    torch.testing.assert_close(logits.grad[0], expected[0])


def test_other_true_pairs_are_no_negatives() -> None:
    logits = torch.zeros(1, 2, 3)
    patch, text = torch.tensor([[0, 0, 1]]), torch.tensor([[1, 2, 1]])
    # (0, 1): against (0, 0), and no other patch; (0, 2): against (0, 0), (1, 2); (1, 1): against (1, 0), (1, 2).
    expected = [math.log(2) / 2, (math.log(2) + math.log(2)) / 2, math.log(3) / 2]
    assert name_loss(logits, patch, text)[0].tolist() == pytest.approx(expected)
    everything = torch.zeros(1, 1, 1, requires_grad=True)
    found = name_loss(everything, torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long))
    found.sum().backward()
    assert found.item() == 0.0
    assert everything.grad is not None
    assert everything.grad.item() == 0.0


def test_the_sigmoid_in_closed_form() -> None:
    logits, bias = torch.full((1, 2, 3), 2.0), torch.tensor(-2.0)
    found = name_loss(logits, torch.tensor([[0]]), torch.tensor([[1]]), bias)
    assert found.item() == pytest.approx((3 + 2) / 2 * math.log(2))


def test_boxes_in_closed_form() -> None:
    truth = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    assert box_loss(truth, truth).tolist() == pytest.approx([0.0], abs=1e-5)
    # Half as wide: L1 0.25, IoU 1/2, the hull is the truth.
    half = torch.tensor([[0.5, 0.5, 0.25, 0.5]])
    assert box_loss(half, truth).tolist() == pytest.approx([5 * 0.25 + 2 * 0.5], rel=1e-5)
    # Apart: two quarters at opposite corners; the hull is the image.
    one, two = torch.tensor([[0.25, 0.25, 0.5, 0.5]]), torch.tensor([[0.75, 0.75, 0.5, 0.5]])
    assert box_loss(one, two).tolist() == pytest.approx([5 * 1.0 + 2 * (1 + 0.5)], rel=1e-5)


def test_the_generalized_iou_is_torchvisions_with_its_gradient() -> None:
    corners = torch.rand(2, 400, 4, generator=torch.Generator().manual_seed(0))
    boxes = torch.cat([corners[..., :2], corners[..., :2] + corners[..., 2:] * 0.6], dim=-1)
    results: list[tuple[Tensor, Tensor]] = []
    for loss in (lambda one, two: 1 - generalized_iou(one, two), generalized_box_iou_loss):
        first = boxes[0].clone().requires_grad_()
        values = loss(first, boxes[1])
        values.sum().backward()
        assert first.grad is not None
        results.append((values.detach(), first.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)


def test_in_one_process_texts_are_in_the_order_of_their_keys() -> None:
    features = torch.arange(6.0).view(3, 2)
    texts, column = gathered_texts(features, [4, 7, 9])
    assert torch.equal(texts, features)
    assert column.tolist() == [0, 1, 2]
