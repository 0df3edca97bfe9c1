"""What the results say about the model that answered."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorkit.core.process import runtime
from priorkit.core.work import Work
from priorkit.evaluation.settings import EvaluateSettings
from priorkit.inference.bos import bos_text
from priorkit.models.vision.processor_settings import PROCESSOR_FILES

if TYPE_CHECKING:
    from priorkit.inference.backends.settings import BackendName
    from priorkit.inference.model_info import ModelInfo


def describe_model(settings: EvaluateSettings, work: Work[Any], checked: ModelInfo) -> dict[str, Any]:
    """Its path, kind, digest and base, the beginning-of-text token, and which images it saw."""
    given = work.inputs["model"]
    about: dict[str, Any] = {"path": given.given, "kind": given.kind, "digest": given.digest()}
    if checked.base is not None:
        about["base"] = {"path": checked.base.given, "digest": checked.base.digest()}
    if checked.kind != "encoder":
        about["bos_token"] = bos_text(checked.folder, settings.bos_token)
    about["blind"] = settings.blind
    if settings.shuffle_images:
        about["shuffled_images"] = True
    return about


def describe_request(settings: EvaluateSettings, checked: ModelInfo, backend: BackendName) -> dict[str, Any]:
    """How the model was asked, as far as it changes answers: two evaluations that differ in it may differ in numbers.

    The template and the images' preparation are given as digests of the files that say them.
    """
    device = runtime.choose_device(settings.device)
    asked: dict[str, Any] = {
        "backend": backend,
        "precision": runtime.resolve_precision(settings.precision, device),
        "parser": settings.parser,
        "reading": settings.reading,
    }
    if checked.kind != "encoder":
        chat = settings.prompt == "chat" or (settings.prompt == "auto" and checked.kind == "mllm")
        asked |= {
            "prompt": "chat" if chat else "plain",
            "template": (settings.chat_template or _digest(checked.folder, TEMPLATE_FILES)) if chat else None,
            "max_new_tokens": settings.max_new_tokens,
        }
    if checked.kind != "llm":
        asked["images"] = _digest(checked.folder, PROCESSOR_FILES)
        asked["max_image_pixels"] = settings.max_image_pixels or None
    return asked


TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
"""Files that hold a chat template; the first that there is counts."""


def _digest(folder: Path, names: Sequence[str]) -> str | None:
    """The digest of the first of several files that a folder has."""
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    return hashlib.sha256(found.read_bytes()).hexdigest()[:16] if found is not None else None
