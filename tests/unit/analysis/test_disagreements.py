"""The reason why an item's scores differ is the first that certainly explains it."""

from __future__ import annotations

from typing import Any

import pytest

from priorkit.analysis.disagreements import REASONS, UNEXPLAINED, changed_conditions, reason_of, sentences

SAME: dict[str, Any] = {"prompt": "What?", "prediction": "a dog", "image_tokens": 4}


@pytest.mark.parametrize(
    ("first", "second", "changed", "reason"),
    [
        ({"withheld": True}, {}, {}, "withheld"),
        ({"parsed": 1}, {"parsed": None}, {"precision": ["fp32", "bf16"]}, "parser"),
        ({"prediction": "a dog on"}, {}, {}, "length"),
        ({"prompt": "Which?", "prediction": "a cat"}, {}, {"model": [1, 2]}, "prompt"),
        ({"prompt": "What? ", "prediction": "a cat"}, {}, {}, UNEXPLAINED),
        ({"image_tokens": 9, "prediction": "a cat"}, {}, {"backend": [1, 2]}, "images"),
        ({"prediction": "a cat"}, {}, {"max_image_pixels": [None, 9]}, "preparation"),
        ({"prediction": "a cat"}, {}, {"model": [1, 2], "precision": [1, 2]}, "model"),
        ({"prediction": "a cat"}, {"prompt": ""}, {"template": [1, 2]}, "template"),
        ({"prediction": "a cat"}, {}, {"precision": ["fp32", "bf16"], "backend": [1, 2]}, "precision"),
        ({"prediction": "a cat"}, {}, {"backend": [1, 2]}, "backend"),
        ({"prediction": "", "loglikelihoods": [1]}, {"prediction": ""}, {}, UNEXPLAINED),
    ],
)
def test_reasons(first: dict[str, Any], second: dict[str, Any], changed: dict[str, Any], reason: str) -> None:
    assert reason_of({**SAME, **first}, {**SAME, **second}, changed) == reason
    assert reason_of({**SAME, **second}, {**SAME, **first}, changed) == reason
    assert sentences([reason])[0] == REASONS.get(reason, ["nothing that was recorded differs"])[0]


def test_only_conditions_that_both_know_are_compared() -> None:
    asked = {"backend": "vllm", "precision": "bf16", "images": "x"}
    first = {"model": {"digest": "a", "blind": False}, "asked": asked}
    assert changed_conditions(first, {"model": None}) == {}
    assert changed_conditions(first, {"model": {"digest": "b", "blind": False}, "asked": {"precision": "fp32"}}) == {
        "model": ["a", "b"], "precision": ["bf16", "fp32"],
    }  # fmt: skip
