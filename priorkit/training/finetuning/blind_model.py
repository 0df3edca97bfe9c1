"""The model of blind tuning: a language model, or the language model of a multimodal one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorkit.core.process.runtime import Runtime
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.language.causal_lm import load_llm
from priorkit.models.language.tokenizer import IMAGE, load_tokenizer
from priorkit.models.multimodal.base import TrainableModel
from priorkit.models.multimodal.llava import LlavaMultimodal, load_llava
from priorkit.models.multimodal.llava_assembly import ensure_image_token
from priorkit.models.multimodal.text_only import TextOnlyModel


@dataclass(frozen=True)
class BlindModel:
    """A model to be tuned blind.

    Attributes:
        subject: a multimodal model, of which the language model is trained, or a language model.
        tokenizer: its tokenizer.
        image_token: the token of an image.
        image_tokens: positions of an image; 1 in a language model.
        max_length: the longest sequence it takes.
        grown: number of rows added to the embeddings for the image token.
    """

    subject: TrainableModel
    tokenizer: Any
    image_token: str
    image_tokens: int
    max_length: int
    grown: int = 0

    def save(self, folder: Path) -> None:
        """Save the model with its tokenizer or processor."""
        if isinstance(self.subject, LlavaMultimodal):
            self.subject.save(folder)
        else:
            self.subject.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


def load_blind_model(
    folder: Path, multimodal: bool, image_token: bool, runtime: Runtime, template: str | None = None
) -> BlindModel:
    """Load a model onto the device, with all but its language model frozen.

    Args:
        folder: the model's.
        multimodal: whether it takes images.
        image_token: whether a language model gets an image token if it has none.
        runtime: device and precision.
        template: ``--chat-template``, which replaces the model's.
    """
    if multimodal:
        llava = load_llava(folder, template)
        for name, parameter in llava.model.named_parameters():
            parameter.requires_grad_(llava.parameter_part(name) == "llm")
        blind = BlindModel(llava, llava.tokenizer, llava.image_token, llava.image_tokens, llava.max_length)
    else:
        llm, tokenizer = load_llm(folder), load_tokenizer(folder, template)
        grown = ensure_image_token(llm, tokenizer) if image_token else 0
        longest = int(getattr(llm.config, "max_position_embeddings", None) or 2048)
        subject = TextOnlyModel(llm, tokenizer.get_vocab().get(IMAGE))
        blind = BlindModel(subject, tokenizer, IMAGE, 1, longest, grown)
    blind.subject.model.to(runtime.device)
    choose_attention(blind.subject.model, runtime.device.type, runtime.precision)
    return blind
