"""Whether a back end can ask a model as requested."""

from __future__ import annotations

from typing import TYPE_CHECKING

from priorkit.core.errors import InputError, UsageError

if TYPE_CHECKING:
    from priorkit.evaluation.settings import EvaluateSettings
    from priorkit.inference.backends.settings import BackendName
    from priorkit.inference.model_info import ModelInfo


def check_backend(settings: EvaluateSettings, checked: ModelInfo) -> BackendName:
    """What will run a model, and that it can be asked as requested.

    Raises:
        InputError: the back end does not run the model, or the model has no chat template.
        ResourceError: the back end is not installed.
        UsageError: images are bounded for a model that priorkit prepares them for.
    """
    from priorkit.inference.backends.loading import choose_backend, prompts_of

    given = str(settings.model)
    backend = choose_backend(settings.backend, checked, given)
    if backend == "priorkit":
        if settings.max_image_pixels:
            raise UsageError(
                "priorkit resizes images to the encoder's size, so that this has no effect",
                where="--max-image-pixels",
                hint="leave it out, or choose --backend transformers",
            )
        return backend
    chat = settings.prompt == "chat" or (settings.prompt == "auto" and checked.kind == "mllm")
    if chat and not settings.chat_template and not prompts_of(checked)[0].chat_template:
        raise InputError(
            "the model has no chat template",
            where=given,
            hint="ask in plain text with --prompt plain, or name one with --chat-template",
        )
    return backend
