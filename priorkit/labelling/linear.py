"""A fast labeller: hashed word n-grams and one logistic regression per label, trained on a model's labels.

Its folder holds ``labeller.json`` (feature options, thresholds, agreement with the model whose labels it was
trained on) and ``labeller.safetensors`` (``coefficients`` float32 ``[labels, features]``, ``intercepts``
float32 ``[labels]``). Words are hashed by MurmurHash3 as in scikit-learn's ``HashingVectorizer``, so there is
no vocabulary to store.
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
from priorkit.labelling.base import SegmentScores
from priorkit.models.folder import read_json

CONFIG = "labeller.json"
WEIGHTS = "labeller.safetensors"

KIND = "hashed n-grams, logistic regression"

FEATURES = 1 << 18
"""Buckets that n-grams are hashed into."""

LONGEST = 2
"""Length of the longest n-gram in words."""

TOKEN_PATTERN = r"(?u)\w+|[^\w\s]"
"""A run of letters and digits, or one symbol: brackets and operators distinguish code and mathematics from prose."""

INVERSE_REGULARIZATION = 30.0
"""scikit-learn's ``C``."""

FOLDS = 3
"""Cross-validation folds from whose predictions the thresholds are set."""

_CERTAIN = 20.0
"""Log-odds of a label that all or no texts have."""

_BATCH_TEXTS = 1024


@dataclass(frozen=True)
class LinearLabeller:
    """Coefficients and thresholds of all labels.

    Attributes:
        coefficients: float32 ``[labels, features]``.
        intercepts: float32 ``[labels]``.
        thresholds: decision thresholds, float64 ``[labels]``.
        options: number of features, and length of the longest n-gram.
        labels: names of the labels.
    """

    coefficients: NDArray[np.float32]
    intercepts: NDArray[np.float32]
    thresholds: NDArray[np.float64]
    options: dict[str, int]
    labels: tuple[str, ...] = CONCEPT_LABELS.labels

    def score(self, texts: Sequence[str]) -> SegmentScores:
        """Score segments, never truncated; a segment's scores depend only on its text."""
        scores = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        for start in range(0, len(texts), _BATCH_TEXTS):
            features = _features(texts[start : start + _BATCH_TEXTS], self.options)
            odds = np.asarray(features @ self.coefficients.T) + self.intercepts
            scores[start : start + _BATCH_TEXTS] = 1 / (1 + np.exp(-odds.astype(np.float64)))
        return SegmentScores(scores, *np.zeros((2, len(texts)), dtype=np.bool_))

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


def check_linear_labeller(folder: Path, label_set: LabelSet | None = None) -> dict[str, Any]:
    """Check a linear labeller from its headers; returns its ``labeller.json``.

    Args:
        folder: folder of the labeller.
        label_set: the labels that it should give; either set where None.

    Raises:
        InputError: a file is missing or damaged, or it is of another kind.
    """
    content = read_json(folder / CONFIG)
    where = str(folder / CONFIG)
    if content.get("kind") != KIND:
        raise InputError(f"expected a labeller of kind '{KIND}', got {content.get('kind')!r}", where=where)
    label_sets = [label_set] if label_set else [CONCEPT_LABELS, ABILITY_LABELS]
    if content.get("labels") not in [list(each.labels) for each in label_sets]:
        expected = " or ".join(", ".join(each.labels) for each in label_sets)
        raise InputError(f"expected the labels {expected}", where=where)
    names = [str(name) for name in content["labels"]]
    try:
        features = int(content["features"])
        int(content["longest"])
        thresholds = [float(content["thresholds"][name]) for name in names]
        if not all(np.isfinite(thresholds)):
            raise ValueError("a threshold is not finite")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"not a valid description of a labeller: {error!r}", where=where) from None
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
    """Train on labelled texts.

    A label's threshold is set so that the cross-validated predictions give it as often as the texts have it:
    a threshold of one half would bias the proportions of labelled corpora towards common labels.

    Args:
        texts: the segments.
        labels: bool ``[segments, labels]``.
        seed: seed of the folds.
        names: names of the labels.

    Raises:
        InputError: there is no text.
    """
    if not len(texts):
        raise InputError("there is no labelled text to train on")
    options = {"features": FEATURES, "longest": LONGEST}
    features = _features(texts, options)
    fold = np.random.Generator(np.random.PCG64(seed)).permutation(len(texts)) % FOLDS
    coefficients = np.zeros((len(names), FEATURES), dtype=np.float32)
    intercepts = np.zeros(len(names), dtype=np.float32)
    thresholds = np.full(len(names), 0.5)
    for number in range(len(names)):
        has_label = labels[:, number]
        weights, intercepts[number] = _fit(features, has_label)
        coefficients[number] = weights
        held_out = np.zeros(len(texts))
        for part in range(FOLDS):
            rest, chosen = fold != part, fold == part
            if chosen.any() and rest.any():
                weights, intercept = _fit(features[rest], has_label[rest])
                held_out[chosen] = np.asarray(features[chosen] @ weights) + intercept
        thresholds[number] = _matching_threshold(held_out, int(has_label.sum()))
    return LinearLabeller(coefficients, intercepts, thresholds, options, names)


def _matching_threshold(odds: NDArray[np.float64], count: int) -> float:
    """The threshold at which ``count`` items get the label: midway between the scores of the last and the next."""
    if count in (0, len(odds)):
        return 0.5
    ordered = np.sort(odds)[::-1]
    middle = (ordered[count - 1] + ordered[count]) / 2
    return float(1 / (1 + np.exp(-middle)))


def _fit(features: Any, labels: NDArray[np.bool_]) -> tuple[NDArray[np.float32], float]:
    """Coefficients and intercept of one label; a label that all or no texts have is predicted always or never."""
    from sklearn.linear_model import LogisticRegression

    if labels.all() or not labels.any():
        return np.zeros(features.shape[1], dtype=np.float32), _CERTAIN if labels.all() else -_CERTAIN
    # Buckets without an n-gram keep a coefficient of zero, so they are left out of the fit.
    used = np.unique(features.indices)
    model = LogisticRegression(C=INVERSE_REGULARIZATION, solver="lbfgs", max_iter=1000).fit(
        features[:, used], labels
    )
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
        token_pattern=TOKEN_PATTERN,
        lowercase=True,
        norm="l2",
        alternate_sign=False,
        dtype=single,
    )
    return vectorizer.transform(texts)
