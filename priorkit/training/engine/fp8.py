"""Matrix products in fp8 with torchao: weights and optimizer stay as they are, the layers' products are cast."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from priorkit.core.errors import ResourceError
from priorkit.core.process.runtime import Runtime
from priorkit.models.blocks import transformer_blocks

MULTIPLE = 16
"""fp8 products need sizes that are multiples of it; other layers stay in bf16."""

LEAST_CAPABILITY = (8, 9)
"""Compute capability of the first GPUs with fp8 products (Ada, Hopper)."""


def use_fp8(decoder: Any, runtime: Runtime) -> int:
    """Let the linear layers of a decoder's blocks multiply in fp8, scaled per tensor; call it before compiling.

    The output head, where rounding costs most, is none of them. Parameters keep their names, shapes and dtypes.

    Args:
        decoder: a language model without its head.
        runtime: its device.

    Returns:
        The number of layers.

    Raises:
        ResourceError: this GPU has no fp8 products, or no layer's sizes fit.
    """
    from torchao.float8 import (  # pyright: ignore[reportMissingImports]
        Float8LinearConfig,
        convert_to_float8_training,
    )

    capability = torch.cuda.get_device_capability(runtime.device)
    if capability < LEAST_CAPABILITY:
        raise ResourceError(
            f"this GPU (compute capability {capability[0]}.{capability[1]}) has no fp8 products",
            where="--fp8",
            hint="leave it out",
        )
    blocks = transformer_blocks(decoder)[1]
    fitting = {id(part) for part in blocks.modules() if isinstance(part, nn.Linear) and _fits(part)}
    if not fitting:
        raise ResourceError(
            f"no layer's sizes are multiples of {MULTIPLE}", where="--fp8", hint="leave it out"
        )
    convert_to_float8_training(
        blocks,
        module_filter_fn=lambda part, _name: id(part) in fitting,
        config=Float8LinearConfig.from_recipe_name("tensorwise"),
    )
    return len(fitting)


def _fits(layer: nn.Linear) -> bool:
    return layer.in_features % MULTIPLE == 0 and layer.out_features % MULTIPLE == 0
