"""Objective of encoder remediation: VisPRE's stage I, each term with its weight.

    L = L_con + sum_m w_m L_KD,m + lambda L_keep + rho L_replay

- ``L_con``: cross-entropy of an image over the names of all entities, whose text features are fixed
  (the text tower is frozen). Unlike in-batch contrast it has no false negatives when names repeat.
- ``L_KD,m``: mean squared distance of the student's feature, mapped by a learnt projection, to teacher
  *m*'s; both L2-normalised, averaged over dimensions (plain feature distillation is the strongest
  single term in CLIP-KD, Yang et al. 2024).
- ``L_keep``: squared distance of L2-normalised tokens to those of the original encoder, summed over
  width and averaged over tokens: on the patch tokens of the layer that the multimodal model reads, and
  on the pooled output. Last-layer updates alone are invisible to LLaVA, which reads an earlier layer.
- ``L_replay``: CLIP's loss on general image-text pairs.

The paper's own losses were not available; these are a documented reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from priorkit.data.order import sample_ids
from priorkit.data.pixels import Pixels, shift
from priorkit.models.encoder import Encoder, unit
from priorkit.training.contrastive import MAX_LOGIT_SCALE, contrastive_loss, similarity, text_key
from priorkit.training.objective import Loss


@dataclass(frozen=True)
class Teacher:
    """A teacher's features of the entity images.

    Attributes:
        features: L2-normalised fp32 ``[images, teacher width]`` in main memory.
        weight: ``w_m``.
    """

    features: Tensor
    weight: float


@dataclass(frozen=True)
class Replay:
    """General pairs that keep the encoder general.

    Attributes:
        pixels: the images.
        texts: their texts.
        per_image: pairs that travel with each entity image.
        weight: ``rho``.
    """

    pixels: Pixels
    texts: Sequence[str]
    per_image: int
    weight: float


@dataclass(frozen=True)
class Weights:
    """Weights of the terms; each may be 0."""

    contrastive: float
    keep: float


def keep_loss(student: Tensor, original: Tensor) -> Tensor:
    """Squared distance of L2-normalised tokens.

    Args:
        student, original: ``[batch, tokens, width]`` or ``[batch, width]``.

    Returns:
        fp32 ``[batch]``: summed over width, averaged over tokens.
    """
    distance = (unit(student) - unit(original)).square().sum(dim=-1)
    return distance.mean(dim=-1) if distance.ndim == 2 else distance


class RemediationObjective:
    """VisPRE's stage I over entity images.

    Args:
        encoder: the encoder; what of its image tower trains is set by the caller.
        pixels: the entity images.
        entity_of: for each image the index of its entity.
        head: L2-normalised text features of all entities, fp32 ``[entities, dim]``, on the device.
        weights: weights of the contrastive and the keep-term.
        feature_layer: the hidden state that the multimodal model reads, as in LLaVA (-2).
        teachers: teachers' features.
        replay: general pairs, or None.
        original: a frozen copy of the encoder's model as it was, for the keep-term; None without.
        augment_shift: images are moved by up to this many pixels each time they are seen.
        seed: the run's seed.
    """

    unit = "images"

    def __init__(
        self,
        encoder: Encoder,
        pixels: Pixels,
        entity_of: Sequence[int],
        head: Tensor,
        weights: Weights,
        feature_layer: int,
        teachers: Sequence[Teacher],
        replay: Replay | None,
        original: Any,
        augment_shift: int,
        seed: int,
    ) -> None:
        self._encoder, self._pixels, self._entity_of, self._head = encoder, pixels, entity_of, head
        self._weights, self._layer, self._replay = weights, feature_layer, replay
        self._shift, self._seed = augment_shift, seed
        self._teachers = teachers
        width = head.shape[1]
        torch.manual_seed(seed)
        projections = nn.ModuleList(nn.Linear(width, teacher.features.shape[1]) for teacher in teachers)
        self._projections = projections.to(head.device)
        self.module: nn.Module = nn.ModuleDict({"encoder": encoder.model, "projections": self._projections})
        self._layer_has_class_token = has_class_token(encoder.model)
        self._original = original

    def __len__(self) -> int:
        return len(self._entity_of)

    def sample(self, index: int, position: int) -> dict[str, Any]:
        """An entity image, and a share of the replayed pairs."""
        pixels = shift(self._pixels[index], self._shift, self._seed * 1_000_003 + position)
        return {"index": index, "pixels": pixels, "replay": self._replayed(position)}

    def _replayed(self, position: int) -> list[tuple[Tensor, str]]:
        """The general pairs that travel with a position of the stream."""
        replay = self._replay
        if replay is None:
            return []
        start = position * replay.per_image
        ids = sample_ids(self._seed + 1, start, start + replay.per_image, len(replay.texts))
        seeds = (self._seed * 1_000_003 + start + number + (1 << 40) for number in range(replay.per_image))
        return [
            (shift(replay.pixels[int(index)], self._shift, seed), replay.texts[int(index)])
            for index, seed in zip(ids, seeds, strict=True)
        ]

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Pixels uint8, entities, teachers' features, and replayed pairs."""
        index = torch.tensor([sample["index"] for sample in samples])
        batch: dict[str, Any] = {
            "pixels": torch.stack([sample["pixels"] for sample in samples]),
            "entity": torch.tensor([self._entity_of[sample["index"]] for sample in samples]),
            "teachers": [teacher.features[index] for teacher in self._teachers],
        }
        pairs = [pair for sample in samples for pair in sample["replay"]]
        if pairs:
            batch["replay_pixels"] = torch.stack([pixels for pixels, _ in pairs])
            batch["replay_tokens"] = self._encoder.tokenise([text for _, text in pairs])
            batch["replay_keys"] = torch.tensor([text_key(text) for _, text in pairs])
        return batch

    def weight(self, batch: dict[str, Any]) -> int:
        """The number of entity images."""
        return len(batch["entity"])

    def loss(self, batch: dict[str, Any]) -> Loss:
        """The weighted sum of the terms; each is logged by its own name."""
        model, count = self._encoder.model, self.weight(batch)
        pixels = torch.cat([batch["pixels"], batch["replay_pixels"]]) if self._replay else batch["pixels"]
        values = self._encoder.normalise(pixels)
        output = model.vision_model(pixel_values=values, output_hidden_states=True)
        features = _project(model, output.pooler_output)
        units = unit(features)
        scale = model.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE).detach()
        terms: dict[str, tuple[float, Tensor]] = {}
        if self._weights.contrastive > 0:
            logits = similarity(units[:count], self._head, scale)
            loss = nn.functional.cross_entropy(logits, batch["entity"], reduction="sum")
            terms["contrastive"] = (self._weights.contrastive, loss)
        for number, (teacher, target) in enumerate(zip(self._teachers, batch["teachers"], strict=True)):
            mapped = unit(self._projections[number](units[:count]))
            terms[f"teacher_{number}"] = (teacher.weight, (mapped - target).square().mean(dim=-1).sum())
        if self._original is not None:
            terms["keep"] = (self._weights.keep, self._keep(values, output, features) * count)
        if self._replay is not None:
            with torch.no_grad():
                texts = unit(self._encoder.text_features(batch["replay_tokens"]))
            loss = contrastive_loss(units[count:], texts, scale, batch["replay_keys"])
            terms["replay"] = (self._replay.weight, loss / self._replay.per_image)
        total = torch.stack([weight * value for weight, value in terms.values()]).sum()
        return Loss(total, {name: value for name, (_, value) in terms.items()})

    def _keep(self, values: Tensor, output: Any, features: Tensor) -> Tensor:
        """The keep-term, averaged over the images of the batch."""
        with torch.no_grad():
            original = self._original.vision_model(pixel_values=values, output_hidden_states=True)
            feature = _project(self._original, original.pooler_output)
        # The patch tokens alone, as LLaVA drops the class token.
        first = 1 if self._layer_has_class_token else 0
        tokens = output.hidden_states[self._layer][:, first:]
        before = original.hidden_states[self._layer][:, first:]
        return (keep_loss(tokens, before) + keep_loss(features, feature)).mean()

    def learning_rate_scale(self, name: str) -> float:
        """All parameters learn at the same rate."""
        return 1.0


def _project(model: Any, output: Tensor) -> Tensor:
    """CLIP projects the pooled output; SigLIP and its like do not."""
    projection = getattr(model, "visual_projection", None)
    return output if projection is None else projection(output)


def has_class_token(model: Any) -> bool:
    """Whether the image tower's first token is a class token (CLIP: yes, SigLIP: no)."""
    vision = model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    positions = model.vision_model.embeddings.position_embedding.weight.shape[0]
    return positions == patches + 1
