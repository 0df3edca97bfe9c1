"""Image towers: one call for CLIP, SigLIP, ViT, DINOv2, MAE, convolutional nets and timm's models.

An image tower turns pixels into hidden states, layer by layer, and one feature per image. Families differ
in how they are called, in what stands before the patches (class token, registers) and in whether they
pool; the differences are here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Pooling = Literal["auto", "class", "mean"]
"""One feature of many tokens: the model's own, the class token, or the mean of the patches."""


@dataclass(frozen=True)
class ImageOutput:
    """What an image tower says of a batch.

    Attributes:
        features: ``[batch, dim]``; projected where the encoder has a projection, not normalised.
        last: final hidden state ``[batch, tokens, width]``, after the tower's last norm where it has one.
        hidden: hidden states ``[batch, tokens, width]`` as transformers numbers them: the embeddings first,
            then one per layer; timm's models have no embeddings there. None where they were not asked for.
        prefix: how many tokens (class token, registers) stand before the patches.
        mask: bool ``[batch, patches]``, False where a sequence is padded; None where none is.
    """

    features: Tensor
    last: Tensor
    hidden: tuple[Tensor, ...] | None
    prefix: int
    mask: Tensor | None = None

    def layer(self, number: int, prefix: bool = False) -> Tensor:
        """A hidden state by its number (-2 is LLaVA's), its patches alone unless ``prefix``.

        Returns:
            ``[batch, patches, width]``, with ``prefix`` ``[batch, tokens, width]``.
        """
        if self.hidden is None:
            raise ValueError("the hidden states were not asked for")
        state = self.hidden[number]
        return state if prefix else state[:, self.prefix :]

    def pooled(self, number: int, pooling: Pooling) -> Tensor:
        """One vector ``[batch, width]`` of a hidden state: the mean of its patches or its class token.

        ``auto`` takes the class token where there is one.
        """
        if pooling != "mean" and self.prefix:
            return self.layer(number, prefix=True)[:, 0]
        if pooling == "class":
            raise ValueError("this image tower has no class token")
        return _mean(self.layer(number), self.mask)


def look(model: Any, pixels: Tensor | Sequence[Tensor], hidden: bool = False, patch: int = 0) -> ImageOutput:
    """Put normalised pixels through an image tower.

    Args:
        model: an encoder or stand-alone image tower as ``AutoModel`` loads it.
        pixels: fp32 ``[batch, 3, height, width]``; a sequence of ``[3, height, width]`` for a model that
            keeps the images' shapes.
        hidden: whether to return all hidden states.
        patch: for such a model, the number of patches its sequences are padded to.
    """
    kind = str(model.config.model_type)
    if kind == "timm_wrapper":
        return _look_timm(model, _one(pixels), hidden)
    mask, inputs = None, dict[str, Any]()
    if kind in ("siglip2", "siglip2_vision_model"):
        inputs = _patches(model, pixels, patch)
        mask = inputs["pixel_attention_mask"].bool()
    else:
        inputs["pixel_values"] = _one(pixels)
        if kind == "vit_mae":
            inputs["noise"] = _in_order(model, inputs["pixel_values"])
    call = getattr(model, "get_image_features", model)
    output = call(**inputs, output_hidden_states=True) if hidden else call(**inputs)
    last = _tokens(output.last_hidden_state)
    prefix = 0 if mask is not None else _prefix(model, last, _one(pixels))
    pooled = getattr(output, "pooler_output", None)
    # FLAVA projects every token; its feature is the projected class token.
    features = _pool(last, prefix, mask) if pooled is None else pooled[:, 0] if pooled.ndim == 3 else pooled
    states = tuple(_tokens(state) for state in output.hidden_states) if hidden else None
    return ImageOutput(features.flatten(1), last, states, prefix, mask)


def tower_config(config: Any) -> Any:
    """The configuration of the image tower within that of an encoder; itself where it is one."""
    return next(
        (found for name in ("vision_config", "image_config") if (found := getattr(config, name, None))),
        config,
    )


