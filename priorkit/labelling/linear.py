"""A fast labeller: hashed word n-grams and one logistic regression per label, learnt from a model's labels.

A folder of it holds ``labeller.json`` (how texts become features, thresholds, agreement with the model it
was learnt from) and ``labeller.safetensors`` (``coefficients`` float32 ``[labels, features]``,
``intercepts`` float32 ``[labels]``). Words are hashed by MurmurHash3 as in scikit-learn's
``HashingVectorizer``, so there is no vocabulary to keep.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError
from priorkit.core.safetensors_header import read_header
from priorkit.data.text.concepts import ABILITY_LABELS, CONCEPT_LABELS, LabelSet
from priorkit.models.folder import read_json

CONFIG = "labeller.json"
WEIGHTS = "labeller.safetensors"

KIND = "hashed n-grams, logistic regression"

FEATURES = 1 << 18
"""Buckets that n-grams are hashed into."""

LONGEST = 2
"""Words of the longest n-gram."""

WORDS = r"(?u)\w+|[^\w\s]"
"""A run of letters and digits, or one sign: brackets and operators tell code and mathematics from prose."""

STRENGTH = 30.0
"""scikit-learn's C, the inverse of the regularisation."""

FOLDS = 3
"""Parts of the sample that are predicted from the others, to set the thresholds."""

_CERTAIN = 20.0
_TEXTS_AT_ONCE = 1024


@dataclass(frozen=True)
class LinearLabeller:
    """Coefficients and thresholds of all labels.

    Attributes:
        coefficients: float32 ``[labels, features]``.
        intercepts: float32 ``[labels]``.
        thresholds: float64 ``[labels]``; a score from it on gives the label.
        options: number of features and length of n-grams.
        labels: their names.
    """

    coefficients: NDArray[np.float32]
    intercepts: NDArray[np.float32]
    thresholds: NDArray[np.float64]
    options: dict[str, int]
    labels: tuple[str, ...] = CONCEPT_LABELS.labels

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Scores 0 to 1, float32 ``[segments, labels]``; each text's depend on that text alone."""
        found = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            features = _features(texts[start : start + _TEXTS_AT_ONCE], self.options)
            odds = np.asarray(features @ self.coefficients.T) + self.intercepts
            found[start : start + _TEXTS_AT_ONCE] = 1 / (1 + np.exp(-odds.astype(np.float64)))
        return found

    def save(self, folder: Path, about: dict[str, Any]) -> None:
        """Write a folder that :func:`load_linear_labeller` reads; ``about`` goes into its ``labeller.json``."""
        from safetensors.numpy import save_file

        folder.mkdir(exist_ok=True)
        save_file({"coefficients": self.coefficients, "intercepts": self.intercepts}, folder / WEIGHTS)
        content = {
            "kind": KIND,
            "labels": list(self.labels),
            **self.options,
            "thresholds": dict(zip(self.labels, self.thresholds.tolist(), strict=True)),
            **about,
        }
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")


def is_linear_labeller(folder: Path) -> bool:
    """Whether a folder holds a linear labeller."""
    return (folder / CONFIG).is_file()


def check_linear_labeller(folder: Path, known: LabelSet | None = None) -> dict[str, Any]:
    """Check a linear labeller from its headers; returns its ``labeller.json``.

    Args:
        folder: the labeller's.
        known: the labels that it should give; any known set where None.

    Raises:
        InputError: a file is missing or damaged, or it is of another kind.
    """
    content = read_json(folder / CONFIG)
    where = str(folder / CONFIG)
    if content.get("kind") != KIND:
        raise InputError(f"expected a labeller of kind '{KIND}', got {content.get('kind')!r}", where=where)
    sets = [known] if known else [CONCEPT_LABELS, ABILITY_LABELS]
    if content.get("labels") not in [list(own.labels) for own in sets]:
        wanted = " or ".join(", ".join(own.labels) for own in sets)
        raise InputError(f"expected the labels {wanted}", where=where)
    names = [str(name) for name in content["labels"]]
    try:
        features = int(content["features"])
        int(content["longest"])
        thresholds = [float(content["thresholds"][name]) for name in names]
        if not all(np.isfinite(thresholds)):
            raise ValueError("a threshold is not finite")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"not the description of a labeller: {error!r}", where=where) from None
    header = read_header(folder / WEIGHTS)
    shapes = {"coefficients": (len(names), features), "intercepts": (len(names),)}
    for name, shape in shapes.items():
        if name not in header or header[name].shape != shape or header[name].dtype != "F32":
            raise InputError(f"expected the tensor {name} of shape {shape}", where=str(folder / WEIGHTS))
    return content


