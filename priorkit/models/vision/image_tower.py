"""An encoder's image tower as the stand-alone model that transformers' LLaVA holds.

LLaVA's class builds its tower from a configuration, asks for hidden states ``[images, tokens, width]`` and
can drop the first token. Towers that do not give that on their own are rewritten where this is exact (MAE
and timm's plain vision transformers are ViTs) and refused where it is not.
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
from priorkit.models.vision.preprocessing import Resize, resized
from priorkit.models.vision.towers import tower_config

SEVERAL_TOWERS = "priorkit_several_towers"
"""The model type of several image towers side by side, see :mod:`priorkit.models.vision.tower_concat`."""


@dataclass(frozen=True)
class ImageTower:
    """What goes into a LLaVA model.

    Attributes:
        model: a vision model that ``AutoModel.from_config(config)`` builds.
        config: its configuration.
        image_processor: prepares images at the tower's resolution.
        patches: patches of an image.
        prefix: tokens in front of them: class token, registers.
    """

    model: Any
    config: Any
    image_processor: Any
    patches: int
    prefix: int


def image_tower(
    encoder: Encoder, image_tokens: int | None = None, resize: Resize | None = None
) -> ImageTower:
    """Take an encoder's image tower out of it.

    Args:
        encoder: any encoder that the kit loads.
        image_tokens: patches of an image, a square number; the tower then reads images of another
            resolution, its position embeddings interpolated (bicubic). LLaVA's class has no place for a
            resampler behind the tower, so this is how a fixed number of tokens stays loadable. None for
            the tower's own.
        resize: how images become squares; None for the encoder's own way.

    Raises:
        InputError: the tower gives no hidden states that LLaVA can read.
        UsageError: a number of tokens that is no square, or a tower whose positions cannot be interpolated.
    """
    model, config = _stand_alone(encoder)
    processor = _lasting(encoder.image_processor)
    side = patch_side(config)
    if not side or getattr(processor, "max_num_patches", 0):
        raise InputError(
            f"LLaVA cannot hold an image tower of type '{config.model_type}', which cuts no fixed grid of patches",
            hint="use a vision transformer such as CLIP, SigLIP, DINOv2, MAE or ViT",
        )
    if resize is not None:
        processor = resized(processor, resize, *prepared_size(Encoder(model, processor)))
    if image_tokens is not None:
        model, config = _at_grid(model, config, processor, side, image_tokens)
    height, width = prepared_size(Encoder(model, processor))
    patches = (height // side) * (width // side)
    tokens = _tokens(model, height, width, int(config.hidden_size))
    return ImageTower(model, config, processor, patches, tokens - patches)


def patch_side(config: Any) -> int:
    """Side of a patch in pixels; 0 for a tower that cuts none."""
    side = getattr(config, "patch_size", 0) or 0
    return int(side if isinstance(side, int) else side[0])


def _stand_alone(encoder: Encoder) -> tuple[Any, Any]:
    from transformers import AutoModel

    source, config = encoder.model, tower_config(encoder.model.config)
    if config.model_type == TIMM:
        return _from_timm(encoder)
    if config.model_type == "vit_mae":
        # An MAE encoder without its mask is a ViT, tensor by tensor; its own class shuffles patches.
        config = _vit_config(config)
    elif config is source.config:
        return source, config
    tower = AutoModel.from_config(config)
    state = {name: value for name, value in source.state_dict().items() if "text" not in name.split(".")[0]}
    wanted = {
        name for name in tower.state_dict() if not name.startswith("pooler.") or config.model_type != "vit"
    }
    for prefix in ("", "vision_model."):
        renamed = {
            name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
        }
        if wanted <= set(renamed):
            tower.load_state_dict({name: renamed[name] for name in sorted(wanted)}, strict=False)
            return tower, config
    raise InputError(f"no image tower of type {type(tower).__name__} in {type(source).__name__}")


def _lasting(processor: Any) -> Any:
    """A copy of an image processor; timm's, which ``AutoProcessor`` cannot load, as one of CLIP's kind."""
    data = getattr(processor, "data_config", None)
    if data is None:
        return copy.deepcopy(processor)
    from PIL.Image import Resampling
    from transformers import CLIPImageProcessor

    _, height, width = data["input_size"]
    kinds = {"bilinear": Resampling.BILINEAR, "lanczos": Resampling.LANCZOS, "nearest": Resampling.NEAREST}
    common: dict[str, Any] = {
        "resample": kinds.get(data["interpolation"], Resampling.BICUBIC),
        "image_mean": list(data["mean"]),
        "image_std": list(data["std"]),
    }
    if data.get("crop_mode", "center") != "center":
        return CLIPImageProcessor(size={"height": height, "width": width}, do_center_crop=False, **common)
    edge = math.floor(min(height, width) / float(data.get("crop_pct") or 1))
    return CLIPImageProcessor(
        size={"shortest_edge": edge}, crop_size={"height": height, "width": width}, **common
    )


def _vit_config(config: Any) -> Any:
    from transformers import ViTConfig

    names = (
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps",
        "image_size", "patch_size", "num_channels", "qkv_bias",
    )  # fmt: skip
    return ViTConfig(**{name: getattr(config, name) for name in names})


def _from_timm(encoder: Encoder) -> tuple[Any, Any]:
    """A plain vision transformer of timm as transformers' ViT, proven equal on an image.

    transformers' wrapper of timm models hands out maps without the class token, which LLaVA cannot read.
    """
    from transformers import AutoModel, ViTConfig

    inner = encoder.model.timm_model
    name = type(inner).__name__
    refused = InputError(
        f"LLaVA cannot hold timm's {name} of this shape: only plain vision transformers can be rewritten as ViT",
        hint="use the same model in transformers' own format",
    )
    state = {key: value for key, value in inner.state_dict().items() if not key.startswith("head.")}
    blocks = len(getattr(inner, "blocks", ()))
    if name != "VisionTransformer" or not blocks or "pos_embed" not in state:
        raise refused
    width = int(state["pos_embed"].shape[-1])
    size, patch = inner.patch_embed.img_size, inner.patch_embed.patch_size
    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=inner.blocks[0].attn.num_heads,
        intermediate_size=state["blocks.0.mlp.fc1.weight"].shape[0],
        image_size=int(size[0]),
        patch_size=int(patch[0]),
        qkv_bias="blocks.0.attn.qkv.bias" in state,
        layer_norm_eps=float(inner.blocks[0].norm1.eps),
    )
    tower = AutoModel.from_config(config)
    renamed = {new: value for key, tensor in state.items() for new, value in _as_vit(key, tensor).items()}
    missing = {key for key in set(tower.state_dict()) - set(renamed) if not key.startswith("pooler.")}
    if missing or set(renamed) - set(tower.state_dict()):
        raise refused
    tower.load_state_dict(renamed, strict=False)
    tower.eval()
    height, columns = prepared_size(encoder)
    pixels = torch.linspace(0, 255, 3 * height * columns).view(1, 3, height, columns).to(torch.uint8)
    with torch.no_grad():
        ours = tower(pixel_values=encoder.normalise(pixels)).last_hidden_state
        theirs = inner.forward_features(encoder.normalise(pixels))
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3):
        raise refused
    return tower, config


def _as_vit(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor of timm's vision transformer under transformers' names; the fused projection is cut in three."""
    fixed = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    if name in fixed:
        return {fixed[name]: tensor}
    _, number, rest = name.split(".", 2) if name.startswith("blocks.") else ("", "", name)
    part, _, kind = rest.rpartition(".")
    if part == "attn.qkv":
        return {
            f"layers.{number}.attention.{letter}_proj.{kind}": value
            for letter, value in zip("qkv", tensor.chunk(3), strict=True)
        }
    names = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj"}
    return {f"layers.{number}.{names.get(part, part)}.{kind}": tensor}


