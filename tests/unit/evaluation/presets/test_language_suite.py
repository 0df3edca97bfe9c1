"""The presets of the language suite give what lm-evaluation-harness asks, on rows in the published columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from priorkit.evaluation.benchmarks.column_mapping import mapped
from priorkit.evaluation.presets.loading import preset, suite
from priorkit.evaluation.tasks.base import ScoringOptions
from priorkit.evaluation.tasks.continuation import CONTINUATION
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.evaluation.tasks.registry import TASKS

ROWS = {
    "piqa": (
        {"goal": "To cool tea", "sol1": "blow", "sol2": "boil", "label": 0},
        {"question": "Question: To cool tea\nAnswer:", "choices": ["blow", "boil"], "answer": 0},
    ),
    "hellaswag": (
        {
            "ind": 4, "activity_label": "Tea", "ctx_a": "[header] How to pour [title] Take a pot.",
            "ctx_b": "the Pot", "endings": ["is  full.", "[substeps] runs.", "c", "d"], "label": "1",
        },
        {
            "question": "Tea: How to pour. Take a pot. The pot",
            "choices": ["is full.", " runs.", "c", "d"], "answer": 1,
        },
    ),
    "winogrande": (
        {"sentence": "Ann thanked Eve because _ had helped.", "option1": "Ann", "option2": "Eve", "answer": "2"},
        {
            "contexts": ["Ann thanked Eve because Ann", "Ann thanked Eve because Eve"], "text": "had helped.",
            "answer": 1,
        },
    ),
    "arc-easy": (
        {"id": "q1", "question": "What is wet?", "choices": {"text": ["sand", "rain"], "label": ["A", "B"]}, "answerKey": "B"},
        {"question": "Question: What is wet?\nAnswer:", "choices": ["sand", "rain"], "answer": 1},
    ),
    "arc-challenge": (
        {"id": "q2", "question": "Which?", "choices": {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, "answerKey": "3"},
        {"question": "Question: Which?\nAnswer:", "choices": ["x", "y", "z"], "answer": 2},
    ),
    "copa": (
        {"idx": 3, "premise": "The glass fell.", "choice1": "It broke.", "choice2": "It flew.", "question": "effect", "label": 0},
        {"question": "The glass fell therefore", "choices": ["it broke.", "it flew."], "answer": 0},
    ),
    "sciq": (
        {
            "support": " Ice floats.", "question": "What floats?", "distractor1": "a", "distractor2": "b",
            "distractor3": "c", "correct_answer": "ice",
        },
        {"question": "Ice floats.\nQuestion: What floats?\nAnswer:", "choices": ["a", "b", "c", "ice"], "answer": 3},
    ),
    "openbookqa": (
        {"id": "o", "question_stem": "The sun is", "choices": {"text": ["hot", "cold"], "label": ["A", "B"]}, "answerKey": "A"},
        {"question": "The sun is", "choices": ["hot", "cold"], "answer": 0},
    ),
    "boolq": (
        {"idx": 0, "passage": "Tea is hot.", "question": "is tea hot", "label": 1},
        {"question": "Tea is hot.\nQuestion: is tea hot?\nAnswer:", "choices": ["no", "yes"], "answer": 1},
    ),
    "lambada": (
        {"text": "he took the tea and drank the tea"},
        {"question": "he took the tea and drank the", "answer": "tea"},
    ),
    "wikitext": ({"page": " = Tea = \n It is hot , says 1 @,@ 000 ."}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_published_row_becomes_the_harness_question(name: str) -> None:
    row, expected = ROWS[name]
    built_in = preset(name)
    (found,) = mapped(built_in, row, Path())
    assert {key: found[key] for key in expected} == expected
    assert built_in.licence
    assert built_in.source.startswith("https://")
    assert built_in.data.items > 0
    read = TASKS[built_in.task].read_truth(found)
    assert all(key in found or key in read for key in TASKS[built_in.task].columns)
    if name == "wikitext":
        assert "1,000" in found["text"]


def test_the_suites_are_the_papers() -> None:
    names = {name for one in ("lsbs-language", "lsbs-perplexity") for name in suite(one).members}
    assert names == set(ROWS)


def test_perplexity_of_continuations() -> None:
    items = [Item("a", choices=("x",), answer=0), Item("b", choices=("y",), answer=0)]
    answers = [
        ModelAnswer(loglikelihoods=(-1.0,), tokens=(1,)),
        ModelAnswer(loglikelihoods=(-3.0,), tokens=(2,)),
    ]
    scored = CONTINUATION.score(items, answers, ScoringOptions())
    assert scored.metrics(scored.counts.sum(0))["perplexity"] == pytest.approx(np.exp(2.0))
    assert scored.scores == [-1.0, -3.0]
    with pytest.raises(ValueError, match="'answer'"):
        CONTINUATION.read_truth({"answer": " "})
