"""Tiny multimodal models, conversations and pictures for the tests of instruction tuning."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from priorkit.data.conversations.conversation import Conversation, Turn
from priorkit.data.conversations.conversation_store import ConversationMixture, mix_conversations
from priorkit.data.images.decoding import ImageRef
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.language.causal_lm import build_config, build_llm, preset_fields
from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe
from priorkit.models.multimodal.llava import LlavaMultimodal
from priorkit.models.multimodal.llava_assembly import assemble_llava
from priorkit.models.vision.building import build_encoder

TEXTS = [
    "What is shown here? A grey heron stands beside a small blue boat.",
    "Which colour has the sail? The sail is green, and the mast is yellow.",
]


def make_tokenizer(folder: Path) -> Any:
    """A byte-level tokenizer with a few merges."""
    save_tokenizer(train_bpe(TEXTS * 3, 330), folder)
    return load_tokenizer(folder)


def make_encoder() -> Any:
    return build_encoder("pocket-tiny", TEXTS, [Image.linear_gradient("L").convert("RGB")], 300, 2)


def make_llm(tokenizer: Any, **fields: Any) -> Any:
    return build_llm(
        build_config({**preset_fields("pocket-tiny"), "initializer_range": 0.2, **fields}, tokenizer), 3
    )


def make_llava(tokenizer: Any, **options: Any) -> LlavaMultimodal:
    """A LLaVA model of random weights; its attention is the one that trains on CPUs."""
    made = assemble_llava(
        make_llm(tokenizer), tokenizer, make_encoder(), -2, class_token=False, seed=4, **options
    )
    choose_attention(made.model, "cpu")
    return made


def picture(number: int) -> ImageRef:
    blocks = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), dtype=np.uint8))).save(buffer, "PNG")
    return ImageRef(f"{number}.png", content=buffer.getvalue())


def talk(number: int, images: int, words: int, turns: int = 1) -> Conversation:
    """A conversation of random words; all its images are shown in the first question."""
    generator = np.random.default_rng(number)
    vocabulary = " ".join(TEXTS).split()
    said: list[Turn] = []
    for turn in range(turns):
        question = " ".join(generator.choice(vocabulary, words))
        shown = "<image>\n" * (images if turn == 0 else 0)
        said.append(Turn("user", shown + question))
        said.append(Turn("assistant", " ".join(generator.choice(vocabulary, max(1, words // 2)))))
    return Conversation(str(number), tuple(said), tuple(picture(number + 100 * n) for n in range(images)))


def gathered(conversations: Sequence[Conversation], folder: Path) -> ConversationMixture:
    return mix_conversations({"all": conversations}, folder, {}, None, 1.0, 0)
