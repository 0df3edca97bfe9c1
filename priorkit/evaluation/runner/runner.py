"""A loaded model that answers benchmarks: language model, multimodal model or encoder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from priorkit.core.errors import InputError
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource
from priorkit.evaluation.runner.compatibility import warn_of_misaligned_boxes
from priorkit.evaluation.tasks.base import AnswerMode
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.inference.answer_cache import AnswerCache
from priorkit.inference.backends.settings import BackendName
from priorkit.inference.bos import BosRule

if TYPE_CHECKING:
    from priorkit.core.process.runtime import Runtime
    from priorkit.data.io.rejects import Rejects
    from priorkit.inference.model_info import ModelInfo

logger = logging.getLogger(__name__)

Answered = tuple[list[Item], list[ModelAnswer]]


@dataclass(frozen=True)
class RunnerOptions:
    """How a model is asked; a benchmark's settings take precedence over ``auto``.

    Attributes:
        prompt: chat template or plain text.
        choices: compare letters or texts.
        templates: prompt templates of an option for an encoder.
        batch_size: questions per pass.
        max_new_tokens: most tokens of a written answer; the benchmark's own where None.
        circular: ask choices in all rotations.
        instruction: replaces the usual instruction, with ``{question}``; empty for the usual.
        workers: threads that decode and prepare images.
        bos_token: whether prompts begin with the beginning-of-text token.
        region_layer: hidden state of an encoder whose patches are compared with texts.
        box_request: the sentence that asks for a box; empty for the usual one.
        chat_template: ``--chat-template``, which replaces the model's.
        backend: what runs the model.
        max_image_pixels: larger images are scaled down to this; 0 leaves it to the processor.
    """

    prompt: Literal["auto", "chat", "plain"] = "auto"
    choices: Literal["auto", "letter", "text"] = "auto"
    templates: tuple[str, ...] = ("a photo of a {}",)
    batch_size: int = 32
    max_new_tokens: int | None = None
    circular: bool = False
    instruction: str = ""
    workers: int = 0
    bos_token: BosRule = "auto"
    region_layer: int = -2
    box_request: str = ""
    chat_template: str | None = None
    backend: BackendName = "priorkit"
    max_image_pixels: int = 0


class ModelRunner(Protocol):
    """Puts a benchmark's items to a model."""

    def __call__(
        self,
        items: list[Item],
        source: BenchmarkSource,
        mode: AnswerMode,
        rejects: Rejects,
        answer_cache: AnswerCache,
        /,
    ) -> Answered:
        """The items that could be asked, and their answers; the others go to ``rejects``."""
        ...


def load_runner(checked: ModelInfo, options: RunnerOptions, started: Runtime) -> ModelRunner:
    """Load a model.

    Raises:
        InputError: it cannot be loaded.
    """
    if checked.kind == "encoder":
        return _encoder(checked.folder, options, started)
    from priorkit.evaluation.runner.backends.subjects import BackendOptions, RequestOptions, load_subject
    from priorkit.evaluation.runner.prompts import PromptBuilder, PromptWording

    chosen = BackendOptions(
        options.bos_token,
        options.max_image_pixels,
        options.workers,
        options.batch_size,
        options.chat_template,
    )
    subject = load_subject(checked, options.backend, chosen, started)

    def ask_subject(
        items: list[Item],
        source: BenchmarkSource,
        mode: AnswerMode,
        rejects: Rejects,
        answer_cache: AnswerCache,
        /,
    ) -> Answered:
        preset: Any = source.preset
        kind = options.prompt
        if kind == "auto":
            kind = "chat" if checked.kind == "mllm" or options.chat_template else "plain"
        form = options.choices
        if form == "auto":
            form = preset.prompt.choices if preset is not None else "auto"
        if form == "auto":
            form = "letter" if kind == "chat" else "text"
        wording = PromptWording()
        if preset is not None:
            wording = PromptWording(preset.prompt.chat, preset.prompt.plain, preset.prompt.joiner)
        if options.instruction:
            # Braces of the instruction's own are text; those of a form are not.
            text = options.instruction.replace("{", "{{").replace("}", "}}")
            explained = text.replace("{{question}}", "{question}\n{options}")
            wording = PromptWording(explained, explained + "\n")
        request_options = RequestOptions(
            PromptBuilder(
                subject.tokenizer,
                kind,
                form,
                subject.tags,
                wording,
                subject.image_token,
                options.box_request,
                subject.parts,
            ),
            options.batch_size,
            options.max_new_tokens
            or (preset.scoring.max_new_tokens if preset is not None else None)
            or source.task.max_new_tokens,
            options.circular or (preset is not None and preset.scoring.circular),
        )
        if checked.kind == "mllm" and source.task.boxes:
            warn_of_misaligned_boxes(checked.folder, items, source.name)
        with started.autocast():
            return subject.ask(request_options, items, source.task, mode, rejects, source.name, answer_cache)

    return ask_subject


def _encoder(folder: Path, options: RunnerOptions, started: Runtime) -> ModelRunner:
    from priorkit.evaluation.runner.encoders.zero_shot import compare, load_for_ranking
    from priorkit.evaluation.runner.rejected_items import reject_items

    encoder = load_for_ranking(folder, started.device)

    def ask_encoder(
        items: list[Item],
        source: BenchmarkSource,
        mode: AnswerMode,
        rejects: Rejects,
        answer_cache: AnswerCache,
        /,
    ) -> Answered:
        without = {index: "it has no image" for index, item in enumerate(items) if item.image is None}
        reject_items(items, without, rejects, source.name)
        items = [item for item in items if item.image is not None]
        if not items:
            raise InputError("no item has an image", where=source.name)
        if source.task.patches:
            warn_of_misaligned_boxes(folder, items, source.name)
        with started.autocast():
            answers = compare(
                encoder, items, source.task, options.templates, options.batch_size, source.name, answer_cache,
                options.workers, options.region_layer,
            )  # fmt: skip
        return items, answers

    return ask_encoder