def _at_grid(model: Any, config: Any, processor: Any, patch: int, image_tokens: int) -> tuple[Any, Any]:
    """The tower for images of another resolution, and its processor changed in place."""
    from transformers import AutoModel

    grid = math.isqrt(image_tokens)
    if grid * grid != image_tokens:
        raise UsageError(
            f"{image_tokens} is no square number; patches form a square grid",
            where="--image-tokens",
            hint=f"{grid * grid} or {(grid + 1) ** 2}",
        )
    before = prepared_size(Encoder(model, processor))[0]
    size = grid * patch
    _resize(processor, before, size)
    state = model.state_dict()
    config = copy.deepcopy(config)
    if config.model_type.startswith("dinov2"):
        return model, config  # interpolates by itself
    config.image_size = size
    tower = AutoModel.from_config(config)
    wanted = tower.state_dict()
    for name, value in state.items():
        if name in wanted and wanted[name].shape != value.shape:
            if "position" not in name:
                raise UsageError(
                    f"'{config.model_type}' has a tensor {name} that depends on the resolution",
                    where="--image-tokens",
                    hint="leave it out",
                )
            state[name] = _interpolated(value, grid * grid)
    tower.load_state_dict(state, strict=False)
    return tower, config


def _interpolated(positions: Tensor, count: int) -> Tensor:
    """Position embeddings ``[(1,) prefix + patches, width]`` of a square grid, for a grid of ``count``."""
    table = positions.reshape(-1, positions.shape[-1]).float()
    old = math.isqrt(len(table))
    prefix = len(table) - old * old
    grid = table[prefix:].T.reshape(1, -1, old, old)
    side = math.isqrt(count)
    grid = torch.nn.functional.interpolate(
        grid, (side, side), mode="bicubic", align_corners=False, antialias=side < old
    )
    made = torch.cat([table[:prefix], grid.flatten(2)[0].T])
    return made.reshape(*positions.shape[:-2], *made.shape).to(positions.dtype)


