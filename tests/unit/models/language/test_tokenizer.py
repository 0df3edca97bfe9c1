"""A vocabulary smaller than asked for is said, by both kinds of tokenizers."""

from __future__ import annotations

import pytest

from priorkit.models.language.tokenizer import train_bpe
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
