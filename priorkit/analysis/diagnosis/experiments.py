"""Experiments on stored diagnoses: verdict models across worlds, remedies across causes, forecasts of accuracy."""

from __future__ import annotations

# sklearn has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.analysis.diagnosis.measures import COUNTS, MEASURES, VERDICTS
from priorkit.analysis.diagnosis.stored import Diagnosis
from priorkit.analysis.diagnosis.validation import Causes, planted_cause, validate
from priorkit.analysis.diagnosis.verdict_model import (
    ACCURACY,
    VerdictModel,
    fit,
    fitted_verdicts,
    standardized,
)
from priorkit.analysis.diagnosis.verdicts import DecisionRule, ordered_verdicts, works_probability
from priorkit.core.errors import InputError
from priorkit.core.interval import Interval
from priorkit.scoring.statistics.intervals import bootstrap_difference, bootstrap_mean

Floats = NDArray[np.float64]
World = tuple[Diagnosis, Causes]

FITTED, WITHOUT_COUNTS, GIVEN = "fitted", "fitted without counts of data", "given model"
BASELINES = {"rank_e": (ACCURACY, "rank_e"), "blind accuracy": (ACCURACY, "blind_accuracy")}
"""Naming accuracy and one piece of evidence, by multinomial regression; they never abstain."""


def shared_measures(diagnoses: Sequence[Diagnosis]) -> list[str]:
    """The measures that all diagnoses have and that are evidence of a part."""
    return [
        measure.name
        for measure in MEASURES
        if measure.part and all(measure.name in diagnosis.evidence.measures for diagnosis in diagnoses)
    ]


def fails(diagnosis: Diagnosis, rule: DecisionRule) -> NDArray[np.bool_]:
    """``[entities]``: whether it is more probable that an entity fails than that it works."""
    evidence = diagnosis.evidence
    return works_probability(evidence.right, evidence.images, rule.works_from) < 0.5


def training_rows(
    worlds: Sequence[World], measures: Sequence[str], rule: DecisionRule
) -> tuple[Floats, list[frozenset[str]]]:
    """Standardized evidence and causes of all entities with planted causes that fail, and of those without one."""
    features: list[Floats] = []
    causes: list[frozenset[str]] = []
    for diagnosis, planted in worlds:
        failing = fails(diagnosis, rule)
        values = standardized(diagnosis.evidence, diagnosis.controls, measures)
        for row, entity in enumerate(diagnosis.evidence.entities):
            if entity in planted and (failing[row] or not planted[entity]):
                features.append(values[row])
                causes.append(planted[entity])
    if not features:
        raise InputError("no entity has known causes")
    return np.stack(features), causes


def fit_on_worlds(
    worlds: Sequence[World],
    measures: Sequence[str],
    rule: DecisionRule,
    recipe: Mapping[str, Any] | None = None,
) -> VerdictModel:
    """Fit a verdict model to the entities of known causes of several worlds.

    Raises:
        InputError: no part is at fault in some of them and sound in others.
    """
    features, causes = training_rows(worlds, measures, rule)
    return fit(features, causes, measures, recipe=recipe)


def _baseline(
    worlds: Sequence[World], diagnosis: Diagnosis, measures: Sequence[str], rule: DecisionRule
) -> tuple[list[str], Floats]:
    """Verdicts of a multinomial regression on few measures, fitted to entities with one cause or none."""
    from sklearn.linear_model import LogisticRegression

    features, causes = training_rows(worlds, measures, rule)
    single = [row for row, planted in enumerate(causes) if planted_cause(planted)]
    regression = LogisticRegression(class_weight="balanced", max_iter=5000)
    regression.fit(features[single], [planted_cause(causes[row]) for row in single])
    chances = regression.predict_proba(standardized(diagnosis.evidence, diagnosis.controls, measures))
    return [str(regression.classes_[best]) for best in chances.argmax(1)], chances.max(1)


