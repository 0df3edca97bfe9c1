"""Verdicts by an ordered set of tests: what a diagnosis says where no fitted model is given.

An entity *works* where its naming accuracy exceeds a threshold, *fails* where it does not; both with the posterior
probability of the share (Jeffreys' prior). Entities that work, or those that the user names, are the controls: all
their parts work. Part by part it is tested whether a failing entity's evidence is as low as hardly any control's
(conformal p-values, one for the part by Bonferroni), with Benjamini-Hochberg over all failing entities of each part.
The verdict is the first part in order whose adjusted p-value is at most the false-discovery rate. The order follows
what comes first: the names' side and the image's side before what joins them, and the answer last, because what comes
later also looks weak where something earlier fails.
"""

from __future__ import annotations

# scipy has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from priorkit.analysis.diagnosis.evidence import Evidence
from priorkit.analysis.diagnosis.measures import NONE, PARTS, UNDECIDED, Part, measures_of
from priorkit.scoring.statistics.outliers import adjusted_p_values, bonferroni, conformal_p_values

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DecisionRule:
    """What a verdict needs.

    Attributes:
        works_from: naming accuracy above which an entity works.
        least_probability: probability from which an entity counts as working (a control) or as failing (tested).
        false_discovery_rate: accepted among the entities that are given to a part, for each part.
    """

    works_from: float = 0.5
    least_probability: float = 0.75
    false_discovery_rate: float = 0.1


@dataclass(frozen=True)
class Verdicts:
    """What holds each entity back.

    Attributes:
        verdict: of :data:`priorkit.analysis.diagnosis.measures.VERDICTS`, one per entity.
        probability: ``[entities]`` of the verdict being right; NaN where nothing is decided.
        works: ``[entities]`` probability that the entity works.
        p_values: by part, ``[entities]``; NaN where nothing was tested.
        adjusted: by part, ``[entities]``: Benjamini-Hochberg's.
        weak_parts: for each entity all parts that look weak, in order.
        faults: by part, ``[entities]``: the probability that it is at fault, by a fitted model.
    """

    verdict: list[str]
    probability: Floats
    works: Floats
    p_values: Mapping[Part, Floats] = field(default_factory=dict[Part, Floats])
    adjusted: Mapping[Part, Floats] = field(default_factory=dict[Part, Floats])
    weak_parts: Sequence[Sequence[str]] = ()
    faults: Mapping[Part, Floats] = field(default_factory=dict[Part, Floats])


def works_probability(right: NDArray[np.int64], images: NDArray[np.int64], works_from: float) -> Floats:
    """Posterior probability that the share of right answers exceeds a threshold, under Jeffreys' prior.

        P(share > threshold | right of images), share ~ Beta(1/2 + right, 1/2 + wrong)

    Args:
        right: ``[entities]`` right answers.
        images: ``[entities]`` answers; 0 gives the prior's probability.
        works_from: the threshold.
    """
    from scipy.stats import beta

    return np.asarray(beta.sf(works_from, right + 0.5, images - right + 0.5), dtype=np.float64)


def find_controls(evidence: Evidence, named: Sequence[str], rule: DecisionRule) -> NDArray[np.bool_]:
    """``[entities]``: those whose parts all work: the named ones, or without any those that work."""
    if named:
        wanted = set(named)
        return np.array([entity in wanted for entity in evidence.entities], dtype=np.bool_)
    works = works_probability(evidence.right, evidence.images, rule.works_from)
    return works >= rule.least_probability


def part_p_values(
    evidence: Evidence, controls: NDArray[np.bool_], tested: NDArray[np.bool_]
) -> dict[Part, Floats]:
    """Conformal p-values of the tested entities for each part: ``[entities]``, NaN elsewhere."""
    found: dict[Part, Floats] = {}
    for part in PARTS:
        tests = [
            conformal_p_values(
                np.where(tested, evidence.measures[name].value, np.nan),
                evidence.measures[name].value[controls],
            )
            for name in measures_of(part)
            if name in evidence.measures
        ]
        found[part] = bonferroni(tests) if tests else np.full(len(tested), np.nan)
    return found


def ordered_verdicts(evidence: Evidence, controls: NDArray[np.bool_], rule: DecisionRule) -> Verdicts:
    """The verdicts of the ordered tests.

    The probability of a part's verdict is 1 minus its adjusted p-value, that is, minus the share of false discoveries
    to expect among all that are at least as clear; of ``none`` it is the posterior that the entity works. They are
    not calibrated on a world; those of a fitted model are.

    Args:
        evidence: of all entities.
        controls: ``[entities]``, from :func:`find_controls`.
        rule: what a verdict needs.
    """
    works = works_probability(evidence.right, evidence.images, rule.works_from)
    fails = 1 - works >= rule.least_probability
    tested = fails & ~controls
    p_values = part_p_values(evidence, controls, tested)
    adjusted: dict[Part, Floats] = {part: adjusted_p_values(p_values[part]) for part in PARTS}
    verdict: list[str] = []
    probability = np.full(len(works), np.nan)
    weak_parts: list[list[Part]] = []
    for entity, chance in enumerate(works):
        weak: list[Part] = [part for part in PARTS if adjusted[part][entity] <= rule.false_discovery_rate]
        weak_parts.append(weak)
        if chance >= rule.least_probability:
            verdict.append(NONE)
            probability[entity] = chance
        elif weak:
            verdict.append(weak[0])
            probability[entity] = 1 - adjusted[weak[0]][entity]
        else:
            verdict.append(UNDECIDED)
    return Verdicts(verdict, probability, works, p_values, adjusted, weak_parts)


def fewest_controls(evidence: Evidence, rule: DecisionRule) -> int:
    """Controls without which no part can be found weak, as no p-value would be small enough: for a single entity."""
    most = max((sum(name in evidence.measures for name in measures_of(part)) for part in PARTS), default=1)
    return int(np.ceil(max(most, 1) / rule.false_discovery_rate)) - 1
