"""Builders of tiny LION models, for the tests of this room."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from priorkit.architectures.lion.build import LionMultimodal, compose
from priorkit.models.language.causal_lm import build_config, build_llm, preset_fields
from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe
from priorkit.models.multimodal.llava import LlavaMultimodal
from priorkit.models.multimodal.llava_assembly import assemble_llava
from priorkit.models.vision.building import build_encoder

TEXTS = [
    "What is shown in the image? A red circle beside a small blue square.",
    "Find the green triangle. Answer with its box [x1,y1,x2,y2]. [0.10,0.25,0.48,0.71]",
    "According to the image, you are allowed to use or partially use the following tags: [red, blue]. ",
]

FIELDS: dict[str, Any] = {
    "branches": ["qformer", "aggregator"],
    "adapters": ["region", "image"],
    "router": True,
    "adapter_width": 4,
    "adapter_input": "residual",
    "queries": 3,
    "qformer": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    },
    "instruction_length": 12,
    "aggregator_layers": [1, 1, 0],
    "aggregator_heads": 2,
    "aggregator_ffn": 20,
    "aggregator_mlp": 28,
    "dropout": 0.1,
    "tags": "soft",
}


def build_base(folder: Path) -> LlavaMultimodal:
    """A LLaVA model of random weights."""
    save_tokenizer(train_bpe(TEXTS * 3, 340), folder)
    tokenizer = load_tokenizer(folder)
    encoder = build_encoder("pocket-tiny", TEXTS, [Image.linear_gradient("L").convert("RGB")], 300, 2)
    fields = {**preset_fields("pocket-tiny"), "initializer_range": 0.3}
    llava = assemble_llava(
        build_llm(build_config(fields, tokenizer), 3), tokenizer, encoder, -2, class_token=False, seed=4
    )
    llava.model.eval()
    return llava


def build_lion(base: LlavaMultimodal, seed: int = 5, **changes: Any) -> LionMultimodal:
    """A fresh LION model on a base."""
    lion = compose(base, {**FIELDS, **changes}, seed)
    lion.model.eval()
    return lion


def randomize_parts(lion: LionMultimodal, seed: int = 0) -> LionMultimodal:
    """Random values in all of LION's parts, so that each has an effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in lion.model.named_parameters():
            if ".lion." in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return lion


def picture(number: int, side: int = 40) -> Image.Image:
    """Random blocks of color."""
    blocks = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(np.kron(blocks, np.ones((side // 5, side // 5, 1), dtype=np.uint8)))


def png(number: int) -> bytes:
    """The same as the bytes of a file."""
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()
