from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.core.json_text import UnusableJsonError, decode_row, parse_json


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


NESTED = st.recursive(
    st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(NESTED)
def test_a_lone_surrogate_anywhere_is_an_error_and_a_pair_is_a_character(value: object) -> None:
    text = json.dumps(value)  # escapes all that is not ASCII
    written = True
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # Two lone surrogates next to each other are a pair once they are escapes.
        written = _is_text(json.loads(text))
    for given_text in (text, text.encode()):
        if written:
            assert parse_json(given_text) == json.loads(text)
        else:
            with pytest.raises(UnusableJsonError, match="lone surrogate"):
                parse_json(given_text)
    _, end, fault = decode_row(f"[{text}]", 1)
    assert (end, "lone surrogate" in fault) == (len(text) + 1, not written)


def _is_text(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def test_escapes_that_are_characters_or_no_escapes_are_text() -> None:
    assert parse_json(r'["\ud83d\ude00", "\\ud800", "\udbff\udfff"]') == [
        "\U0001f600",
        "\\ud800",
        "\U0010ffff",
    ]


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "c": 2, "a": 3}}]', r'{"a": 1, "\u0061": 2}', '{"a": {}, "b": 1, "a": {}}']
)  # fmt: skip
def test_a_key_twice_in_one_object_is_an_error_for_rows_and_the_last_counts_for_others(text: str) -> None:
    assert parse_json(text) == json.loads(text)
    with pytest.raises(UnusableJsonError, match="the key 'a' is there twice"):
        parse_json(text, unique_keys=True)
    assert "the key 'a' is there twice" in decode_row(text, 0)[2]
    same_key_in_other_objects = '{"a": {"a": 1}, "b": [{"a": 2}, {"a": 3}]}'
    assert parse_json(same_key_in_other_objects, unique_keys=True) == json.loads(same_key_in_other_objects)
