"""Which answers abstain."""

from __future__ import annotations

import pytest

from priorkit.scoring.answers.refusals import abstains
from priorkit.scoring.answers.yes_no import read_yes_no_strict


@pytest.mark.parametrize(
    "answer",
    [
        "Sorry, I cannot help with that.",
        "I can't assist with this request.",
        "I’m unable to determine the colour.",
        "Unable to determine.",
        "It is unclear from the image.",
        "It's not clear whether the light is on.",
        "Unclear.",
        "I can not see the picture",
        "I'm sorry, but I can't see any image.",
    ],
)
def test_declining(answer):
    assert abstains(answer)


@pytest.mark.parametrize(
    "answer",
    ["I'm sorry, but I can swim.", "You cannot help but see the dog.", "unclear water", "A cat", "", "no"],
)
def test_answering(answer):
    assert not abstains(answer)


@pytest.mark.parametrize(
    ("answer", "reading"),
    [
        ("I'm not sure", None),
        ("I cannot tell.", None),
        ("No image was provided.", None),
        ("Sorry, I cannot help with that.", None),
        ("No, I cannot see a dog.", "no"),
        ("No dog is there", "no"),
        ("The dog cannot be seen.", "no"),
        ("Yes, but I'm not sure of its breed.", "yes"),
    ],
)
def test_an_abstention_is_neither_yes_nor_no(answer, reading):
    assert read_yes_no_strict(answer) == reading