def depth(config: Any) -> int:
    """Layers of the image tower of an encoder's configuration; 0 where they are not numbered.

    Its hidden states are one more: the embeddings come first.
    """
    tower = tower_config(config)
    repeats = getattr(tower, "num_block_repeats", None)
    if repeats and hasattr(tower, "depth_coefficient"):
        # ALIGN's and EfficientNet's blocks; what transformers calls their number of layers was four times
        # the repeats before it was the number of blocks.
        return sum(math.ceil(tower.depth_coefficient * count) for count in repeats)
    return int(getattr(tower, "num_hidden_layers", 0) or 0)


def patch_size(model: Any) -> int:
    """Side of a patch in pixels; 0 for a tower that has none."""
    size = getattr(tower_config(model.config), "patch_size", 0) or 0
    return int(size if isinstance(size, int) else size[0])


def _one(pixels: Tensor | Sequence[Tensor]) -> Tensor:
    return pixels if isinstance(pixels, Tensor) else torch.stack(list(pixels))


def _tokens(state: Tensor) -> Tensor:
    """Maps ``[batch, width, rows, columns]`` of convolutional nets as tokens ``[batch, tokens, width]``."""
    return state.flatten(2).transpose(1, 2) if state.ndim == 4 else state


def _prefix(model: Any, last: Tensor, pixels: Tensor) -> int:
    """Tokens beyond the grid of patches; they stand in front in every family that transformers has."""
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
    """The feature of a tower that does not pool: its class token, or the mean of its patches."""
    return last[:, 0] if prefix else _mean(last, mask)


def _in_order(model: Any, pixels: Tensor) -> Tensor:
    """MAE shuffles its patches by this noise; in order, and with nothing masked, it is a plain ViT."""
    model.config.mask_ratio = 0.0
    side = patch_size(model)
    count = (pixels.shape[-2] // side) * (pixels.shape[-1] // side)
    order = torch.arange(count, dtype=torch.float32, device=pixels.device)
    return order.expand(len(pixels), count)


def _patches(model: Any, pixels: Tensor | Sequence[Tensor], most: int) -> dict[str, Any]:
    """Images as padded sequences of patches, as SigLIP 2 reads them."""
    side = patch_size(model)
    rows = [
        image.unfold(1, side, side).unfold(2, side, side).permute(1, 2, 3, 4, 0).reshape(-1, side * side * 3)
        for image in pixels
    ]
    shapes = torch.tensor([(image.shape[1] // side, image.shape[2] // side) for image in pixels])
    most = max(most, *(len(patches) for patches in rows))
    device = rows[0].device
    values = torch.stack([torch.nn.functional.pad(row, (0, 0, 0, most - len(row))) for row in rows])
    mask = torch.arange(most, device=device)[None] < shapes.prod(1).to(device)[:, None]
    return {"pixel_values": values, "pixel_attention_mask": mask.int(), "spatial_shapes": shapes.to(device)}


def _look_timm(model: Any, pixels: Tensor, hidden: bool) -> ImageOutput:
    """timm's models through their own calls: transformers' wrapper drops the tokens before the patches."""
    inner = model.timm_model
    prefix = int(getattr(inner, "num_prefix_tokens", 0) or 0)
    states = None
    if hidden:
        options: dict[str, Any] = {"return_prefix_tokens": True} if prefix else {}
        form = "NLC" if prefix else "NCHW"
        last, found = inner.forward_intermediates(pixels, output_fmt=form, **options)
        states = tuple(
            torch.cat([state[1], state[0]], 1) if isinstance(state, tuple) else _tokens(state)
            for state in found
        )
    else:
        last = inner.forward_features(pixels)
    features = inner.forward_head(last, pre_logits=True)
    channels_last = last.ndim == 4 and str(getattr(inner, "output_fmt", "NCHW")).endswith("NHWC")
    tokens = last.flatten(1, 2) if channels_last else _tokens(last)
    return ImageOutput(features.flatten(1), tokens, states, prefix)
