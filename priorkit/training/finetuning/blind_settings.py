"""Options of ``blind-tune``: what replaces the images, and which control or variant is trained instead."""

from __future__ import annotations

from typing import ClassVar, Literal

from priorkit.core.errors import Problems, UsageError
from priorkit.core.options.settings import argument, option
from priorkit.core.options.specs import refuse_changed
from priorkit.training.finetuning.settings import FinetuningSettings, Sources


class BlindTuneSettings(FinetuningSettings):
    """Options of ``priorkit blind-tune``."""

    step: ClassVar[str] = "blind-tune"
    kind: ClassVar[str] = "llm"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit blind-tune llm world/instructions/train.parquet --epochs 1 --out blind-llm",
        "priorkit blind-tune aligned llava_v1_5_mix665k.json --abstain --answerable-gain 0.1 "
        "--learning-rate 2e-5 --out abstaining",
    )

    llm: str = argument(
        "Language model to tune, or a multimodal model whose language model is tuned.",
        accepts=("llm", "mllm"),
        hub="model",
    )
    instructions: Sources = argument(
        "Instructions in LLaVA's format (JSON, JSON Lines, parquet); their images are not read. Several as NAME=PATH.",
        accepts=("world", "instructions"),
        metavar="INSTRUCTIONS",
        hub="dataset",
    )
    placeholder: Literal["drop", "keep", "learned"] = option(
        "drop",
        "What replaces an image: nothing (the paper), the image token as text, or learned embeddings.",
    )
    placeholder_tokens: int = option(
        0,
        "Number of learned embeddings; 0 for as many as an image has tokens (1 in a language model).",
        ge=0,
        advanced=True,
    )
    control: Literal["none", "text", "sighted", "shuffled"] = option(
        "none",
        "Train a compute-matched control instead: only on samples without images, with the images shown, or with the "
        "images of other samples.",
    )
    shuffle_answers: bool = option(False, "Give every conversation the answers of another.")
    answerable_only: bool = option(
        False,
        "Leave out questions about images that do not make their answers more likely without the image.",
        advanced=True,
    )
    abstain: bool = option(
        False,
        "Replace by a refusal the answers to questions that do not make them more likely without the image.",
        advanced=True,
    )
    answerable_gain: float = option(
        0.0,
        "Threshold for the two options above: gain in the answer's log-likelihood by its question, in nats per token.",
        advanced=True,
    )

    @property
    def shows_images(self) -> bool:
        """Whether images are shown, as a control."""
        return self.control in ("sighted", "shuffled")

    @property
    def arm(self) -> str:
        """What is trained, in words, for the plan and the manifest."""
        if self.control != "none":
            return f"control: {self.control}"
        words = [f"placeholder {self.placeholder}"]
        words += ["answers shuffled"] * self.shuffle_answers
        words += ["answerable only"] * self.answerable_only + ["abstaining"] * self.abstain
        return ", ".join(words)


def check_arm(settings: BlindTuneSettings, multimodal: bool) -> None:
    """Check that the options of an arm fit together.

    Args:
        settings: the options.
        multimodal: whether the model to tune takes images.

    Raises:
        UsageError: naming all that do not.
    """
    problems = Problems(UsageError)
    if settings.shows_images and not multimodal:
        problems.add(
            "a language model takes no images",
            where=f"--control {settings.control}",
            hint="give a multimodal model",
        )
    if settings.control != "none":
        variants = ("placeholder", "shuffle_answers", "answerable_only", "abstain")
        refuse_changed(settings, variants, problems, "cannot be combined with --control", "leave it out")
    if settings.answerable_only and settings.abstain:
        problems.add(
            "questions cannot be both left out and refused",
            where="--abstain",
            hint="leave out --answerable-only",
        )
    if settings.placeholder_tokens and settings.placeholder != "learned":
        problems.add("only has an effect with --placeholder learned", where="--placeholder-tokens")
    problems.raise_if_any()
