"""A vocabulary smaller than asked for is said, by both kinds of tokenizers."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.models.language import tokenizer as module
from priorkit.models.language.tokenizer import LONGEST_WORD, train_bpe
from priorkit.models.vision.caption_tokenizer import train_caption_tokenizer


@pytest.mark.parametrize("wanted", [270, 5000])
@pytest.mark.parametrize("kind", ["text", "captions"])
def test_a_vocabulary_smaller_than_asked_for_is_said(
    caplog: pytest.LogCaptureFixture, kind: str, wanted: int
) -> None:
    texts = ["the heron stands in the water near the reeds"] * 3
    with caplog.at_level("WARNING", logger="priorkit"):
        if kind == "text":
            size = train_bpe(texts, wanted).get_vocab_size()
        else:
            size = len(train_caption_tokenizer(texts, wanted, 16))
    assert len(caplog.records) == (size < wanted) == (wanted == 5000)
    if size < wanted:
        assert f"the vocabulary has {size:,} tokens instead of 5,000" in caplog.text


WORDS = st.text("abé 漢.-\n'1", max_size=40)


@given(st.lists(WORDS, max_size=20), st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_words_up_to_the_limit_give_the_same_tokenizer_as_without_it(texts: list[str], long: int) -> None:
    # Two bytes a letter, and a word of exactly the limit.
    texts += ["a b a b"] * 3 + ["é" * (LONGEST_WORD // 2), "-" * LONGEST_WORD][:long]
    assert train_bpe(texts, 320).to_str() == trained_without_limit(texts, 320)


def trained_without_limit(texts: list[str], size: int) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, "train_on_words", lambda made, texts, trainer: made.train_from_iterator(texts, trainer)
        )
        return train_bpe(texts, size).to_str()


@pytest.mark.parametrize("letters", ["abc", "=-", "漢字", " "])
def test_a_longer_word_is_trained_on_in_pieces_and_encoded_whole(letters: str) -> None:
    width = len(letters[0].encode())
    word = "".join(random.Random(0).choices(letters, k=LONGEST_WORD // width * 2 + 7))
    pieces = word.encode()
    parts = [pieces[start : start + LONGEST_WORD] for start in range(0, len(pieces), LONGEST_WORD)]
    made = train_bpe([word, "some words"], 300)
    if LONGEST_WORD % width == 0 and letters.strip():
        assert made.to_str() == trained_without_limit([*(part.decode() for part in parts), "some words"], 300)
    assert made.decode(made.encode(word).ids) == word
    assert str(LONGEST_WORD) not in json.dumps(json.loads(made.to_str())["pre_tokenizer"])