def _resize(processor: Any, before: int, size: int) -> None:
    """Let an image processor make images of another size, resized and cropped in the same proportion."""

    def scaled(given: Any) -> Any:
        values = {name: given[name] for name in ("shortest_edge", "height", "width") if given.get(name)}
        return type(given)(**{name: round(value * size / before) for name, value in values.items()})

    for name in ("size", "crop_size"):
        if getattr(processor, name, None):
            setattr(processor, name, scaled(getattr(processor, name)))


def prepared_size(encoder: Encoder) -> tuple[int, int]:
    """Height and width in pixels of the images that an encoder's processor makes."""
    from PIL import Image

    pixels = encoder.prepare(Image.new("RGB", (64, 64)))
    return int(pixels.shape[-2]), int(pixels.shape[-1])


def _tokens(model: Any, height: int, width: int, hidden_size: int) -> int:
    """Tokens in a hidden state, found by looking at a plain image.

    Raises:
        InputError: the tower gives none, or of several shapes.
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
            f"{type(model).__name__} cannot be looked through: {str(error).splitlines()[0]}",
            hint="does its image processor make images of the size that the model takes?",
        ) from None
    shapes = {tuple(state.shape) for state in output.hidden_states or ()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 3 or next(iter(shapes))[2] != hidden_size:
        raise InputError(
            f"LLaVA cannot read {type(model).__name__}: its hidden states are not all [images, tokens, {hidden_size}]",
            hint="use a vision transformer such as CLIP, SigLIP, DINOv2, MAE or ViT",
        )
    return int(next(iter(shapes))[1])


def stand_alone_config(config: Any) -> Any:
    """The configuration that an encoder's image tower has within a LLaVA model."""
    config = tower_config(config)
    return _vit_config(config) if config.model_type == "vit_mae" else config


def put_back(encoder: Encoder, tuned: dict[str, Tensor], config: Any, image_processor: Any) -> None:
    """Give an encoder a tuned image tower; its text tower and projections stay.

    Args:
        encoder: the one that the tower came from; changed.
        tuned: the tower's tensors as LLaVA names them.
        config: the tower's configuration in the LLaVA model.
        image_processor: the LLaVA model's.

    Raises:
        InputError: the tensors are not those of the encoder's image tower.
    """
    own = tower_config(encoder.model.config)
    if own.model_type in (TIMM, "vit_mae"):
        # They were rewritten as ViT to fit LLaVA, and leave it as that.
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
        raise InputError(f"the tuned image tower is not that of {type(encoder.model).__name__}")
    grown = {name: value for name, value in renamed.items() if value.shape != state[name].shape}
    if grown:
        own.image_size = config.image_size
        rebuilt = type(encoder.model)(encoder.model.config)
        rebuilt.load_state_dict({**state, **{name: value.cpu() for name, value in renamed.items()}})
        encoder.model = rebuilt.eval()
    else:
        encoder.model.load_state_dict({**state, **renamed})
    encoder.image_processor = image_processor
