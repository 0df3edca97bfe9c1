"""An encoder's image tower as a separate model, as transformers' LLaVA requires it, and back.

LLaVA's class builds its tower from a configuration, reads hidden states ``[images, tokens, width]`` and
can drop the first token. Other towers are rewritten if the result is exact (MAE and timm's plain vision
transformers become ViTs) and refused if not.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from priorkit.core.errors import InputError, UsageError
from priorkit.models.vision.encoder import Encoder
from priorkit.models.vision.loading import TIMM
from priorkit.models.vision.preprocessing import Resize, with_resize
from priorkit.models.vision.timm_conversion import savable_processor, vit_from_timm
from priorkit.models.vision.towers import register_tower, tower_config

TOWER_CONCAT = "priorkit_several_towers"
"""The ``model_type`` of a tower concat, see :mod:`priorkit.models.vision.tower_concat`; artifacts store it."""


@dataclass(frozen=True)
class ImageTower:
    """The image part of a LLaVA model.

    Attributes:
        model: a vision model that ``AutoModel.from_config(config)`` builds.
        config: its configuration.
        image_processor: prepares images at the tower's resolution.
        patches: number of patches of an image.
        prefix: number of tokens before them: class token, registers.
    """

    model: Any
    config: Any
    image_processor: Any
    patches: int
    prefix: int


def extract_image_tower(
    encoder: Encoder, image_tokens: int | None = None, resize: Resize | None = None
) -> ImageTower:
    """An encoder's image tower as a model without the text tower.

    Args:
        encoder: any encoder from :func:`priorkit.models.vision.loading.load_encoder`.
        image_tokens: number of patches of an image, a square number; position embeddings are interpolated
            (bicubic) to the resolution that gives it. LLaVA's class has no resampler after the tower, so
            this is how a chosen number of tokens stays loadable. None for the tower's number.
        resize: how images become square; None for the encoder's way.

    Raises:
        InputError: LLaVA cannot read the tower's hidden states.
        UsageError: the number of tokens is not square, or position embeddings cannot be interpolated.
    """
    model, config = _separate_model(encoder)
    processor = savable_processor(encoder.image_processor)
    side = patch_side(config)
    if not side or getattr(processor, "max_num_patches", 0):
        raise InputError(
            f"LLaVA cannot use an image tower of type '{config.model_type}': it has no fixed grid of patches",
            hint="use a vision transformer such as CLIP, SigLIP, DINOv2, MAE or ViT",
        )
    if resize is not None:
        processor = with_resize(processor, resize, *Encoder(model, processor).prepared_size())
    if image_tokens is not None:
        model, config = _with_image_tokens(model, config, processor, side, image_tokens)
    height, width = Encoder(model, processor).prepared_size()
    patches = (height // side) * (width // side)
    tokens = _token_count(model, height, width, int(config.hidden_size))
    return ImageTower(model, config, processor, patches, tokens - patches)


def patch_side(config: Any) -> int:
    """Side of a patch in pixels; 0 for a tower without patches."""
    side = getattr(config, "patch_size", 0) or 0
    return int(side if isinstance(side, int) else side[0])


def _separate_model(encoder: Encoder) -> tuple[Any, Any]:
    """The image tower's model and configuration; of timm's those that are no plain ViT stay timm's."""
    from transformers import AutoModel

    source, config = encoder.model, tower_config(encoder.model.config)
    register_tower(config.model_type)
    if config.model_type == TIMM:
        try:
            return vit_from_timm(encoder)
        except InputError:
            from priorkit.models.vision.registered_towers import timm_tower

            return timm_tower(encoder)
    if config.model_type == "vit_mae":
        # An MAE encoder without masking is a ViT, tensor by tensor; MAE's class shuffles the patches.
        config = _vit_config(config)
    elif config is source.config:
        return source, config
    tower = AutoModel.from_config(config)
    state = {name: value for name, value in source.state_dict().items() if "text" not in name.split(".")[0]}
    required = {
        name for name in tower.state_dict() if not name.startswith("pooler.") or config.model_type != "vit"
    }
    for prefix in ("", "vision_model."):
        renamed = {
            name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
        }
        if required <= set(renamed):
            tower.load_state_dict({name: renamed[name] for name in sorted(required)}, strict=False)
            return tower, config
    raise InputError(f"no image tower of type {type(tower).__name__} in {type(source).__name__}")


def _vit_config(config: Any) -> Any:
    from transformers import ViTConfig

    names = (
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps",
        "image_size", "patch_size", "num_channels", "qkv_bias",
    )  # fmt: skip
    return ViTConfig(**{name: getattr(config, name) for name in names})


