"""Language-model metrics against lm-evaluation-harness."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.core.errors import InputError
from priorkit.scoring.answers.language_metrics import (
    RollingText,
    bits_per_byte,
    count_bytes,
    count_words,
    predict_choice,
)
from tests.support.golden import cases, load
from tests.support.scoring_references import perplexity, text_metrics

CHOICES = [case for case in cases("lm_harness") if case["input"]["kind"] == "multiple_choice"]
TEXTS = [case for case in cases("lm_harness") if case["input"]["kind"] == "rolling"]


@pytest.mark.parametrize("case", CHOICES, ids=lambda case: case["why"])
def test_choice(case):
    expected = case["expected"]
    predicted = predict_choice(expected["loglikelihood"], case["input"]["choices"])
    assert predicted.by_sum == expected["pred"]
    assert predicted.by_characters == expected["pred_norm"]
    assert predicted.by_bytes == expected["pred_bytes"]
    for name, value in predicted.accuracies(case["input"]["gold"]).items():
        assert value == expected[name]


@pytest.mark.parametrize("name", ["acc", "acc_norm", "acc_bytes"])
def test_accuracy_over_the_set(name):
    scores = [
        predict_choice(case["expected"]["loglikelihood"], case["input"]["choices"]).accuracies(
            case["input"]["gold"]
        )[name]
        for case in CHOICES
    ]
    assert sum(scores) / len(scores) == pytest.approx(load("lm_harness")["aggregate"][name], abs=1e-12)


def test_rolling_texts():
    for case in TEXTS:
        assert count_words(case["input"]["text"]) == case["expected"]["words"]
        assert count_bytes(case["input"]["text"]) == case["expected"]["bytes"]
    metrics = text_metrics(RollingText.of(c["input"]["text"], c["expected"]["loglikelihood"]) for c in TEXTS)
    expected = load("lm_harness")["aggregate"]
    for name in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
        assert getattr(metrics, name) == pytest.approx(expected[name], rel=1e-12)


@given(st.integers(2, 5000), st.integers(1, 300))
def test_a_uniform_model_has_its_vocabulary_as_perplexity(vocabulary, tokens):
    loglikelihood = -tokens * math.log(vocabulary)
    assert perplexity(loglikelihood, tokens) == pytest.approx(vocabulary)
    assert bits_per_byte(loglikelihood, tokens) == pytest.approx(math.log2(vocabulary))


def test_extremes():
    assert perplexity(-1e9, 1) == math.inf
    with pytest.raises(InputError, match="positive count"):
        perplexity(-1.0, 0)
    with pytest.raises(InputError, match="2 log-likelihoods for 1 choices"):
        predict_choice([-1.0, -2.0], ["a"])
    assert predict_choice([-1.0, -2.0], ["", "a"]).by_characters == 1
