from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.core.errors import InputError
from priorkit.data.corpus.selection import (
    DUPLICATE,
    HELD_OUT,
    HELD_OUT_COPY,
    TRAINED,
    hold_out,
    mark_duplicates,
    no_marks,
)
from priorkit.data.corpus.token_store import TokenizedSource
from tests.support.token_sources import source


def digest(text: int) -> bytes:
    return hashlib.blake2b(str(text).encode(), digest_size=16).digest()


def made(name: str, texts: list[int]) -> TokenizedSource:
    """A source whose documents' lengths follow from their texts."""
    return source(name, [text % 7 + 1 for text in texts], hashes=[digest(text) for text in texts])


texts = st.lists(st.integers(0, 25), min_size=1, max_size=40)


@settings(deadline=None, max_examples=40)
@given(st.lists(texts, min_size=1, max_size=3), st.sampled_from([1, 4, 1 << 20]))
def test_only_the_first_copy_stays(content: list[list[int]], group: int) -> None:
    sources = [made(f"s{n}", own) for n, own in enumerate(content)]
    with TemporaryDirectory() as folder:
        marks = no_marks(sources, Path(folder))
        counts = mark_duplicates(sources, marks, Path(folder), group)
    seen: set[int] = set()
    for own, mark, count in zip(content, marks, counts, strict=True):
        expected = []
        for text in own:
            expected.append(DUPLICATE if text in seen else TRAINED)
            seen.add(text)
        assert mark.tolist() == expected
        assert count == sum(kind == DUPLICATE for kind in expected)


@settings(deadline=None, max_examples=40)
@given(st.lists(texts, min_size=1, max_size=3), st.sampled_from([0.05, 0.3, 5.0]), st.integers(0, 9))
def test_no_text_is_both_held_out_and_trained_on(content: list[list[int]], amount: float, seed: int) -> None:
    sources = [made(f"s{n}", own) for n, own in enumerate(content)]
    with TemporaryDirectory() as folder:
        marks = no_marks(sources, Path(folder))
        try:
            held = hold_out(sources, marks, amount, seed)
        except InputError:
            return
    tested = {
        own[at] for own, mark in zip(content, marks, strict=True) for at in np.flatnonzero(mark == HELD_OUT)
    }
    trained = {
        own[at] for own, mark in zip(content, marks, strict=True) for at in np.flatnonzero(mark == TRAINED)
    }
    assert not tested & trained
    for one, own, mark, part in zip(sources, content, marks, held, strict=True):
        assert part.documents.tolist() == np.flatnonzero(mark == HELD_OUT).tolist()
        lengths = np.diff(one.starts)[part.documents]
        wanted = amount * one.tokens if amount < 1 else amount
        assert part.tokens == lengths.sum() >= min(wanted, sum({text: text % 7 + 1 for text in own}.values()))
        assert part.tokens - lengths.max() < wanted
        assert len({own[at] for at in part.documents}) == len(part.documents)
        assert part.copies == (mark == HELD_OUT_COPY).sum()


def test_the_choice_of_one_source_does_not_depend_on_others(tmp_path: Path) -> None:
    a, b = made("a", list(range(100))), made("b", list(range(1000, 1100)))
    (a_only,) = hold_out([a], no_marks([a], tmp_path), 0.1, 1)
    _, both = hold_out([b, a], no_marks([b, a], tmp_path), 0.1, 1)
    assert np.array_equal(a_only.documents, both.documents)
    (other,) = hold_out([a], no_marks([a], tmp_path), 0.1, 2)
    assert not np.array_equal(a_only.documents, other.documents)


def test_a_source_of_which_nothing_is_left_is_named(tmp_path: Path) -> None:
    sources = [made("a", [1, 2, 3]), made("b", list(range(50)))]
    with pytest.raises(InputError, match="of 'a' nothing is left to train on: 3 documents"):
        hold_out(sources, no_marks(sources, tmp_path), 10, 1)
