"""The forward pass of image towers: CLIP, SigLIP, ViT, DINOv2, MAE, convolutional nets and timm's models.

An image tower turns pixels into hidden states, layer by layer, and one feature per image. Families differ
in how they are called, in the tokens before the patches (class token, registers) and in whether they pool;
this module hides the differences.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

TIMM_TOWER = "priorkit_timm_tower"
"""The ``model_type`` of a timm vision transformer as the image tower of a larger model; artifacts store it."""

REGISTERED = (TIMM_TOWER, "blip_2_vision_model", "instructblip_vision_model")
"""Model types that :mod:`priorkit.models.vision.registered_towers` makes known to ``AutoModel``."""

Pooling = Literal["auto", "class", "mean"]
"""How tokens become one vector: class token, mean of the patches, or the first of them that exists (auto)."""


@dataclass(frozen=True)
class ImageOutput:
    """The output of an image tower for a batch.

    Attributes:
        features: ``[batch, dim]``; projected if the encoder has a projection, not normalized.
        last_hidden_state: ``[batch, tokens, width]``, after the tower's last norm if it has one.
        hidden_states: ``[batch, tokens, width]`` as transformers numbers them: the embeddings first, then
            one per layer; timm's models start with the first layer. None if not requested.
        prefix: number of tokens (class token, registers) before the patches.
        mask: bool ``[batch, patches]``, False at padding; None without padding.
    """

    features: Tensor
    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None
    prefix: int
    mask: Tensor | None = None

    def layer(self, number: int, prefix: bool = False) -> Tensor:
        """The patches of a hidden state (LLaVA uses -2).

        Returns:
            ``[batch, patches, width]``; with ``prefix`` all tokens, ``[batch, tokens, width]``.
        """
        if self.hidden_states is None:
            raise ValueError("the hidden states were not requested")
        state = self.hidden_states[number]
        return state if prefix else state[:, self.prefix :]

    def pooled(self, number: int, pooling: Pooling) -> Tensor:
        """One vector ``[batch, width]`` of a hidden state: the mean of its patches or its class token.

        ``auto`` takes the class token if there is one.
        """
        if pooling != "mean" and self.prefix:
            return self.layer(number, prefix=True)[:, 0]
        if pooling == "class":
            raise ValueError("this image tower has no class token")
        return _mean(self.layer(number), self.mask)


def forward_vision(
    model: Any, pixels: Tensor | Sequence[Tensor], hidden_states: bool = False, max_patches: int = 0
) -> ImageOutput:
    """Run the image tower on normalized pixels.

    Args:
        model: an encoder or image tower as ``AutoModel`` loads it.
        pixels: fp32 ``[batch, 3, height, width]``; a sequence of ``[3, height, width]`` for a model that
            keeps aspect ratios (SigLIP 2 NaFlex).
        hidden_states: whether to return the hidden states of all layers.
        max_patches: for such a model, the number of patches its sequences are padded to.
    """
    kind = str(model.config.model_type)
    if kind == "timm_wrapper":
        return _forward_timm(model, _stacked(pixels), hidden_states)
    mask, inputs = None, dict[str, Any]()
    if kind in ("siglip2", "siglip2_vision_model"):
        inputs = _patch_sequences(model, pixels, max_patches)
        mask = inputs["pixel_attention_mask"].bool()
    else:
        inputs["pixel_values"] = _stacked(pixels)
        if kind == "vit_mae":
            inputs["noise"] = _identity_noise(model, inputs["pixel_values"])
    call = getattr(model, "get_image_features", model)
    output = call(**inputs, output_hidden_states=True) if hidden_states else call(**inputs)
    last = _tokens(output.last_hidden_state)
    prefix = 0 if mask is not None else _prefix(model, last, _stacked(pixels))
    pooled = getattr(output, "pooler_output", None)
    # FLAVA projects every token; its feature is the projected class token.
    features = _pool(last, prefix, mask) if pooled is None else pooled[:, 0] if pooled.ndim == 3 else pooled
    states = tuple(_tokens(state) for state in output.hidden_states) if hidden_states else None
    return ImageOutput(features.flatten(1), last, states, prefix, mask)


def register_tower(model_type: str | None) -> None:
    """Make a type of image tower known to ``AutoModel``, where transformers does not know it."""
    if model_type in REGISTERED:
        importlib.import_module("priorkit.models.vision.registered_towers")


def tower_config(config: Any) -> Any:
    """The image tower's part of an encoder's configuration; the configuration itself if it is an image tower's."""
    return getattr(config, "vision_config", None) or getattr(config, "image_config", None) or config