def across_worlds(
    worlds: Sequence[World],
    rule: DecisionRule,
    given: VerdictModel | None = None,
    *,
    seed: int,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Verdicts on each world by the ordered tests, and by models fitted to the other worlds.

    These are fitted to all evidence, to all but the counts of training data, and to the baselines'.

    Args:
        worlds: diagnoses with planted causes; two or more for the fitted ones.
        rule: what a verdict needs.
        given: a model fitted before to other worlds, to be compared too.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        Method -> what :func:`priorkit.analysis.diagnosis.validation.validate` says of the entities of all worlds.
    """
    measures = shared_measures([diagnosis for diagnosis, _ in worlds])
    methods: dict[str, Sequence[str]] = {FITTED: measures}
    if set(COUNTS) & set(measures):
        methods[WITHOUT_COUNTS] = [name for name in measures if name not in COUNTS]
    baselines = {
        name: columns
        for name, columns in BASELINES.items()
        if all(columns[-1] in diagnosis.evidence.measures for diagnosis, _ in worlds)
    }
    collected: dict[str, list[tuple[list[str], Floats]]] = {"ordered tests": [], "majority": []}
    for index, (diagnosis, _) in enumerate(worlds):
        ordered = ordered_verdicts(diagnosis.evidence, diagnosis.controls, rule)
        collected["ordered tests"].append((ordered.verdict, ordered.probability))
        if given is not None:
            found = fitted_verdicts(given, diagnosis.evidence, diagnosis.controls, rule)
            collected.setdefault(GIVEN, []).append((found.verdict, found.probability))
        others = [world for number, world in enumerate(worlds) if number != index]
        if not others:
            continue
        _, causes = training_rows(others, measures, rule)
        single = Counter(cause for planted in causes if (cause := planted_cause(planted)))
        most, count = single.most_common(1)[0]
        size = len(diagnosis.evidence.entities)
        collected["majority"].append(([most] * size, np.full(size, count / single.total())))
        for name, columns in methods.items():
            model = fit_on_worlds(others, columns, rule)
            found = fitted_verdicts(model, diagnosis.evidence, diagnosis.controls, rule)
            collected.setdefault(name, []).append((found.verdict, found.probability))
        for name, columns in baselines.items():
            collected.setdefault(f"{name} only", []).append(_baseline(others, diagnosis, columns, rule))
    return {
        name: _validated(worlds, verdicts, rule, seed, resamples)
        for name, verdicts in collected.items()
        if len(verdicts) == len(worlds)
    }


def _validated(
    worlds: Sequence[World],
    verdicts: Sequence[tuple[list[str], Floats]],
    rule: DecisionRule,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """All worlds together; an entity of two worlds counts twice."""
    names: list[str] = []
    causes: dict[str, frozenset[str]] = {}
    for number, (diagnosis, planted) in enumerate(worlds):
        for entity in diagnosis.evidence.entities:
            names.append(f"{number}/{entity}")
            if entity in planted:
                causes[names[-1]] = planted[entity]
    failing = np.concatenate([fails(diagnosis, rule) for diagnosis, _ in worlds])
    said = [verdict for world, _ in verdicts for verdict in world]
    stated = np.concatenate([probability for _, probability in verdicts])
    return validate(names, said, stated, failing, causes, seed=seed, resamples=resamples)


@dataclass(frozen=True)
class RemediedWorld:
    """A world whose model was diagnosed before and after each remedy.

    Attributes:
        before: the diagnosis whose verdicts form the groups.
        after: remedy -> diagnosis of the model after it, of the same entities.
        causes: planted ones, by entity; empty where none are known.
    """

    before: Diagnosis
    after: Mapping[str, Diagnosis]
    causes: Causes = field(default_factory=dict[str, frozenset[str]])

    def accuracy_after(self, remedy: str) -> Floats:
        """``[entities]``, in the order of the diagnosis before.

        Raises:
            InputError: the entities differ.
        """
        diagnosis = self.after[remedy]
        row = {name: number for number, name in enumerate(diagnosis.evidence.entities)}
        absent = [name for name in self.before.evidence.entities if name not in row]
        if absent:
            raise InputError(
                f"{len(absent)} entities are missing, such as '{absent[0]}'", where=str(diagnosis.path)
            )
        return diagnosis.evidence.accuracy.value[[row[name] for name in self.before.evidence.entities]]


def remedy_gains(worlds: Sequence[RemediedWorld], *, seed: int, resamples: int = 1000) -> dict[str, Any]:
    """Gain in naming accuracy of the entities of each verdict by each remedy, all worlds together.

    Args:
        worlds: one or more, with the same remedies.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        ``gains``: verdict -> remedy -> mean gain with its 95 % interval over entities; ``best``: verdict -> remedy
        with the largest mean; ``recommended_is_best``: share of single entities on which no remedy gains more than
        the one named as their verdict, and ``recommended_is_best_of_one_cause`` of those with one planted cause.

    Raises:
        InputError: the entities of a world differ, or the remedies of the worlds.
    """
    remedies = list(worlds[0].after)
    for world in worlds[1:]:
        if set(world.after) != set(remedies):
            raise InputError(
                f"expected the remedies {', '.join(remedies)} here too, got {', '.join(world.after)}",
                where=str(world.before.path),
            )
    accuracy = {
        remedy: np.concatenate([world.accuracy_after(remedy) for world in worlds]) for remedy in remedies
    }
    start = np.concatenate([world.before.evidence.accuracy.value for world in worlds])
    verdicts = [str(verdict) for world in worlds for verdict in world.before.table["verdict"]]
    causes = [len(world.causes.get(name, ())) for world in worlds for name in world.before.evidence.entities]
    gains: dict[str, dict[str, dict[str, float | None]]] = {}
    best: dict[str, str] = {}
    for verdict in VERDICTS:
        rows = [row for row, given in enumerate(verdicts) if given == verdict]
        if not rows:
            continue
        changes = {
            remedy: bootstrap_difference(values[rows], start[rows], seed=seed, resamples=resamples)
            for remedy, values in accuracy.items()
        }
        gains[verdict] = {remedy: interval.to_dict() for remedy, interval in changes.items()}
        best[verdict] = max(changes, key=lambda remedy: changes[remedy].value)
    hits = {
        row: accuracy[verdict][row] >= max(values[row] for values in accuracy.values())
        for row, verdict in enumerate(verdicts)
        if verdict in accuracy
    }
    single = [hit for row, hit in hits.items() if causes[row] == 1]
    best_of = {"recommended_is_best": list(hits.values()), "recommended_is_best_of_one_cause": single}
    shares = {
        name: bootstrap_mean(values, seed=seed, resamples=resamples).to_dict() if values else None
        for name, values in best_of.items()
    }
    counted = Counter(verdicts)
    return {"gains": gains, "best": best, **shares, "entities": len(start), "verdicts": dict(counted)}


def forecast(
    before: Diagnosis, after: Diagnosis, *, folds: int = 5, seed: int = 42, resamples: int = 1000
) -> dict[str, Any]:
    """Accuracy after tuning, predicted for held-out entities from the evidence before it, by ridge regression.

    Args:
        before: the diagnosis before tuning.
        after: the diagnosis after it; entities of both count.
        folds: of entities.
        seed: of the folds and the bootstrap.
        resamples: of the bootstrap.

    Returns:
        Mean absolute error of each predictor (``evidence``, ``rank_e``, ``mean``) with its 95 % interval, and the
        paired difference of each from ``evidence``.

    Raises:
        InputError: fewer shared entities than folds.
    """
    row = {name: number for number, name in enumerate(after.evidence.entities)}
    shared = [number for number, name in enumerate(before.evidence.entities) if name in row]
    if len(shared) < 2 * folds:
        raise InputError(f"{len(shared)} entities are too few for a forecast with {folds} folds")
    target = after.evidence.accuracy.value[[row[before.evidence.entities[number]] for number in shared]]
    columns: dict[str, list[str]] = {"evidence": [ACCURACY, *shared_measures([before])], "mean": []}
    if "rank_e" in before.evidence.measures:
        columns["rank_e"] = ["rank_e"]
    errors = {
        name: np.abs(_predicted(before, shared, target, measures, folds, seed) - target)
        for name, measures in columns.items()
    }
    found: dict[str, Interval] = {
        name: bootstrap_mean(values, seed=seed, resamples=resamples) for name, values in errors.items()
    }
    more = {
        name: bootstrap_difference(values, errors["evidence"], seed=seed, resamples=resamples).to_dict()
        for name, values in errors.items()
        if name != "evidence"
    }
    return {
        "entities": len(shared),
        "mean_absolute_error": {name: interval.to_dict() for name, interval in found.items()},
        "more_than_from_evidence": more,
    }


def _predicted(
    before: Diagnosis, rows: Sequence[int], target: Floats, measures: Sequence[str], folds: int, seed: int
) -> Floats:
    """Held-out predictions, ``[rows]``; the mean of the training folds where there is no measure."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold

    everyone = np.ones(len(before.evidence.entities), dtype=np.bool_)
    features = standardized(before.evidence, everyone, measures)[list(rows)] if measures else None
    predicted = np.empty(len(rows))
    for train, held_out in KFold(folds, shuffle=True, random_state=seed).split(target):
        if features is None:
            predicted[held_out] = target[train].mean()
        else:
            model = RidgeCV(alphas=np.logspace(-2, 3, 11)).fit(features[train], target[train])
            predicted[held_out] = np.clip(model.predict(features[held_out]), 0, 1)
    return predicted
