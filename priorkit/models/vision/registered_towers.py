"""Image towers that transformers' ``AutoModel`` does not build: BLIP-2's, and timm's vision transformers.

Importing this module registers them, which models with such a tower need: BLIP-2's vision model (EVA-ViT-g of BLIP-2
and InstructBLIP) under its own type, timm's as ``priorkit_timm_tower``. A model with one of them loads only where
priorkit is installed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    Blip2VisionConfig,
    Blip2VisionModel,
    InstructBlipVisionConfig,
    InstructBlipVisionModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from priorkit.core.errors import InputError
from priorkit.models.vision.encoder import Encoder
from priorkit.models.vision.towers import TIMM_TOWER


class TimmTowerConfig(PreTrainedConfig):
    """Configuration of :class:`TimmTower`.

    Attributes:
        architecture: timm's name of the model.
        model_args: further arguments of ``timm.create_model``.
        hidden_size, num_hidden_layers, patch_size, image_size: of the model.
    """

    model_type = TIMM_TOWER

    architecture: str = ""
    model_args: Any = None
    hidden_size: int = 0
    num_hidden_layers: int = 0
    patch_size: int = 16
    image_size: int = 224
    num_channels: int = 3


class TimmTower(PreTrainedModel):
    """A vision transformer of timm that returns the tokens of every block, class token and registers first.

    transformers' own wrapper drops these tokens. Hidden states are the raw outputs of the blocks, without the final
    norm; the first one is the first block's input.
    """

    config_class = TimmTowerConfig
    main_input_name = "pixel_values"
    input_modalities = "image"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: TimmTowerConfig) -> None:
        super().__init__(config)
        import timm

        self.timm_model = timm.create_model(
            config.architecture, pretrained=False, num_classes=0, **(config.model_args or {})
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        """Fill the buffers that are not stored: rotary tables, zero biases of keys. All else is loaded."""
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()

    def forward(self, pixel_values: Tensor, output_hidden_states: bool = True, **_: Any) -> Any:
        """Hidden states ``[images, tokens, width]`` and the pooled feature ``[images, width]``.

        Args:
            pixel_values: normalized, ``[images, 3, height, width]``.
            output_hidden_states: of no effect: they are always returned.
        """
        inner: Any = self.timm_model
        entered: list[Tensor] = []
        hook = inner.blocks[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        try:
            options: dict[str, Any] = {"return_prefix_tokens": True} if inner.num_prefix_tokens else {}
            final, blocks = inner.forward_intermediates(pixel_values, norm=False, output_fmt="NLC", **options)
        finally:
            hook.remove()
        states = [
            torch.cat([block[1], block[0]], 1) if isinstance(block, tuple) else block for block in blocks
        ]
        return BaseModelOutputWithPooling(
            last_hidden_state=final,
            pooler_output=inner.forward_head(final, pre_logits=True),
            hidden_states=(entered[0], *states),  # pyright: ignore[reportArgumentType]
        )


def timm_tower(encoder: Encoder) -> tuple[TimmTower, TimmTowerConfig]:
    """A timm encoder's vision transformer as an image tower.

    Raises:
        InputError: it is no vision transformer whose blocks can be read.
    """
    source, inner = encoder.model.config, encoder.model.timm_model
    needed = ("blocks", "forward_intermediates", "num_prefix_tokens", "patch_embed", "embed_dim")
    if not all(hasattr(inner, name) for name in needed) or not isinstance(inner.embed_dim, int):
        raise InputError(
            f"LLaVA cannot use timm's {type(inner).__name__}: it has no sequence of tokens",
            hint="use a vision transformer such as CLIP, SigLIP, DINOv2, EVA or ViT",
        )
    height, _ = encoder.prepared_size()
    config = TimmTowerConfig(
        architecture=source.architecture,
        model_args=dict(getattr(source, "model_args", None) or {}),
        hidden_size=inner.embed_dim,
        num_hidden_layers=len(inner.blocks),
        patch_size=int(inner.patch_embed.patch_size[0]),
        image_size=height,
    )
    tower = TimmTower(config)
    tower.timm_model.load_state_dict(
        {name: value for name, value in inner.state_dict().items() if not name.startswith("head.")},
        strict=False,
    )
    tower.eval()
    return tower, config


AutoConfig.register(TIMM_TOWER, TimmTowerConfig, exist_ok=True)
AutoModel.register(TimmTowerConfig, TimmTower, exist_ok=True)
AutoModel.register(Blip2VisionConfig, Blip2VisionModel, exist_ok=True)
AutoModel.register(InstructBlipVisionConfig, InstructBlipVisionModel, exist_ok=True)
