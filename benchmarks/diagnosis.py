"""Experiments on diagnoses of worlds with planted causes: validation, verdict models, remedies, forecasts.

    python benchmarks/diagnosis.py validate OUT.json DIAGNOSIS=ENTITIES DIAGNOSIS=ENTITIES ...
    python benchmarks/diagnosis.py fit MODEL.json DIAGNOSIS=ENTITIES ...
    python benchmarks/diagnosis.py remedies OUT.json BEFORE=ENTITIES encoder=AFTER language=AFTER ... [BEFORE=ENTITIES ...]
    python benchmarks/diagnosis.py entities OUT.txt DIAGNOSIS=encoder
    python benchmarks/diagnosis.py forecast OUT.json BEFORE AFTER

A DIAGNOSIS is a folder made by ``priorkit diagnose``, ENTITIES the ``entities.parquet`` of its world. ``validate``
compares the ordered tests, models fitted to the other worlds (with and without the counts of captions and
instructions), and baselines on the same entities: balanced accuracy over encoder, projector, language, tuning and none
with its interval, confusion matrix, abstentions, calibration error. ``fit`` fits to all worlds and stores with the
coefficients what ``validate`` finds across them. ``entities`` lists those whose verdict is a cause, by ``--verdict-model``
or as they were diagnosed. ``remedies`` tabulates the gain in accuracy by verdict and remedy, of one world
or of several, each followed by its remedies. ``forecast`` predicts the accuracy after tuning from the evidence before it. What is written is printed too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from priorkit.analysis.diagnosis.experiments import (
    FITTED,
    RemediedWorld,
    World,
    across_worlds,
    fit_on_worlds,
    forecast,
    remedy_gains,
    shared_measures,
)
from priorkit.analysis.diagnosis.measures import PARTS, VERDICTS
from priorkit.analysis.diagnosis.stored import Diagnosis, read_diagnosis
from priorkit.analysis.diagnosis.validation import read_causes
from priorkit.analysis.diagnosis.verdict_model import VerdictModel, fitted_verdicts, read_verdict_model
from priorkit.analysis.diagnosis.verdicts import DecisionRule
from priorkit.core.artifact import open_artifact
from priorkit.core.errors import PriorkitError, UsageError


def read_worlds(given: list[str]) -> list[World]:
    """Diagnoses with their planted causes, from ``DIAGNOSIS=ENTITIES``."""
    worlds: list[World] = []
    for text in given:
        diagnosis, sign, entities = text.partition("=")
        if not sign:
            raise UsageError(f"expected DIAGNOSIS=ENTITIES, got '{text}'")
        worlds.append((read_diagnosis(Path(diagnosis)), read_causes(Path(entities))))
    return worlds


def read_remedied(given: list[str]) -> list[RemediedWorld]:
    """Worlds with their remedies, from ``BEFORE=ENTITIES REMEDY=AFTER ...``, one after another."""
    worlds: list[tuple[World, dict[str, Diagnosis]]] = []
    for text in given:
        name, _, path = text.partition("=")
        if name not in PARTS:
            worlds.append((read_worlds([text])[0], {}))
        elif worlds:
            worlds[-1][1][name] = read_diagnosis(Path(path))
        else:
            raise UsageError(f"expected BEFORE=ENTITIES before the first remedy, got '{text}'")
    return [RemediedWorld(before, after, causes) for (before, causes), after in worlds]


def fitted(out: Path, worlds: list[World], rule: DecisionRule, seed: int, resamples: int) -> dict[str, Any]:
    """Fit to all worlds and save the model; returns its recipe."""
    measures = shared_measures([diagnosis for diagnosis, _ in worlds])
    recipe: dict[str, Any] = {
        "diagnoses": [open_artifact(diagnosis.path).digest for diagnosis, _ in worlds],
        "works_from": rule.works_from,
    }
    if len(worlds) > 1:
        recipe["across_worlds"] = across_worlds(worlds, rule, seed=seed, resamples=resamples)[FITTED]
    model = fit_on_worlds(worlds, measures, rule, recipe)
    model.save(out)
    return {"measures": model.measures, "parts": list(model.parts), **model.recipe}


def entities_of(
    diagnosis: Diagnosis, cause: str, model: VerdictModel | None, rule: DecisionRule
) -> list[str]:
    """Those whose verdict is a cause."""
    if cause not in VERDICTS:
        raise UsageError(f"expected DIAGNOSIS=VERDICT with one of {', '.join(VERDICTS)}, got '{cause}'")
    verdicts: Sequence[str] = [str(verdict) for verdict in diagnosis.table["verdict"]]
    if model is not None:
        verdicts = fitted_verdicts(model, diagnosis.evidence, diagnosis.controls, rule).verdict
    named = zip(diagnosis.evidence.entities, verdicts, strict=True)
    return [entity for entity, verdict in named if verdict == cause]


def main(arguments: list[str]) -> int:
    """Run one experiment; exits as priorkit does."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=("validate", "fit", "entities", "remedies", "forecast"))
    parser.add_argument("out", type=Path)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument(
        "--verdict-model", type=Path, help="a model fitted to other worlds; for validate, entities"
    )
    parser.add_argument("--works-from", type=float, default=DecisionRule.works_from)
    parser.add_argument("--least-probability", type=float, default=DecisionRule.least_probability)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args(arguments)
    rule = DecisionRule(options.works_from, options.least_probability)
    bootstrap = {"seed": options.seed, "resamples": options.resamples}
    try:
        if options.experiment == "fit":
            print(json.dumps(fitted(options.out, read_worlds(options.inputs), rule, **bootstrap), indent=2))
            return 0
        given = read_verdict_model(options.verdict_model) if options.verdict_model else None
        if options.experiment == "entities":
            path, _, cause = options.inputs[0].partition("=")
            names = entities_of(read_diagnosis(Path(path)), cause, given, rule)
            options.out.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
            print(f"{len(names)} entities: {options.out}")
            return 0
        if options.experiment == "validate":
            found = across_worlds(read_worlds(options.inputs), rule, given, **bootstrap)
        elif options.experiment == "remedies":
            found = remedy_gains(read_remedied(options.inputs), **bootstrap)
        else:
            before, after_tuning = (read_diagnosis(Path(path)) for path in options.inputs)
            found = forecast(before, after_tuning, **bootstrap)
    except PriorkitError as error:
        print(f"diagnosis: {error}", file=sys.stderr)
        return error.exit_code
    text = json.dumps(found, indent=2)
    options.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
