"""A fitted verdict model: a logistic regression for each part, whose coefficients are data.

Each regression gives the probability that its part is at fault, from the part's own evidence and that of the parts that
feed it (:data:`priorkit.analysis.diagnosis.measures.FED_BY`). They are fitted to entities whose causes are known because
they were planted in a world, entities with several causes among them, and stored as JSON with their training recipe.
Evidence is measured from the controls, ``(value - median) / spread`` with their median and scaled median absolute
deviation, so that models of different sizes can be compared with the same coefficients. Reciprocal ranks are measured by
their ratio, ``log(value / median)``: some controls work in spite of a weak part, which inflates a spread.
"""

from __future__ import annotations

# sklearn has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.analysis.diagnosis.evidence import Evidence
from priorkit.analysis.diagnosis.measures import (
    BY_RATIO,
    FED_BY,
    MEASURES,
    NONE,
    PARTS,
    UNDECIDED,
    Part,
    measures_of,
)
from priorkit.analysis.diagnosis.verdicts import DecisionRule, Verdicts, works_probability
from priorkit.core.errors import InputError
from priorkit.core.json_text import parse_json

Floats = NDArray[np.float64]

FORMAT = "priorkit verdict model 3"
LIMIT = 5.0
"""Distance from the controls beyond which evidence counts no more: in units of their spread, or of log ratios."""
ACCURACY = "accuracy"
_KNOWN = frozenset(measure.name for measure in MEASURES)
_EVEN = 0.5
"""More probable than not."""
_MAD = 1.4826
"""Median absolute deviations of a normal distribution in one standard deviation."""


@dataclass(frozen=True)
class PartRegression:
    """The probability that one part is at fault: the logistic function of a linear score.

    Attributes:
        coefficients: by measure, of evidence as :func:`standardized` gives it.
        intercept: of the score.
    """

    coefficients: Mapping[str, float]
    intercept: float

    def probability(self, features: Mapping[str, Floats]) -> Floats:
        """``[entities]``, from the measures by name, each ``[entities]``."""
        from scipy.special import expit

        scores = sum((weight * features[name] for name, weight in self.coefficients.items()), np.zeros(()))
        return np.asarray(expit(scores + self.intercept), dtype=np.float64)


