"""Loading the planned labelling model, and where calibration is kept."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from priorkit.core.artifact import write_text
from priorkit.core.process import runtime
from priorkit.inference.loading import load_model_adapter
from priorkit.labelling.base import ModelLabeller
from priorkit.labelling.language_models.generation import GenerationLabeller
from priorkit.labelling.language_models.likelihood import LikelihoodLabeller
from priorkit.labelling.language_models.prompts import GenerationPrompt
from priorkit.labelling.plan import LabelPlan
from priorkit.labelling.settings import LabelCorpusSettings

CALIBRATION = "leaning.json"
"""File in the state folder with the log-odds of yes on content-free inputs, by label."""


def load_language_model(settings: LabelCorpusSettings, plan: LabelPlan, state: Path) -> ModelLabeller:
    """Load the planned model; with ``--calibrate`` calibrate it and keep the result in the state folder.

    Raises:
        InputError: the model cannot be loaded, or the prompt does not fit it.
    """
    started = runtime.start_portable(settings.seed, settings.device, settings.precision)
    if plan.model is None or plan.prompt is None or plan.form is None:
        raise TypeError("no language model was planned")
    # Inference only, so the weights may be as narrow as the compute dtype.
    dtype = torch.bfloat16 if started.precision == "bf16" else torch.float32
    model = load_model_adapter(plan.model, started.device, dtype, settings.workers)
    if isinstance(plan.prompt, GenerationPrompt):
        return GenerationLabeller(model, plan.prompt, plan.form, settings.batch_size, settings.max_new_tokens)
    labeller = LikelihoodLabeller(model, plan.prompt, plan.form, settings.batch_size)
    if settings.calibrate:
        log_odds = dict(zip(labeller.labels, labeller.calibrate().tolist(), strict=True))
        write_text(state / CALIBRATION, json.dumps(log_odds))
    return labeller


def read_calibration(state: Path) -> dict[str, float]:
    """Log-odds of yes on content-free inputs, by label."""
    return json.loads((state / CALIBRATION).read_text(encoding="utf-8"))
