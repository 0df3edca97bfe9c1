"""Objective of encoder remediation: VisPRE's stage I, each term with its weight.

    L = c L_con + sum_m (w_m L_KD,m + r L_rel,m) + lambda L_keep + rho L_replay

- ``L_con``: alignment of an image with its entity's name, in one of three forms.
- ``L_KD,m``: distance of the student's feature, mapped by a learnt projection, to teacher *m*'s.
- ``L_rel,m``: distance of the likenesses between the batch's images as teacher *m* and the student see
  them; needs no projection.
- ``L_keep``: distance to the original encoder, on the patch tokens of the layer that the multimodal model
  reads and on the pooled output, over entity images and replayed ones. LLaVA reads an earlier layer than
  the contrastive loss does, so tokens and feature are kept apart.
- ``L_replay``: CLIP's loss on general image-text pairs.

The losses are in :mod:`priorkit.training.remediation.losses`. The paper's own were not available; these are a
documented reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from priorkit.data.shuffling import sample_ids
from priorkit.models.vision.encoder import Encoder, l2_normalize
from priorkit.training.objectives.base import Loss
from priorkit.training.objectives.contrastive import (
    MAX_LOGIT_SCALE,
    Captions,
    contrastive_loss,
    gradient_cached_features,
    gradient_cached_forward,
    similarity_logits,
)
from priorkit.training.remediation import losses
from priorkit.training.remediation.settings import CONTRASTIVE
from priorkit.training.remediation.teachers import Teacher, ViewSchedule


@dataclass(frozen=True)
class Terms:
    """The terms of the loss and their weights; each weight may be 0.

    Attributes:
        contrastive: form of ``L_con``.
        contrastive_weight: ``c``.
        keep_weight: ``lambda``.
        relational_temperature: ``T`` of ``L_rel``.
    """

    contrastive: CONTRASTIVE = "cross-entropy"
    contrastive_weight: float = 1.0
    keep_weight: float = 1.0
    relational_temperature: float = 0.1


@dataclass(frozen=True)
class Replay:
    """General pairs that keep the encoder general.

    Attributes:
        views: the images and how they are seen.
        captions: their texts.
        per_image: pairs that travel with each entity image.
        weight: ``rho``.
    """

    views: ViewSchedule
    captions: Captions
    per_image: int
    weight: float


@dataclass(frozen=True)
class NameFeatures:
    """Text features of all names.

    Attributes:
        fixed: L2-normalised fp32 ``[names, dim]`` as the original text tower makes them.
        anew: makes them again with gradients, where the text tower trains; None where it is frozen.
    """

    fixed: Tensor
    anew: Callable[[], Tensor] | None = None

    def features(self) -> Tensor:
        """L2-normalised fp32 ``[names, dim]`` of the text tower as it is now."""
        return self.fixed if self.anew is None else self.anew()


class TrainableNameHead:
    """The names' text features by a text tower that trains: see :func:`priorkit.models.vision.encoder.zero_shot_head`.

    Args:
        encoder: whose text tower it is.
        names: the names.
        templates: texts in which ``{}`` stands for the name.
        part: texts whose activations are kept at once, 0 for all; see :func:`gradient_cached_features`.
    """

    def __init__(
        self, encoder: Encoder, names: Sequence[str], templates: Sequence[str], part: int = 0
    ) -> None:
        self._encoder, self._part = encoder, part
        self._tokens = [
            encoder.tokenize([template.replace("{}", name) for name in names]) for template in templates
        ]

    def __call__(self) -> Tensor:
        """L2-normalised fp32 ``[names, dim]``, with gradients."""
        device = self._encoder.device
        features = (
            l2_normalize(
                gradient_cached_features(
                    self._encoder.text_features,
                    {name: value.to(device) for name, value in tokens.items()},
                    self._part,
                )
            )
            for tokens in self._tokens
        )
        return l2_normalize(torch.stack(list(features)).sum(dim=0))


class RemediationObjective:
    """VisPRE's stage I over entity images.

    Args:
        encoder: the encoder; what of it trains is set by the caller.
        views: the entity images and how they are seen.
        entity_of: for each image the index of its entity's name.
        names: text features of all names.
        terms: weights.
        feature_layer: the hidden state that the multimodal model reads, as in LLaVA (-2).
        teachers: teachers' features.
        replay: general pairs, or None.
        original: a frozen copy of the encoder as it was, for the keep-term; None without.
        seed: the run's seed.
        gradient_cache: images whose activations are kept at once, 0 for the whole batch; see
            :func:`priorkit.training.objectives.contrastive.gradient_cached_forward`.
    """

    unit = "images"

    def __init__(
        self,
        encoder: Encoder,
        views: ViewSchedule,
        entity_of: Sequence[int],
        names: NameFeatures,
        terms: Terms,
        feature_layer: int,
        teachers: Sequence[Teacher],
        replay: Replay | None,
        original: Encoder | None,
        seed: int,
        gradient_cache: int = 0,
    ) -> None:
        self._encoder, self._views, self._entity_of, self._names = encoder, views, entity_of, names
        self._terms, self._layer, self._replay, self._seed = terms, feature_layer, replay, seed
        self._teachers, self._original, self._part = teachers, original, gradient_cache
        width = names.fixed.shape[1]
        torch.manual_seed(seed)
        self._projections = nn.ModuleList(nn.Linear(width, t.features.shape[-1]) for t in teachers)
        self._projections.to(names.fixed.device)
        parts: dict[str, nn.Module] = {"encoder": encoder.model, "projections": self._projections}
        if terms.contrastive == "sigmoid":
            self._bias = nn.Parameter(self._first_bias())
            parts["bias"] = nn.ParameterList([self._bias])
        self.module: nn.Module = nn.ModuleDict(parts)

    def __len__(self) -> int:
        return len(self._entity_of)

    def sample(self, index: int, position: int) -> dict[str, Any]:
        """An entity image as seen at this place of the stream, and a share of the replayed pairs."""
        return {
            "index": index,
            "view": self._views.number(position),
            "pixels": self._views.pixels.view(index, self._views.at(index, position)),
            "replay": self._replayed(position),
        }

    def _replayed(self, position: int) -> list[tuple[Tensor, int]]:
        """The general pairs that travel with a position of the stream: pixels and which caption."""
        replay = self._replay
        if replay is None:
            return []
        places = range(position * replay.per_image, (position + 1) * replay.per_image)
        ids = [_replay_id(self._seed + 1, place, len(replay.captions)) for place in places]
        pixels = replay.views.pixels
        return [
            (pixels.view(index, replay.views.at(index, place)), index)
            for index, place in zip(ids, places, strict=True)
        ]

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Pixels uint8 (entity images, then replayed ones), entities, teachers' features, captions."""
        index = torch.tensor([sample["index"] for sample in samples])
        view = torch.tensor([sample["view"] for sample in samples])
        pairs = [pair for sample in samples for pair in sample["replay"]]
        batch: dict[str, Any] = {
            "pixels": torch.stack([sample["pixels"] for sample in samples] + [pixels for pixels, _ in pairs]),
            "entity": torch.tensor([self._entity_of[sample["index"]] for sample in samples]),
            "teachers": [teacher.features[view, index] for teacher in self._teachers],
        }
        if self._replay is not None:
            chosen = [caption for _, caption in pairs]
            batch["captions"] = self._replay.captions.batch(chosen)
            batch["keys"] = self._replay.captions.keys[chosen]
        return batch

    def weight(self, batch: dict[str, Any]) -> int:
        """The number of entity images."""
        return len(batch["entity"])

    def loss(self, batch: dict[str, Any]) -> Loss:
        """The weighted sum of the terms; each is logged by its own name."""
        terms, count = self._terms, self.weight(batch)
        # Entity images first, replayed ones after.
        every, *kept = gradient_cached_forward(self._see, {"pixels": batch["pixels"]}, self._part)
        units, scale = every[:count], self._scale()
        names = self._names.features()

        weighted: dict[str, tuple[float, Tensor]] = {}
        if terms.contrastive_weight:
            loss = self._alignment(units, names, batch["entity"], scale)
            weighted["contrastive"] = (terms.contrastive_weight, loss)
        for number, (teacher, target) in enumerate(zip(self._teachers, batch["teachers"], strict=True)):
            if teacher.weight:
                loss = losses.feature_distillation_loss(self._projections[number](units), target)
                weighted[f"teacher_{number}"] = (teacher.weight, loss)
            if teacher.relational_weight:
                loss = losses.relational_loss(units, target, terms.relational_temperature)
                weighted[f"relational_{number}"] = (teacher.relational_weight, loss)
        if kept:
            # Averaged over the images, and over the names where they move.
            moved = kept[0].mean()
            if self._names.anew is not None:
                moved = moved + losses.keep_loss(names, self._names.fixed).mean()
            weighted["keep"] = (terms.keep_weight, moved * count)
        if self._replay is not None:
            texts = l2_normalize(self._caption_features(batch["captions"]))
            loss = contrastive_loss(every[count:], texts, scale, batch["keys"])
            weighted["replay"] = (self._replay.weight, loss / self._replay.per_image)
        total = torch.stack([weight * value for weight, value in weighted.values()]).sum()
        return Loss(total, {name: value for name, (_, value) in weighted.items()})

    def _see(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """The student's features of images at length one, ``[images, dim]``; with the keep-term the distances
        ``[images]`` to the original, on the tokens of the layer that the multimodal model reads (without the
        class token, as LLaVA reads them) and on the feature."""
        pixels, original = batch["pixels"], self._original
        output = self._encoder.forward_vision(pixels, hidden_states=original is not None)
        units = l2_normalize(output.features)
        if original is None:
            return (units,)
        with torch.no_grad():
            before = original.forward_vision(pixels, hidden_states=True)
        tokens = losses.keep_loss(output.layer(self._layer), before.layer(self._layer))
        return units, tokens + losses.keep_loss(output.features, before.features)

    def _scale(self) -> Tensor:
        """The encoder's own inverse temperature, which stays as it was trained."""
        model = self._encoder.model
        # ALIGN keeps a temperature in place of the logarithm of its inverse.
        scale = model.logit_scale.exp() if hasattr(model, "logit_scale") else 1 / model.temperature
        return scale.clamp(max=MAX_LOGIT_SCALE).detach()

    def _alignment(self, units: Tensor, names: Tensor, entity: Tensor, scale: Tensor) -> Tensor:
        if self._terms.contrastive == "infonce":
            return losses.info_nce(units, names, entity, scale)
        if self._terms.contrastive == "sigmoid":
            return losses.name_sigmoid_loss(units, names, entity, scale, self._bias)
        return losses.name_cross_entropy(units, names, entity, scale)

    def _caption_features(self, tokens: dict[str, Tensor]) -> Tensor:
        with torch.set_grad_enabled(self._names.anew is not None and torch.is_grad_enabled()):
            return gradient_cached_features(self._encoder.text_features, tokens, self._part)

    @torch.no_grad()
    def _first_bias(self) -> Tensor:
        """Where the sigmoid's bias starts: an image that is equally like all names says yes to one of them.

        A model trained with the sigmoid loss brings its own bias; others get that of their mean logit.
        """
        own = getattr(self._encoder.model, "logit_bias", None)
        if own is not None:
            return own.detach().clone().view(())
        pixels = self._views.pixels
        some = range(0, len(pixels), max(1, len(pixels) // 64))
        images = l2_normalize(
            self._encoder.image_features(torch.stack([pixels[i] for i in some]).to(self._names.fixed.device))
        )
        logits = similarity_logits(images, self._names.fixed, self._scale())
        return -(logits.mean() + torch.tensor(float(max(2, logits.shape[1]))).log().to(logits.device))

    def learning_rate_scale(self, name: str) -> float:
        """All parameters learn at the same rate."""
        return 1.0


_BLOCK = 4096
"""Places of the replay's order that are worked out together; one by one each takes 0.12 ms."""


def _replay_id(seed: int, place: int, count: int) -> int:
    block, within = divmod(place, _BLOCK)
    return _replay_block(seed, block, count)[within]


@lru_cache(maxsize=4)
def _replay_block(seed: int, block: int, count: int) -> list[int]:
    return sample_ids(seed, block * _BLOCK, (block + 1) * _BLOCK, count).tolist()
