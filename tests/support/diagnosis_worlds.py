"""Diagnoses of simulated worlds whose causes are known, for tests of verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorkit.analysis.diagnosis.evidence import Estimates, Evidence, shares
from priorkit.analysis.diagnosis.measures import BY_RATIO, PLANTED, measures_of
from priorkit.analysis.diagnosis.output import write_table_of_entities
from priorkit.analysis.diagnosis.stored import Diagnosis, read_diagnosis
from priorkit.analysis.diagnosis.validation import Causes
from priorkit.analysis.diagnosis.verdicts import DecisionRule, find_controls, ordered_verdicts

RULE = DecisionRule()
IMAGES = 6


def simulated(
    seed: int, *, each: int = 20, healthy: int = 60, effect: float = 6.0
) -> tuple[Evidence, dict[str, frozenset[str]]]:
    """Entities without a cause, with each cause and with two; an absent part lowers its measures by ``effect``.

    A weak encoder also lowers what comes after it: retrieval of the name and the answers.
    """
    generator = np.random.default_rng(seed)
    parts = list(PLANTED.values())
    causes = [frozenset[str]()] * healthy + [frozenset({part}) for part in parts for _ in range(each)]
    causes += [frozenset({"encoder", "language"})] * each
    names = [f"entity {number}" for number in range(len(causes))]
    right = np.array([generator.binomial(IMAGES, 0.05 if cause else 0.97) for cause in causes])
    measures = {
        name: generator.normal(size=len(causes))
        for part in ("encoder", "language", "projector", "tuning")
        for name in measures_of(part)
    }
    for row, cause in enumerate(causes):
        for part in cause:
            for name in measures_of(part):
                measures[name][row] -= effect
        if "encoder" in cause:
            for name in ("name_retrieval", "presence_accuracy"):
                measures[name][row] -= effect
    for name in BY_RATIO & set(measures):
        measures[name] = np.exp(measures[name])
    measures["blind_accuracy"] = generator.uniform(size=len(causes))
    return evidence_from(names, right, measures), dict(zip(names, causes, strict=True))


def evidence_from(
    names: list[str], right: NDArray[np.int64], measures: dict[str, NDArray[np.float64]]
) -> Evidence:
    """Evidence with intervals of no width."""
    answers = np.array([image < count for count in right for image in range(IMAGES)], dtype=np.float64)
    entity_of = [entity for entity in range(len(names)) for _ in range(IMAGES)]
    return Evidence(
        names, np.full(len(names), IMAGES), right, shares(answers, entity_of, len(names)),
        {name: Estimates(values, values, values) for name, values in measures.items()},
    )  # fmt: skip


def stored(folder: Path, evidence: Evidence) -> Diagnosis:
    """The evidence with its ordered verdicts, written and read back."""
    folder.mkdir(parents=True)
    controls = find_controls(evidence, (), RULE)
    verdicts = ordered_verdicts(evidence, controls, RULE)
    write_table_of_entities(folder, evidence, verdicts, controls, [[] for _ in evidence.entities], [])
    return read_diagnosis(folder)


def stored_world(folder: Path, seed: int) -> tuple[Diagnosis, Causes]:
    """A simulated world on disk with its causes."""
    evidence, causes = simulated(seed)
    return stored(folder, evidence), causes
