from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.core.json_text import parse_json


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, "[1, -" + "9" * 9000 + "]", "nul", b"[1"]
)
def test_all_that_cannot_be_read_is_one_error(text: str | bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json(text)


def test_bytes_that_are_not_text_are_named_as_such() -> None:
    with pytest.raises(UnicodeDecodeError):
        parse_json(b'"\xff\xff"')


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_the_rest_is_read_as_json(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
