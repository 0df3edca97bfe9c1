"""What the results say about the model that answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from priorkit.core.work import Work
from priorkit.evaluation.settings import EvaluateSettings
from priorkit.inference.bos import bos_text

if TYPE_CHECKING:
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
