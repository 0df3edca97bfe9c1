"""Compiled blocks compute what plain ones do, and are plain again afterwards."""

from __future__ import annotations

import copy
import shutil
from contextlib import nullcontext

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from priorkit.models.kernels.pooled_token import pooled_token_only
from priorkit.training.engine.compilation import compiled_blocks

SIDE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler"
)
def test_compiled_blocks_give_the_features_and_gradients_of_plain_ones() -> None:
    torch.manual_seed(0)
    config = CLIPConfig(
        vision_config={**SIDE, "image_size": 16, "patch_size": 8},
        text_config={**SIDE, "vocab_size": 50, "max_position_embeddings": 8, "eos_token_id": 49},
        projection_dim=16,
    )
    model = CLIPModel(config)
    ids = torch.tensor([[1, 2, 3, 49], [4, 49, 0, 0]])
    pixels = torch.randn(2, 3, 16, 16)
    found: list[list[torch.Tensor]] = []
    for compiles in (False, True):
        compiled = copy.deepcopy(model)
        with pooled_token_only(compiled), compiled_blocks(compiled) if compiles else nullcontext():
            blocks = [
                block
                for tower in (compiled.vision_model, compiled.text_model)
                for block in tower.encoder.layers
            ]
            # The last block of each tower computes only its pooled token, in a separate forward pass.
            wanted = 4 if compiles else 0
            assert sum(block._compiled_call_impl is not None for block in blocks) == wanted
            output = compiled(input_ids=ids, pixel_values=pixels)
            output.logits_per_image.square().sum().backward()
        assert all(block._compiled_call_impl is None for block in blocks)
        found.append([output.logits_per_image, *(parameter.grad for parameter in compiled.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=3e-5)
