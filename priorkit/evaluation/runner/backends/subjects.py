"""A loaded language model or multimodal model: how its prompts are written, and what puts them to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from priorkit.core.process.runtime import Runtime
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.runner.asking import RequestOptions
from priorkit.evaluation.runner.backends.requests import run_backend
from priorkit.evaluation.runner.request_runner import run_requests
from priorkit.evaluation.tasks.base import AnswerMode, Task
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.inference.answer_cache import AnswerCache
from priorkit.inference.backends.loading import BackendOptions, load_backend
from priorkit.inference.backends.settings import BackendName
from priorkit.inference.loading import load_model_adapter
from priorkit.inference.model_info import ModelInfo

Answered = tuple[list[Item], list[ModelAnswer]]
Ask = Callable[[RequestOptions, list[Item], Task, AnswerMode, Rejects, str, AnswerCache], Answered]


@dataclass(frozen=True)
class Subject:
    """A loaded model.

    Attributes:
        tokenizer: gives the chat template.
        image_token: what a prompt has for an image.
        tags: what becomes of an item's tags.
        parts: whether the chat template gets lists of text and images in any case.
        ask: puts items to it.
    """

    tokenizer: Any
    image_token: str
    tags: str
    parts: bool
    ask: Ask


def load_subject(
    checked: ModelInfo, backend: BackendName, options: BackendOptions, started: Runtime
) -> Subject:
    """Load a model.

    Raises:
        InputError: it cannot be loaded.
    """
    if backend != "priorkit":
        loaded = load_backend(backend, checked, started, options)
        multimodal = checked.kind == "mllm"
        return Subject(loaded.tokenizer, loaded.image_token, "off", multimodal, partial(run_backend, loaded))
    subject = load_model_adapter(
        checked, started.device, workers=options.workers, template=options.chat_template
    )
    subject.bos_token = options.bos_token

    def ask(
        request_options: RequestOptions,
        items: list[Item],
        task: Task,
        mode: AnswerMode,
        rejects: Rejects,
        name: str,
        answer_cache: AnswerCache,
    ) -> Answered:
        answered = run_requests(subject, request_options, items, task, mode, rejects, name, answer_cache)
        subject.forget()
        return answered

    return Subject(subject.tokenizer, subject.image_token, subject.capabilities.tags, False, ask)