def load_linear_labeller(folder: Path) -> LinearLabeller:
    """Load a linear labeller.

    Raises:
        InputError: a file is missing or damaged, or it is of another kind.
    """
    from safetensors.numpy import load_file

    content = check_linear_labeller(folder)
    tensors = load_file(folder / WEIGHTS)
    labels = tuple(content["labels"])
    thresholds = np.array([content["thresholds"][name] for name in labels], dtype=np.float64)
    options = {"features": int(content["features"]), "longest": int(content["longest"])}
    return LinearLabeller(tensors["coefficients"], tensors["intercepts"], thresholds, options, labels)


def fit_linear_labeller(
    texts: Sequence[str], labels: NDArray[np.bool_], seed: int, names: tuple[str, ...] = CONCEPT_LABELS.labels
) -> LinearLabeller:
    """Learn from labelled texts.

    A label's threshold is set so that texts predicted from the other folds get it as often as they have
    it: proportions of labelled corpora then come out without the bias towards common labels that a
    threshold of one half has.

    Args:
        texts: the segments.
        labels: bool ``[segments, labels]``.
        seed: of the folds.
        names: of the labels.

    Raises:
        InputError: there is no text.
    """
    if not len(texts):
        raise InputError("there is no labelled text to learn from")
    options = {"features": FEATURES, "longest": LONGEST}
    features = _features(texts, options)
    fold = np.random.Generator(np.random.PCG64(seed)).permutation(len(texts)) % FOLDS
    coefficients = np.zeros((len(names), FEATURES), dtype=np.float32)
    intercepts = np.zeros(len(names), dtype=np.float32)
    thresholds = np.full(len(names), 0.5)
    for number in range(len(names)):
        own = labels[:, number]
        weights, intercepts[number] = _fit(features, own)
        coefficients[number] = weights
        held_out = np.zeros(len(texts))
        for part in range(FOLDS):
            rest, chosen = fold != part, fold == part
            if chosen.any() and rest.any():
                weights, intercept = _fit(features[rest], own[rest])
                held_out[chosen] = np.asarray(features[chosen] @ weights) + intercept
        thresholds[number] = _matching_threshold(held_out, int(own.sum()))
    return LinearLabeller(coefficients, intercepts, thresholds, options, names)


def _matching_threshold(odds: NDArray[np.float64], count: int) -> float:
    """The score from which on ``count`` items get the label; halfway to the next item's."""
    if count in (0, len(odds)):
        return 0.5
    ordered = np.sort(odds)[::-1]
    middle = (ordered[count - 1] + ordered[count]) / 2
    return float(1 / (1 + np.exp(-middle)))


def _fit(features: Any, labels: NDArray[np.bool_]) -> tuple[NDArray[np.float32], float]:
    """Coefficients and intercept of one label; a label that all or none have is predicted always or never."""
    from sklearn.linear_model import LogisticRegression

    if labels.all() or not labels.any():
        return np.zeros(features.shape[1], dtype=np.float32), _CERTAIN if labels.all() else -_CERTAIN
    # Buckets without an n-gram keep a coefficient of zero; the solver need not see them.
    used = np.unique(features.indices)
    model = LogisticRegression(C=STRENGTH, solver="lbfgs", max_iter=1000).fit(features[:, used], labels)
    weights = np.zeros(features.shape[1], dtype=np.float32)
    weights[used] = model.coef_[0]
    return weights, float(model.intercept_[0])


def _features(texts: Sequence[str], options: dict[str, int]) -> Any:
    """A sparse float32 matrix ``[segments, features]`` with rows of length 1."""
    from sklearn.feature_extraction.text import HashingVectorizer

    single: Any = np.float32
    vectorizer = HashingVectorizer(
        n_features=options["features"],
        ngram_range=(1, options["longest"]),
        token_pattern=WORDS,
        lowercase=True,
        norm="l2",
        alternate_sign=False,
        dtype=single,
    )
    return vectorizer.transform(texts)
