"""Sequences in unnamed files: those of a list, in every order of reading, also in forked processes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from priorkit.data.spool import Spool, SpooledSequence

WORDS = [f"word {number} " + "é" * (number % 5) for number in range(2500)]


def sequence(folder: Path) -> SpooledSequence[str]:
    words = SpooledSequence[str](folder, str.encode, bytes.decode)
    for word in WORDS:
        words.append(word)
    words.flush()
    return words


def test_a_sequence_is_the_list_of_what_was_appended(tmp_path: Path) -> None:
    words = sequence(tmp_path)
    assert len(words) == len(WORDS)
    assert list(words) == WORDS
    assert [words[place] for place in (0, 7, 1023, 1024, 2499, -1)] == [
        WORDS[place] for place in (0, 7, 1023, 1024, 2499, -1)
    ]
    for part in (
        slice(None),
        slice(5, 9),
        slice(1000, 1100),
        slice(None, None, 7),
        slice(9, 5),
        slice(-3, None),
    ):
        assert words[part] == WORDS[part]
    with pytest.raises(IndexError):
        words[2500]
    assert list(tmp_path.iterdir()) == []


def test_chosen_values_are_a_sequence_too(tmp_path: Path) -> None:
    places = np.array([place for place in range(2500) if place % 3])
    chosen = sequence(tmp_path).choose(places)
    expected = [WORDS[place] for place in places]
    assert list(chosen) == expected
    assert chosen[900:1300] == expected[900:1300]
    assert (chosen[-1], len(chosen)) == (expected[-1], len(expected))
    assert list(chosen.choose(np.arange(3, 900, 2))) == expected[3:900:2]


def test_what_is_appended_later_can_be_read_after_flushing_again(tmp_path: Path) -> None:
    words = sequence(tmp_path)
    words.append("")
    words.append("last")
    words.flush()
    assert words[2499:] == [WORDS[-1], "", "last"]


def test_a_forked_process_reads_while_its_parent_does(tmp_path: Path) -> None:
    words = sequence(tmp_path)
    child = os.fork()
    if child == 0:
        os._exit(0 if list(words) == WORDS else 1)
    assert list(words) == WORDS
    assert os.waitpid(child, 0)[1] == 0


def test_several_parts_of_bytes_are_one_span(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.add(b"ab", b"", b"cde") == (0, 5)
    assert spool.add(b"f") == (5, 1)
    spool.flush()
    assert (spool.read((0, 5)), spool.read((5, 1)), spool.read((2, 0))) == (b"abcde", b"f", b"")