@dataclass(frozen=True)
class VerdictModel:
    """A regression for each part, with what they were fitted to.

    Attributes:
        parts: the regressions, parts in the order of :data:`priorkit.analysis.diagnosis.measures.PARTS`.
        recipe: how they were fitted: data, regularization, versions, measured accuracy.
    """

    parts: Mapping[Part, PartRegression]
    recipe: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def measures(self) -> list[str]:
        """All evidence that the regressions need, in the order of the table."""
        needed = {name for regression in self.parts.values() for name in regression.coefficients}
        return [measure.name for measure in MEASURES if measure.name in needed]

    def faults(self, features: Floats, measures: Sequence[str]) -> Floats:
        """The probability that each part is at fault, ``[entities, parts]``.

        Args:
            features: ``[entities, measures]``, from :func:`standardized`.
            measures: names of the columns.
        """
        columns = {name: features[:, number] for number, name in enumerate(measures)}
        return np.stack([regression.probability(columns) for regression in self.parts.values()], axis=1)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        content = {
            "format": FORMAT,
            "parts": {
                part: {"intercept": regression.intercept, "coefficients": dict(regression.coefficients)}
                for part, regression in self.parts.items()
            },
            "recipe": dict(self.recipe),
        }
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_verdict_model(path: Path) -> VerdictModel:
    """Read what :meth:`VerdictModel.save` wrote.

    Raises:
        InputError: it is no such file, or names an unknown part or measure.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"not a readable verdict model: {error}", where=str(path)) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(
            f'not a verdict model; expected JSON with "format": "{FORMAT}"',
            where=str(path),
            hint="one of an earlier format has to be fitted again",
        )
    try:
        regressions = {
            str(part): PartRegression(
                {str(name): float(weight) for name, weight in given["coefficients"].items()},
                float(given["intercept"]),
            )
            for part, given in content["parts"].items()
        }
        recipe = dict(content["recipe"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"not a verdict model: {error!r}", where=str(path)) from None
    unknown = set(regressions) - set(PARTS)
    unknown |= {name for regression in regressions.values() for name in regression.coefficients} - _KNOWN
    if unknown or not regressions:
        what = f"unknown: {', '.join(sorted(unknown))}" if unknown else "it has no parts"
        raise InputError(what, where=str(path))
    for part, regression in regressions.items():
        if not regression.coefficients:
            raise InputError(f"{part}: no coefficients", where=str(path))
        if not np.isfinite([regression.intercept, *regression.coefficients.values()]).all():
            raise InputError(f"{part}: a coefficient is not finite", where=str(path))
    return VerdictModel({part: regressions[part] for part in PARTS if part in regressions}, recipe)


def missing_measures(model: VerdictModel, evidence: Evidence) -> list[str]:
    """Measures that a model needs and the evidence lacks."""
    return [name for name in model.measures if name not in evidence.measures]


def standardized(evidence: Evidence, controls: NDArray[np.bool_], measures: Sequence[str]) -> Floats:
    """Evidence measured from the controls, ``[entities, measures]``; 0, their median, where it is undefined.

    Args:
        evidence: of all entities.
        controls: ``[entities]``, at least one of which has each measure.
        measures: columns; ``accuracy`` stays as it is.
    """
    columns: list[Floats] = []
    for name in measures:
        if name == ACCURACY:
            columns.append(np.nan_to_num(evidence.accuracy.value))
            continue
        values = evidence.measures[name].value
        if name in BY_RATIO:
            values = np.log(values)
        known = values[controls & np.isfinite(values)]
        if not len(known):
            columns.append(np.zeros(len(values)))
            continue
        center = float(np.median(known))
        spread = 1.0 if name in BY_RATIO else _MAD * float(np.median(np.abs(known - center)))
        if spread == 0:
            spread = float(known.std()) or 1.0
        columns.append(np.clip(np.nan_to_num((values - center) / spread), -LIMIT, LIMIT))
    return np.stack(columns, axis=1)


def single_causes(faults: Floats) -> Floats:
    """The probability that one part and no other is at fault, and last that none is: ``[entities, parts + 1]``.

    What is left to 1 is the probability of several causes. Parts are independent given the evidence.

        >>> single_causes(np.array([[0.9, 0.5]])).round(2).tolist()
        [[0.45, 0.05, 0.05]]

    Args:
        faults: ``[entities, parts]``, from :meth:`VerdictModel.faults`.
    """
    parts = faults.shape[1]
    alternatives = [
        np.prod(np.where(np.arange(parts) == cause, faults, 1 - faults), axis=1) for cause in range(parts + 1)
    ]
    return np.stack(alternatives, axis=1)


def fitted_verdicts(
    model: VerdictModel, evidence: Evidence, controls: NDArray[np.bool_], rule: DecisionRule
) -> Verdicts:
    """What is more probable than all else: that the entity works, or that one part and no other is at fault.

    ``none`` is the verdict of entities that more probably work than fail, and of those none of whose parts is at fault.
    Where several parts probably are, no verdict is given, and ``weak_parts`` names them.
    """
    works = works_probability(evidence.right, evidence.images, rule.works_from)
    faults = model.faults(standardized(evidence, controls, model.measures), model.measures)
    by_part: dict[Part, Floats] = {part: faults[:, number] for number, part in enumerate(model.parts)}
    causes = single_causes(faults)
    names: list[str] = [*model.parts, NONE]
    verdict: list[str] = []
    probability = np.full(len(works), np.nan)
    weak_parts: list[list[Part]] = []
    for entity, chance in enumerate(works):
        weak_parts.append([part for part in model.parts if by_part[part][entity] >= _EVEN])
        best = int(causes[entity].argmax())
        if evidence.images[entity] == 0:
            verdict.append(UNDECIDED)
        elif chance >= _EVEN:
            verdict.append(NONE)
            probability[entity] = chance
        elif causes[entity, best] >= _EVEN:
            verdict.append(names[best])
            probability[entity] = causes[entity, best]
        else:
            verdict.append(UNDECIDED)
    return Verdicts(verdict, probability, works, weak_parts=weak_parts, faults=by_part)


def fit(
    features: Floats,
    causes: Sequence[Collection[str]],
    measures: Sequence[str],
    *,
    strength: float = 3.0,
    recipe: Mapping[str, Any] | None = None,
) -> VerdictModel:
    """Fit the coefficients to entities of known causes.

    A part without evidence among the measures, or that is at fault in no entity or in all, gets no regression.

    Args:
        features: ``[entities, measures]``, from :func:`standardized`.
        causes: of each entity the parts at fault.
        measures: names of the columns.
        strength: C of scikit-learn's ``LogisticRegression``, the inverse of its L2 penalty.
        recipe: what else belongs to the training recipe.

    Raises:
        InputError: no part can be fitted.
    """
    import sklearn
    from sklearn.linear_model import LogisticRegression

    parts: dict[Part, PartRegression] = {}
    for part in PARTS:
        target = np.array([part in planted for planted in causes])
        read = {name for source in (part, *FED_BY[part]) for name in measures_of(source)}
        columns = [number for number, name in enumerate(measures) if name in read]
        own = set(measures_of(part)) & set(measures)
        if not own or target.all() or not target.any():
            continue
        # Balanced: how often each part is at fault in a world of planted causes says nothing about other models.
        regression = LogisticRegression(C=strength, class_weight="balanced", max_iter=5000, tol=1e-8)
        regression.fit(features[:, columns], target)
        weights: list[float] = np.asarray(regression.coef_, dtype=np.float64).ravel().tolist()
        (intercept,) = np.asarray(regression.intercept_, dtype=np.float64).ravel().tolist()
        named = dict(zip((measures[number] for number in columns), weights, strict=True))
        parts[part] = PartRegression(named, intercept)
    if not parts:
        raise InputError("a verdict model needs entities of which a part is at fault, and others")
    about = {
        "entities": len(causes),
        "entities_by_part": {part: sum(part in planted for planted in causes) for part in parts},
        "entities_without_cause": sum(not planted for planted in causes),
        "regularization_c": strength,
        "class_weight": "balanced",
        "scikit_learn": sklearn.__version__,
        **(recipe or {}),
    }
    return VerdictModel(parts, about)
