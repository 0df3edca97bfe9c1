"""Options of what runs a model in an evaluation; imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from priorkit.core.options.settings import option
from priorkit.inference.bos import PromptSettings

BackendName = Literal["priorkit", "transformers", "vllm"]
"""What runs a model: priorkit's own loops, transformers' ``generate``, or vLLM's engine."""

BackendChoice = Literal["auto", "priorkit", "transformers", "vllm"]
"""``auto`` takes priorkit's loops where they run the model, else transformers."""


class BackendSettings(PromptSettings):
    """What runs a model, and how its prompts reach it."""

    group: ClassVar[str] = "back end"

    backend: BackendChoice = option(
        "auto",
        "What runs the model: priorkit's own loops, transformers' generate, or vLLM where it is installed; auto: "
        "priorkit for language models, LLaVA, LION and encoders, transformers for any other image-text-to-text model.",
    )
    max_image_pixels: int = option(
        0,
        "Scale images of more pixels down to this before the model's processor gets them; 0 leaves it to the processor.",
        ge=0,
        metavar="N",
        advanced=True,
    )
