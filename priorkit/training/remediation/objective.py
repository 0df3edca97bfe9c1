"""Objective of encoder remediation: VisPRE's stage I, the weighted sum of the terms of the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from priorkit.data.shuffling import sample_ids
from priorkit.models.vision.encoder import Encoder, l2_normalize
from priorkit.models.vision.towers import ImageOutput
from priorkit.training.objectives.base import Loss
from priorkit.training.objectives.captions import Captions
from priorkit.training.objectives.contrastive_losses import MAX_LOGIT_SCALE, similarity_logits
from priorkit.training.objectives.gradient_cache import gradient_cached_features, gradient_cached_forward
from priorkit.training.remediation import losses
from priorkit.training.remediation.settings import RemediationSettings
from priorkit.training.remediation.teachers import TeacherTargets
from priorkit.training.remediation.terms import KEPT, TermInputs, active_terms
from priorkit.training.remediation.views import ViewSchedule


@dataclass(frozen=True)
class Replay:
    """General pairs that keep the encoder general.

    Attributes:
        views: the images and the views of them that are trained on.
        captions: their texts.
    """

    views: ViewSchedule
    captions: Captions


@dataclass(frozen=True)
class NameFeatures:
    """Text features of all names.

    Attributes:
        original: L2-normalized fp32 ``[names, dim]`` by the original text tower.
        head: computes them with gradients where the text tower is trained; None where it is frozen.
    """

    original: Tensor
    head: Callable[[], Tensor] | None = None

    def features(self) -> Tensor:
        """L2-normalized fp32 ``[names, dim]`` by the text tower as it is now."""
        return self.original if self.head is None else self.head()


class TrainableNameHead:
    """The names' text features by a text tower that is trained: CLIP's zero-shot head with gradients.

    See :func:`priorkit.models.vision.encoder.zero_shot_head`.

    Args:
        encoder: whose text tower it is.
        names: the names.
        templates: prompt templates, ``{}`` is the name.
        chunk: texts whose activations are in memory at a time, 0 for all; see
            :func:`gradient_cached_features`.
    """

    def __init__(
        self, encoder: Encoder, names: Sequence[str], templates: Sequence[str], chunk: int = 0
    ) -> None:
        self._encoder, self._chunk = encoder, chunk
        self._tokens = [
            encoder.tokenize([template.replace("{}", name) for name in names]) for template in templates
        ]

    def __call__(self) -> Tensor:
        """L2-normalized fp32 ``[names, dim]``, with gradients."""
        device, text_features = self._encoder.device, self._encoder.text_features
        # They stay there: copied in every step, they would make it wait for the GPU.
        self._tokens = [{name: value.to(device) for name, value in tokens.items()} for tokens in self._tokens]
        by_template = [
            l2_normalize(gradient_cached_features(text_features, tokens, self._chunk))
            for tokens in self._tokens
        ]
        return l2_normalize(torch.stack(by_template).sum(dim=0))


class RemediationObjective:
    """VisPRE's stage I over entity images.

    Args:
        encoder: the student; the caller sets which of its parameters are trained.
        views: the entity images and the views of them that are trained on.
        entity_of: for each image the index of its entity's name.
        names: text features of all names.
        settings: the terms, their weights, the seed.
        teachers: what is distilled from each teacher.
        replay: general pairs; None without.
        original: a frozen copy of the original encoder; needed for keep terms.
    """

    unit = "images"

    def __init__(
        self,
        encoder: Encoder,
        views: ViewSchedule,
        entity_of: Sequence[int],
        names: NameFeatures,
        settings: RemediationSettings,
        teachers: Sequence[TeacherTargets] = (),
        replay: Replay | None = None,
        original: Encoder | None = None,
    ) -> None:
        self._encoder, self._views, self._entity_of, self._names = encoder, views, entity_of, names
        self._settings, self._terms = settings, active_terms(settings)
        self._teachers, self._replay, self._original = teachers, replay, original
        width = names.original.shape[1]
        torch.manual_seed(settings.seed)
        self._projections = nn.ModuleList(
            nn.Linear(width, teacher.features.shape[-1]) for teacher in teachers
        )
        self._projections.to(names.original.device)
        parts: dict[str, nn.Module] = {"encoder": encoder.model, "projections": self._projections}
        self._patch_projections: dict[int, nn.Module] = {}
        if any(teacher.patches for teacher in teachers):
            token_width = encoder.shape.widths[settings.feature_layer]
            self._patch_projections = {
                number: nn.Linear(token_width, teacher.patches[0].shape[-1]).to(names.original.device)
                for number, teacher in enumerate(teachers)
                if teacher.patches
            }
            parts["patch_projections"] = nn.ModuleList(self._patch_projections.values())
        names_of_terms = {active.term.name for active in self._terms}
        self._kept = [kind for kind, term in KEPT.items() if term in names_of_terms]
        self._needs_patches = "teacher_patches" in names_of_terms
        self._bias: nn.Parameter | None = None
        if settings.contrastive == "sigmoid":
            self._bias = nn.Parameter(self._initial_bias())
            parts["bias"] = nn.ParameterList([self._bias])
        self.module: nn.Module = nn.ModuleDict(parts)

    def __len__(self) -> int:
        return len(self._entity_of)

    def sample(self, index: int, position: int) -> dict[str, Any]:
        """An entity image in the view due at this position of the stream, and its share of replayed pairs."""
        return {
            "index": index,
            "view": self._views.view_number(position),
            "pixels": self._views.pixels.view(index, self._views.view_at(index, position)),
            "replay": self._replay_samples(position),
        }

    def _replay_samples(self, position: int) -> list[tuple[Tensor, int]]:
        """The general pairs of a position of the stream: pixels and the caption's index."""
        replay = self._replay
        if replay is None:
            return []
        per_image, pixels = self._settings.replay_per_image, replay.views.pixels
        positions = range(position * per_image, (position + 1) * per_image)
        seed = self._settings.seed + 1
        indices = [_replay_index(seed, replayed, len(replay.captions)) for replayed in positions]
        return [
            (pixels.view(index, replay.views.view_at(index, replayed)), index)
            for index, replayed in zip(indices, positions, strict=True)
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
            "patches": {
                str(number): self._teachers[number].patches_of(view, index)
                for number in self._patch_projections
            },
            "logits": [teacher.logits(view, index) for teacher in self._teachers],
        }
        if self._replay is not None:
            captions = [caption for _, caption in pairs]
            batch["captions"] = self._replay.captions.batch(captions)
            batch["keys"] = self._replay.captions.keys[captions]
        return batch

    def weight(self, batch: dict[str, Any]) -> int:
        """The number of entity images."""
        return len(batch["entity"])

    def loss(self, batch: dict[str, Any]) -> Loss:
        """The weighted sum of the terms; each is logged by its own name."""
        inputs = self._term_inputs(batch)
        values: dict[str, Tensor] = {}
        for active in self._terms:
            term_inputs = inputs
            if active.teacher is not None:
                number = active.teacher
                term_inputs = inputs.for_teacher(
                    batch["teachers"][number], self._projections[number], batch["patches"].get(str(number)),
                    self._patch_projections.get(number), batch["logits"][number],
                )  # fmt: skip
            values[active.name] = active.term.loss(term_inputs, self._settings)
        weighted = [active.weight * values[active.name] for active in self._terms]
        return Loss(torch.stack(weighted).sum(), values)

    def _term_inputs(self, batch: dict[str, Any]) -> TermInputs:
        count, names = self.weight(batch), self._names
        # Entity images first, replayed ones after.
        features, *others = gradient_cached_forward(
            self._forward_images, {"pixels": batch["pixels"]}, self._settings.gradient_cache
        )
        patches = others.pop()[:count] if self._needs_patches else None
        inputs = TermInputs(
            images=features[:count],
            entity=batch["entity"],
            names=names.features(),
            scale=self._scale(),
            bias=self._bias,
            original_names=None if names.head is None else names.original,
            distances=dict(zip(self._kept, others, strict=True)),
            patches=patches,
        )
        if self._replay is None:
            return inputs
        texts = l2_normalize(self._caption_features(batch["captions"]))
        return inputs.with_replay(features[count:], texts, batch["keys"])

    def _forward_images(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """The student's L2-normalized features ``[images, dim]``, the distances ``[images]`` to the original in the
        order of the keep terms, and where a teacher's patches are matched the student's ``[images, patches, width]``."""
        pixels, settings = batch["pixels"], self._settings
        output = self._encoder.forward_vision(pixels, hidden_states=bool(settings.read_layers))
        found = [l2_normalize(output.features)]
        if self._kept:
            found += self._distances(pixels, output)
        if self._needs_patches:
            found.append(output.layer(settings.feature_layer))
        return tuple(found)

    def _distances(self, pixels: Tensor, output: ImageOutput) -> list[Tensor]:
        """Distances ``[images]`` to the original encoder, of what each keep term keeps."""
        if self._original is None:
            raise ValueError("a keep term needs the original encoder")
        layers = self._settings.kept_layers
        with torch.no_grad():
            before = self._original.forward_vision(pixels, hidden_states=bool(layers))

        def mean_over_layers(tokens: Callable[[ImageOutput, int], Tensor]) -> Tensor:
            each = [losses.keep_loss(tokens(output, layer), tokens(before, layer)) for layer in layers]
            return torch.stack(each).mean(0)

        found: list[Tensor] = []
        for kind in self._kept:
            if kind == "patches":
                found.append(mean_over_layers(lambda seen, layer: seen.layer(layer)))
            elif kind == "class":
                found.append(mean_over_layers(lambda seen, layer: seen.layer(layer, prefix=True)[:, 0]))
            else:
                found.append(losses.keep_loss(output.features, before.features))
        return found

    def _scale(self) -> Tensor:
        """The encoder's own inverse temperature, which is not trained."""
        return inverse_temperature(self._encoder.model)

    def _caption_features(self, tokens: dict[str, Tensor]) -> Tensor:
        with torch.set_grad_enabled(self._names.head is not None and torch.is_grad_enabled()):
            return gradient_cached_features(
                self._encoder.text_features, tokens, self._settings.gradient_cache
            )

    @torch.no_grad()
    def _initial_bias(self) -> Tensor:
        """The sigmoid's initial bias: an image equally similar to all names then matches one of them in expectation.

        A model trained with the sigmoid loss brings its own bias; others get that of their mean logit.
        """
        bias = getattr(self._encoder.model, "logit_bias", None)
        if bias is not None:
            return bias.detach().clone().view(())
        pixels, names = self._views.pixels, self._names.original
        subset = range(0, len(pixels), max(1, len(pixels) // 64))
        stacked = torch.stack([pixels[index] for index in subset]).to(names.device)
        images = l2_normalize(self._encoder.image_features(stacked))
        logits = similarity_logits(images, names, self._scale())
        return -(logits.mean() + torch.tensor(float(max(2, logits.shape[1]))).log().to(logits.device))

    def learning_rate_scale(self, name: str) -> float:
        """All parameters have the same learning rate."""
        return 1.0


def inverse_temperature(model: Any) -> Tensor:
    """The factor of an encoder's cosines between images and texts, as trained."""
    # ALIGN has a temperature instead of the logarithm of its inverse.
    scale = model.logit_scale.exp() if hasattr(model, "logit_scale") else 1 / model.temperature
    return scale.clamp(max=MAX_LOGIT_SCALE).detach()


_BLOCK = 4096
"""Positions of the replay's order that are computed together; one by one each takes 0.12 ms."""


def _replay_index(seed: int, position: int, count: int) -> int:
    block, offset = divmod(position, _BLOCK)
    return _replay_block(seed, block, count)[offset]


@lru_cache(maxsize=4)
def _replay_block(seed: int, block: int, count: int) -> list[int]:
    return sample_ids(seed, block * _BLOCK, (block + 1) * _BLOCK, count).tolist()
