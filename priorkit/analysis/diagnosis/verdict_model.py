"""A fitted verdict model: multinomial logistic regression on the evidence, whose coefficients are data.

It is fitted to entities whose cause is known because it was planted in a world, and stored as JSON with its training
recipe. Evidence is measured from the controls, ``(value - median) / spread`` with their median and scaled median absolute
deviation, so that models of different sizes can be compared with the same coefficients. Reciprocal ranks are measured by
their ratio, ``log(value / median)``: some controls work in spite of a weak part, which inflates a spread.
"""

from __future__ import annotations

# sklearn has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.analysis.diagnosis.evidence import Evidence
from priorkit.analysis.diagnosis.measures import BY_RATIO, MEASURES, UNDECIDED, VERDICTS
from priorkit.analysis.diagnosis.verdicts import DecisionRule, Verdicts, works_probability
from priorkit.core.errors import InputError
from priorkit.core.json_text import parse_json

Floats = NDArray[np.float64]

FORMAT = "priorkit verdict model 2"
LIMIT = 5.0
"""Distance from the controls beyond which evidence counts no more: in units of their spread, or of log ratios."""
CLASSES = tuple(verdict for verdict in VERDICTS if verdict != UNDECIDED)
_ACCURACY = "accuracy"
_KNOWN = (_ACCURACY, *(measure.name for measure in MEASURES))
_MAD = 1.4826
"""Median absolute deviations of a normal distribution in one standard deviation."""


@dataclass(frozen=True)
class VerdictModel:
    """Coefficients with what they were fitted to.

    Attributes:
        classes: verdicts, in the order of the rows.
        measures: columns of the evidence, ``accuracy`` among them.
        coefficients: ``[classes, measures]``.
        intercepts: ``[classes]``.
        recipe: how it was fitted: data, regularization, versions, measured accuracy.
    """

    classes: Sequence[str]
    measures: Sequence[str]
    coefficients: Floats
    intercepts: Floats
    recipe: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def probabilities(self, features: Floats) -> Floats:
        """Softmax of the linear scores: ``[entities, classes]``.

        Args:
            features: ``[entities, measures]``, from :func:`standardized`.
        """
        scores = features @ self.coefficients.T + self.intercepts
        scores = np.exp(scores - scores.max(1, keepdims=True))
        return scores / scores.sum(1, keepdims=True)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        content = {
            "format": FORMAT,
            "classes": list(self.classes),
            "measures": list(self.measures),
            "coefficients": self.coefficients.tolist(),
            "intercepts": self.intercepts.tolist(),
            "recipe": dict(self.recipe),
        }
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_verdict_model(path: Path) -> VerdictModel:
    """Read what :meth:`VerdictModel.save` wrote.

    Raises:
        InputError: it is no such file, or the numbers do not fit together.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"not a readable verdict model: {error}", where=str(path)) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f'not a verdict model; expected JSON with "format": "{FORMAT}"', where=str(path))
    try:
        model = VerdictModel(
            [str(name) for name in content["classes"]],
            [str(name) for name in content["measures"]],
            np.array(content["coefficients"], dtype=np.float64),
            np.array(content["intercepts"], dtype=np.float64),
            dict(content["recipe"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"not a verdict model: {error!r}", where=str(path)) from None
    shape = (len(model.classes), len(model.measures))
    if model.coefficients.shape != shape or model.intercepts.shape != shape[:1]:
        raise InputError(
            f"{shape[0]} classes and {shape[1]} measures, but coefficients {model.coefficients.shape}",
            where=str(path),
        )
    unknown = (set(model.classes) - set(CLASSES)) | (set(model.measures) - set(_KNOWN))
    finite = np.isfinite(model.coefficients).all() and np.isfinite(model.intercepts).all()
    if unknown or not finite:
        what = f"unknown: {', '.join(sorted(unknown))}" if unknown else "a coefficient is not finite"
        raise InputError(what, where=str(path))
    return model


def missing_measures(model: VerdictModel, evidence: Evidence) -> list[str]:
    """Measures that a model needs and the evidence lacks."""
    return [name for name in model.measures if name != _ACCURACY and name not in evidence.measures]


def standardized(evidence: Evidence, controls: NDArray[np.bool_], measures: Sequence[str]) -> Floats:
    """Evidence measured from the controls, ``[entities, measures]``; 0, their median, where it is undefined.

    Args:
        evidence: of all entities.
        controls: ``[entities]``, at least one of which has each measure.
        measures: columns; ``accuracy`` stays as it is.
    """
    columns: list[Floats] = []
    for name in measures:
        if name == _ACCURACY:
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


def fitted_verdicts(
    model: VerdictModel, evidence: Evidence, controls: NDArray[np.bool_], rule: DecisionRule
) -> Verdicts:
    """The most probable verdict of each entity; not decidable below the rule's least probability."""
    probabilities = model.probabilities(standardized(evidence, controls, model.measures))
    best = probabilities.argmax(1)
    probability = probabilities[np.arange(len(best)), best]
    decided = (probability >= rule.least_probability) & (evidence.images > 0)
    verdict = [
        str(model.classes[number]) if known else UNDECIDED
        for number, known in zip(best, decided, strict=True)
    ]
    works = works_probability(evidence.right, evidence.images, rule.works_from)
    return Verdicts(verdict, np.where(decided, probability, np.nan), works)


def fit(
    features: Floats,
    causes: Sequence[str],
    measures: Sequence[str],
    *,
    strength: float = 1.0,
    recipe: Mapping[str, Any] | None = None,
) -> VerdictModel:
    """Fit the coefficients to entities of known cause.

    Args:
        features: ``[entities, measures]``, from :func:`standardized`.
        causes: of each entity, one verdict other than ``not decidable``.
        measures: names of the columns.
        strength: C of scikit-learn's ``LogisticRegression``, the inverse of its L2 penalty.
        recipe: what else belongs to the training recipe.

    Raises:
        InputError: the entities have fewer than two causes.
    """
    import sklearn
    from sklearn.linear_model import LogisticRegression

    found = sorted(set(causes), key=CLASSES.index)
    if len(found) < 2:
        raise InputError(
            f"a verdict model needs entities of two causes at least, got {', '.join(found) or 'none'}"
        )
    target = np.array([found.index(cause) for cause in causes])
    # Balanced: how often each part is at fault in a world of planted causes says nothing about other models.
    regression = LogisticRegression(C=strength, class_weight="balanced", max_iter=5000, tol=1e-8)
    regression.fit(features, target)
    coefficients = np.asarray(regression.coef_, dtype=np.float64)
    intercepts = np.asarray(regression.intercept_, dtype=np.float64)
    if len(found) == 2:
        # One row for the second class; softmax of (0, score) is the same model.
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    about = {
        "entities": len(target),
        "entities_by_cause": {cause: int((target == number).sum()) for number, cause in enumerate(found)},
        "regularization_c": strength,
        "class_weight": "balanced",
        "scikit_learn": sklearn.__version__,
        **(recipe or {}),
    }
    return VerdictModel(found, list(measures), coefficients, intercepts, about)