def _with_image_tokens(
    model: Any, config: Any, processor: Any, patch: int, image_tokens: int
) -> tuple[Any, Any]:
    """The tower and configuration for another resolution; the processor is changed in place."""
    from transformers import AutoModel

    grid = math.isqrt(image_tokens)
    if grid * grid != image_tokens:
        raise UsageError(
            f"{image_tokens} is not a square number; patches form a square grid",
            where="--image-tokens",
            hint=f"{grid * grid} or {(grid + 1) ** 2}",
        )
    before = Encoder(model, processor).prepared_size()[0]
    size = grid * patch
    _resize(processor, before, size)
    state = model.state_dict()
    config = copy.deepcopy(config)
    if config.model_type.startswith("dinov2"):
        return model, config  # DINOv2 interpolates in its forward pass
    config.image_size = size
    tower = AutoModel.from_config(config)
    resized = tower.state_dict()
    for name, value in state.items():
        if name in resized and resized[name].shape != value.shape:
            if "position" not in name:
                raise UsageError(
                    f"the tensor {name} of '{config.model_type}' depends on the resolution",
                    where="--image-tokens",
                    hint="leave it out",
                )
            state[name] = _interpolated(value, grid * grid)
    tower.load_state_dict(state, strict=False)
    return tower, config


def _interpolated(positions: Tensor, count: int) -> Tensor:
    """Position embeddings ``[(1,) prefix + patches, width]`` interpolated to a square grid of ``count`` patches."""
    table = positions.reshape(-1, positions.shape[-1]).float()
    old = math.isqrt(len(table))
    prefix = len(table) - old * old
    grid = table[prefix:].T.reshape(1, -1, old, old)
    side = math.isqrt(count)
    grid = torch.nn.functional.interpolate(
        grid, (side, side), mode="bicubic", align_corners=False, antialias=side < old
    )
    table = torch.cat([table[:prefix], grid.flatten(2)[0].T])
    return table.reshape(*positions.shape[:-2], *table.shape).to(positions.dtype)


def _resize(processor: Any, before: int, size: int) -> None:
    """Change an image processor's output size; resizing and cropping keep their proportion."""

    def scaled(sides: Any) -> Any:
        values = {name: sides[name] for name in ("shortest_edge", "height", "width") if sides.get(name)}
        return type(sides)(**{name: round(value * size / before) for name, value in values.items()})

    for name in ("size", "crop_size"):
        if getattr(processor, name, None):
            setattr(processor, name, scaled(getattr(processor, name)))


def _token_count(model: Any, height: int, width: int, hidden_size: int) -> int:
    """Number of tokens in a hidden state, measured on a plain image.

    Raises:
        InputError: the tower returns no hidden states, or they differ in shape.
    """
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            output = model(
                pixel_values=torch.zeros(1, 3, height, width, device=device),
                output_hidden_states=True,
                return_dict=True,
            )
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the forward pass of {type(model).__name__} fails: {str(error).splitlines()[0]}",
            hint="check that the image processor's size is the model's image size",
        ) from None
    shapes = list({tuple(state.shape) for state in output.hidden_states or ()})
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][2] != hidden_size:
        raise InputError(
            f"LLaVA cannot read {type(model).__name__}: its hidden states are not all [images, tokens, {hidden_size}]",
            hint="use a vision transformer such as CLIP, SigLIP, DINOv2, MAE or ViT",
        )
    return int(shapes[0][1])


def image_tower_config(config: Any) -> Any:
    """The configuration of an encoder's image tower in a LLaVA model."""
    config = tower_config(config)
    return _vit_config(config) if config.model_type == "vit_mae" else config


def replace_image_tower(
    encoder: Encoder, tuned: dict[str, Tensor], config: Any, image_processor: Any
) -> None:
    """Replace an encoder's image tower by a tuned one; the text tower and projections stay.

    Args:
        encoder: the encoder that the tower was extracted from; changed in place.
        tuned: the tower's tensors under LLaVA's names.
        config: the tower's configuration in the LLaVA model.
        image_processor: of the LLaVA model.

    Raises:
        InputError: the tensors are not those of the encoder's image tower.
    """
    old_config = tower_config(encoder.model.config)
    if old_config.model_type in (TIMM, "vit_mae"):
        # They were converted to ViT for LLaVA and stay ViT.
        from transformers import AutoModel

        encoder.model = AutoModel.from_config(config)
        encoder.model.load_state_dict(tuned)
        encoder.image_processor = image_processor
        return
    state = encoder.model.state_dict()
    for prefix in ("", "vision_model."):
        renamed = {prefix + name: value for name, value in tuned.items()}
        if set(renamed) <= set(state):
            break
    else:
        raise InputError(f"the tuned image tower does not fit {type(encoder.model).__name__}")
    if any(value.shape != state[name].shape for name, value in renamed.items()):
        old_config.image_size = config.image_size
        rebuilt = type(encoder.model)(encoder.model.config)
        rebuilt.load_state_dict({**state, **{name: value.cpu() for name, value in renamed.items()}})
        encoder.model = rebuilt.eval()
    else:
        encoder.model.load_state_dict({**state, **renamed})
    encoder.image_processor = image_processor
