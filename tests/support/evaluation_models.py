"""Builders of tiny models and pictures, for the unit tests and the contract tests of evaluations."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from priorkit.data.images.decoding import ImageRef
from priorkit.inference import generation
from priorkit.inference.likelihood import scoring
from priorkit.inference.likelihood.requests import LikelihoodRequest
from priorkit.inference.prompt_inputs import PromptInputs
from priorkit.models.language.causal_lm import build_config, build_llm, preset_fields
from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe
from priorkit.models.multimodal.llava import LlavaMultimodal
from priorkit.models.multimodal.llava_assembly import assemble_llava
from priorkit.models.vision.building import build_encoder

TEXTS = [
    "What is shown in the image? A red circle beside a small blue square.",
    "Which colour has the triangle? The triangle is green, and the star is yellow.",
    "Is there a black arrow in the picture? Yes, there is one. No, there is none.",
    "Answer with the option's letter from the given choices directly. A. one B. two C. three",
]


def build_tokenizer(folder: Path) -> Any:
    """A byte-level tokenizer with a few merges."""
    save_tokenizer(train_bpe(TEXTS * 3, 340), folder)
    return load_tokenizer(folder)


def build_llava(tokenizer: Any) -> LlavaMultimodal:
    """A LLaVA model of random weights, large enough that answers depend on image and question."""
    encoder = build_encoder("pocket-tiny", TEXTS, [Image.linear_gradient("L").convert("RGB")], 300, 2)
    fields = {**preset_fields("pocket-tiny"), "initializer_range": 0.3}
    multimodal = assemble_llava(
        build_llm(build_config(fields, tokenizer), 3), tokenizer, encoder, -2, class_token=False, seed=4
    )
    with torch.no_grad():
        for parameter in multimodal.model.model.multi_modal_projector.parameters():
            parameter.mul_(20)
    multimodal.model.eval()
    return multimodal


def picture(number: int, side: int = 40) -> bytes:
    """A PNG of random blocks."""
    blocks = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(blocks, np.ones((side // 5, side // 5, 1), dtype=np.uint8))).save(buffer, "PNG")
    return buffer.getvalue()


def score_all(
    subject: Any, requests: Sequence[LikelihoodRequest], images: Sequence[ImageRef | None], batch_size: int
) -> list[tuple[float, ...]]:
    """All requests in their batches, in order."""
    seen = [PromptInputs(() if image is None else (image,)) for image in images]
    found: dict[int, tuple[float, ...]] = {}
    for batch in scoring.batches(subject, requests, seen, batch_size):
        batch_requests = [requests[place] for place in batch]
        scores = scoring.score_batch(
            subject, batch_requests, [seen[request.item] for request in batch_requests]
        )
        found.update(zip(batch, scores, strict=True))
    return [found[place] for place in range(len(requests))]


def generate_all(
    subject: Any,
    prompts: Sequence[Sequence[int]],
    images: Sequence[ImageRef | None],
    batch_size: int,
    **options: Any,
) -> list[list[int]]:
    """All answers, in the order of the prompts."""
    seen = [PromptInputs(() if image is None else (image,)) for image in images]
    found: dict[int, list[int]] = {}
    for batch in generation.batches(prompts, seen, batch_size):
        batch_prompts = [prompts[place] for place in batch]
        found.update(
            zip(
                batch,
                generation.generate_batch(
                    subject, batch_prompts, [seen[place] for place in batch], **options
                ),
                strict=True,
            )
        )
    return [found[place] for place in range(len(prompts))]
