"""Checks of a request before its files are looked at: what it names, options without effect, what it is set against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.options.specs import flag_of, refuse_changed
from priorkit.core.options.templates import check_templates
from priorkit.core.work import Inputs
from priorkit.data.results.evaluation_files import read_document, shared_benchmarks
from priorkit.evaluation.results.rescore import read_entries
from priorkit.evaluation.settings import EvaluateSettings

MODEL_OPTIONS = (
    "blind", "shuffle_images", "circular", "by", "prompt", "choices", "bos_token", "explain", "template",
    "max_new_tokens", "region_layer", "box_format", "backend", "max_image_pixels", "chat_template",
)  # fmt: skip
"""Options that say how a model is asked."""


def check_request(settings: EvaluateSettings, inputs: Inputs) -> None:
    """Check that a model and benchmarks are named, and that the options have an effect.

    Raises:
        UsageError: naming all that is wrong.
    """
    problems = Problems(UsageError)
    if settings.rescore:
        refuse_model_options(settings, "--rescore", problems)
    if "model" not in inputs and not settings.rescore:
        problems.add(
            "MODEL is missing", hint="name a model and benchmarks, or --predictions FILE with --task TASK"
        )
    if not (settings.benchmarks or settings.rescore):
        problems.add("BENCHMARK is missing", hint="name at least one file, folder or artifact")
    check_templates(settings.template, problems, "option")
    if settings.blind and settings.shuffle_images:
        problems.add("images are withheld or shuffled, not both", where="--blind, --shuffle-images")
    problems.raise_if_any()


def refuse_model_options(settings: EvaluateSettings, given: str, problems: Problems) -> None:
    """Refuse options that say how a model is asked where none is."""
    refuse_changed(settings, MODEL_OPTIONS, problems, f"{given} asks no model, so that this has no effect")


def check_paired(settings: EvaluateSettings, inputs: Inputs, names: Sequence[str]) -> None:
    """Look before anything is asked whether there will be something to compare."""
    if settings.base_scores and not settings.blind_scores:
        raise UsageError("only has an effect with --blind-scores", where="--base-scores")
    for label in ("compare", "blind_scores", "base_scores"):
        if given := getattr(settings, label):
            theirs = read_entries(inputs[label].path)
            shared_benchmarks(names, list(theirs), f"{flag_of(type(settings), label)} {given}")
    if settings.blind_scores:
        _check_blind(settings, read_document(inputs["blind_scores"].path).get("model"))


def _check_blind(settings: EvaluateSettings, model: Any) -> None:
    """Refuse an evaluation with images for one without, and a run without images to compare it with."""
    if settings.blind:
        raise UsageError("this evaluation has no images either", where="--blind, --blind-scores")
    if isinstance(model, dict) and not model.get("blind", True):
        raise InputError(
            "this evaluation saw the images",
            where=f"--blind-scores {settings.blind_scores}",
            hint="evaluate the model with --blind",
        )
