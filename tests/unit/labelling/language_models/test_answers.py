"""Labels are read from answers as a person would read them."""

from __future__ import annotations

import pytest

from priorkit.data.text.concepts import ABILITY_LABELS, CONCEPT_LABELS
from priorkit.labelling.language_models.answers import parse_labels
from priorkit.labelling.language_models.prompts import GenerationPrompt, read_prompts

NAMES = {name: name.replace("_", " ") for name in CONCEPT_LABELS.labels}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("visual concept, math reasoning", {"visual_concept", "math_reasoning"}),
        ("- **Visual concept**: cats\n- visual attribute (red)\n", {"visual_concept", "visual_attribute"}),
        ("1. code_reasoning\n2. Science-Reasoning.", {"code_reasoning", "science_reasoning"}),
        ("visual concept and visual relationship", {"visual_concept", "visual_relationship"}),
        ("Labels: 'visual concept'; \"code reasoning\"", {"visual_concept", "code_reasoning"}),
        ("None", set()),
        ("None.", set()),
        ("<think>math reasoning? no, none ... visual concept</think>\n\nNone", set()),
        ("<think>none</think>code reasoning", {"code_reasoning"}),
        ("The paragraph is mostly about visual attributes.", {"visual_attribute"}),
        ("It shows math reasoning but no code reasoning here", {"math_reasoning"}),
        ("None of the labels applies", set()),
        ("I like turtles", None),
        ("There is no visual concept here", None),
        ("", None),
    ],
)
def test_concepts(answer: str, expected: set[str] | None) -> None:
    assert parse_labels(answer, NAMES, ["None"]) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("PERCEPTION", {"perception"}),
        ("Others", set()),
        ("reasoning - it takes physics", {"reasoning"}),
        ("The class is REASONING.", {"reasoning"}),
        ("yes", None),
    ],
)
def test_abilities_by_the_shipped_prompt(answer: str, expected: set[str] | None) -> None:
    prompt = read_prompts(None, "generation", ABILITY_LABELS)["chat"]
    assert isinstance(prompt, GenerationPrompt)
    assert parse_labels(answer, prompt.names, prompt.none) == expected
