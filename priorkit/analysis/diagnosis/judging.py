"""From evidence to verdicts, remedies and, where causes are known, how right the verdicts are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.analysis.diagnosis.evidence import Evidence
from priorkit.analysis.diagnosis.plan import DiagnosisPlan, named_controls
from priorkit.analysis.diagnosis.remedies import read_gains, write_remedies
from priorkit.analysis.diagnosis.settings import DiagnoseSettings
from priorkit.analysis.diagnosis.validation import read_causes, validate
from priorkit.analysis.diagnosis.verdict_model import VerdictModel, fitted_verdicts, missing_measures
from priorkit.analysis.diagnosis.verdicts import Verdicts, fewest_controls, find_controls, ordered_verdicts
from priorkit.core.errors import InputError
from priorkit.core.work import Work

logger = logging.getLogger(__name__)


def judge(
    settings: DiagnoseSettings, work: Work[DiagnosisPlan], evidence: Evidence
) -> tuple[Verdicts, NDArray[np.bool_], dict[str, Any]]:
    """The verdicts, the controls, and what the results say of how they were reached.

    Raises:
        InputError: a fitted model lacks evidence or controls.
    """
    named: Sequence[str] = ()
    if item := work.inputs.optional("control"):
        named = named_controls(item.path, evidence.entities, settings.control or "")
    controls = find_controls(evidence, named, settings.rule)
    about: dict[str, Any] = {
        "control_entities": int(controls.sum()),
        "guessing": 1 / (1 + min(settings.distractors, len(evidence.entities) - 1)),
        "works_from": settings.works_from,
    }
    model = work.plan.payload.verdict_model
    if model is not None:
        _check_fitted(settings, model, evidence, controls)
        about |= {"verdicts_by": "fitted model", "calibrated": True, "verdict_model": dict(model.recipe)}
        return fitted_verdicts(model, evidence, controls, settings.rule), controls, about
    fewest = fewest_controls(evidence, settings.rule)
    about |= {
        "verdicts_by": "ordered tests",
        "calibrated": False,
        "fewest_controls": fewest,
        "false_discovery_rate": settings.false_discovery_rate,
        "false_discoveries": "Benjamini-Hochberg over the failing entities of each part",
    }
    if controls.sum() < fewest:
        logger.warning(
            f"{int(controls.sum())} entities to compare with, {fewest} are needed to find a part weak at a "
            f"false-discovery rate of {settings.false_discovery_rate:g}: name entities that work with --control"
        )
    return ordered_verdicts(evidence, controls, settings.rule), controls, about


def _check_fitted(
    settings: DiagnoseSettings, model: VerdictModel, evidence: Evidence, controls: NDArray[np.bool_]
) -> None:
    if lacking := missing_measures(model, evidence):
        raise InputError(
            f"was fitted with {', '.join(lacking)}, which could not be measured",
            where=str(settings.verdict_model),
        )
    if not controls.any():
        raise InputError(
            "no entity works, so that there is nothing to compare the others with",
            where=settings.images,
            hint="name entities whose parts all work with --control",
        )


def consequences(
    settings: DiagnoseSettings, work: Work[DiagnosisPlan], evidence: Evidence, verdicts: Verdicts
) -> dict[str, Any]:
    """``remedies``, whose files are written, and ``validation``, None where no causes are known."""
    item = work.inputs.optional("gains")
    gains = read_gains(item.path) if item else None
    remedies = write_remedies(
        work.path, evidence.entities, verdicts.verdict, settings, gains,
        trainable=work.plan.payload.model.native,
    )  # fmt: skip
    truth = work.inputs.optional("truth")
    validation = None
    if truth is not None:
        validation = validate(
            evidence.entities, verdicts.verdict, verdicts.probability, verdicts.works < 0.5,
            read_causes(truth.path), seed=settings.seed, resamples=settings.resamples,
        )  # fmt: skip
        found = validation["balanced_accuracy"]["value"]
        logger.info(
            f"  against planted causes: balanced accuracy {found:.2f}, chance {validation['chance']:.2f}"
        )
    return {"remedies": remedies, "validation": validation}