def depth(config: Any) -> int:
    """Number of layers of the image tower of an encoder's configuration; 0 if they are not numbered.

    There is one hidden state more: the embeddings come first.
    """
    tower = tower_config(config)
    repeats = getattr(tower, "num_block_repeats", None)
    if repeats and hasattr(tower, "depth_coefficient"):
        # The number of blocks of ALIGN and EfficientNet; older versions of transformers give four times the
        # repeats as their num_hidden_layers.
        return sum(math.ceil(tower.depth_coefficient * count) for count in repeats)
    return int(getattr(tower, "num_hidden_layers", 0) or 0)


def patch_size(model: Any) -> int:
    """Side of a patch in pixels; 0 for a tower without patches."""
    size = getattr(tower_config(model.config), "patch_size", 0) or 0
    return int(size if isinstance(size, int) else size[0])


def _stacked(pixels: Tensor | Sequence[Tensor]) -> Tensor:
    return pixels if isinstance(pixels, Tensor) else torch.stack(list(pixels))


def _tokens(state: Tensor) -> Tensor:
    """Flatten feature maps ``[batch, width, rows, columns]`` to tokens ``[batch, tokens, width]``."""
    return state.flatten(2).transpose(1, 2) if state.ndim == 4 else state


def _prefix(model: Any, last: Tensor, pixels: Tensor) -> int:
    """Number of tokens in addition to the grid of patches; every family in transformers puts them first."""
    side = patch_size(model)
    if not side or last.ndim != 3:
        return 0
    return max(0, last.shape[1] - (pixels.shape[-2] // side) * (pixels.shape[-1] // side))


def _mean(tokens: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return tokens.mean(1)
    weight = mask.to(tokens.dtype)[..., None]
    return (tokens * weight).sum(1) / weight.sum(1)


def _pool(last: Tensor, prefix: int, mask: Tensor | None) -> Tensor:
    """The feature of a tower without pooling: its class token, or the mean of its patches."""
    return last[:, 0] if prefix else _mean(last, mask)


def _identity_noise(model: Any, pixels: Tensor) -> Tensor:
    """MAE shuffles its patches by this noise; increasing noise and no masking make it a plain ViT."""
    model.config.mask_ratio = 0.0
    side = patch_size(model)
    count = (pixels.shape[-2] // side) * (pixels.shape[-1] // side)
    order = torch.arange(count, dtype=torch.float32, device=pixels.device)
    return order.expand(len(pixels), count)


def _patch_sequences(model: Any, pixels: Tensor | Sequence[Tensor], min_length: int) -> dict[str, Any]:
    """The inputs of SigLIP 2: padded sequences of patches, their mask and the images' shapes in patches."""
    side = patch_size(model)
    rows = [
        image.unfold(1, side, side).unfold(2, side, side).permute(1, 2, 3, 4, 0).reshape(-1, side * side * 3)
        for image in pixels
    ]
    shapes = torch.tensor([(image.shape[1] // side, image.shape[2] // side) for image in pixels])
    length = max(min_length, *(len(patches) for patches in rows))
    device = rows[0].device
    values = torch.stack([torch.nn.functional.pad(row, (0, 0, 0, length - len(row))) for row in rows])
    mask = torch.arange(length, device=device)[None] < shapes.prod(1).to(device)[:, None]
    return {"pixel_values": values, "pixel_attention_mask": mask.int(), "spatial_shapes": shapes.to(device)}


def _forward_timm(model: Any, pixels: Tensor, hidden_states: bool) -> ImageOutput:
    """Call timm's model directly: transformers' wrapper drops the tokens before the patches."""
    inner = model.timm_model
    prefix = int(getattr(inner, "num_prefix_tokens", 0) or 0)
    states = None
    if hidden_states:
        options: dict[str, Any] = {"return_prefix_tokens": True} if prefix else {}
        layout = "NLC" if prefix else "NCHW"
        last, intermediates = inner.forward_intermediates(pixels, output_fmt=layout, **options)
        states = tuple(
            torch.cat([state[1], state[0]], 1) if isinstance(state, tuple) else _tokens(state)
            for state in intermediates
        )
    else:
        last = inner.forward_features(pixels)
    features = inner.forward_head(last, pre_logits=True)
    channels_last = last.ndim == 4 and str(getattr(inner, "output_fmt", "NCHW")).endswith("NHWC")
    tokens = last.flatten(1, 2) if channels_last else _tokens(last)
    return ImageOutput(features.flatten(1), tokens, states, prefix)
