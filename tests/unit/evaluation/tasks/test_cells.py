from __future__ import annotations

import pytest

from priorkit.evaluation.tasks.cells import list_of_text


@pytest.mark.parametrize("text", ['["a", "\\ud800"]', "['a', '\\ud800']", "('\\udc00',)"])
def test_a_list_in_text_with_half_a_character_is_none(text: str) -> None:
    assert list_of_text(text) is None
    assert list_of_text(text.replace("\\ud800", "b").replace("\\udc00", "b"))
