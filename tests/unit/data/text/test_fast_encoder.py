"""gigatoken instead of tokenizers: the same ids, or none at all."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from priorkit.data.text import fast_encoder as module
from priorkit.data.text.document_encoder import DocumentEncoder
from priorkit.data.text.fast_encoder import FastEncoder, FastEncodingDiffers, fast_encoder
from priorkit.models.language.tokenizer import save_tokenizer, train_bpe
from priorkit.models.language.word_splitting import PATTERNS, WordSplitting
from tests.support.gigatoken import StandIn, stand_in  # noqa: F401

TEXTS = ["The heron's 12 wings, in 2024.", "def f(x):\n    return x ** 2\n", "über  naïve\u2019s é"] * 4
installed = importlib.util.find_spec("gigatoken") is not None
needs_gigatoken = pytest.mark.skipif(not installed, reason="gigatoken is not installed (extra 'fast')")


def trained(words: WordSplitting = "qwen2") -> Tokenizer:
    tokenizer = train_bpe(TEXTS, 320, words)
    tokenizer.encode_special_tokens = True
    return tokenizer


def encoded(encoder: FastEncoder | DocumentEncoder, texts: Sequence[str]) -> list[list[int]]:
    ids, lengths = (encoder.encode if isinstance(encoder, FastEncoder) else encoder.flat_ids)(texts)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


@needs_gigatoken
@pytest.mark.parametrize("words", [name for name in PATTERNS if name != "digits"])
def test_ids_are_those_of_tokenizers(words: WordSplitting) -> None:
    tokenizer = trained(words)
    encoder = fast_encoder(tokenizer, ["<s>", "</s>"])
    assert encoder is not None
    texts = [*TEXTS, *module.SAMPLE, "a </s> b<s>", "<image>"]
    expected = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    assert encoded(encoder, texts) == expected


@needs_gigatoken
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_has_the_ids_of_tokenizers(text: str) -> None:
    if not hasattr(module, "_example"):
        tokenizer = trained()
        module._example = tokenizer, FastEncoder(tokenizer, ["<s>", "</s>", "<pad>", "<image>"])  # type: ignore[attr-defined]
    tokenizer, encoder = module._example  # type: ignore[attr-defined]
    assert encoded(encoder, [text, ""]) == [tokenizer.encode(text, add_special_tokens=False).ids, []]


@needs_gigatoken
def test_a_scheme_that_gigatoken_does_not_know_is_left_to_tokenizers() -> None:
    assert fast_encoder(trained("digits")) is None
    assert not DocumentEncoder(trained("digits")).is_fast


def test_without_gigatoken_tokenizers_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    encoder = DocumentEncoder(trained())
    assert not encoder.is_fast
    assert encoded(encoder, TEXTS) == encoder.ids(TEXTS)


@pytest.mark.usefixtures("stand_in")
def test_documents_are_encoded_and_compared_at_a_fixed_rate() -> None:
    tokenizer = trained()
    encoder = DocumentEncoder(tokenizer, ["<s>"])
    assert encoder.is_fast
    texts = [f"text {number} </s>" for number in range(module.COMPARED_DOCUMENTS + 1)]
    assert encoded(encoder, texts[:-1]) == encoder.ids(texts[:-1])
    # The next document's number is a multiple of the rate, so it is compared.
    with pytest.raises(FastEncodingDiffers, match="WRONG"):
        encoder.flat_ids(["WRONG"])
    between = DocumentEncoder(tokenizer)
    between.flat_ids(["first"])
    assert encoded(between, ["WRONG"])[0][-1] == 5  # not compared: this is what the rate leaves


@pytest.mark.usefixtures("stand_in")
def test_an_encoder_with_other_ids_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", ("WRONG",))
    assert fast_encoder(trained()) is None


@pytest.mark.usefixtures("stand_in")
def test_the_encoder_is_made_again_before_its_caches_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEWED_AFTER", 100)
    encoder = FastEncoder(trained())
    before = StandIn.made
    for _ in range(10):
        encoder.encode(["x" * 40])
    assert StandIn.made - before == 3


@pytest.mark.usefixtures("stand_in")
def test_a_difference_tokenizes_the_corpus_again_with_the_same_bytes(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPARED_DOCUMENTS", 1)
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    rows = [f'{{"text": "document {number} of some words"}}\n' for number in range(400)]
    good.write_text("".join(rows))
    bad.write_text("".join(rows[:300]) + '{"text": "WRONG words"}\n')
    save_tokenizer(train_bpe(TEXTS, 320), tmp_path / "tokenizer")
    options = ("--tokenizer", tmp_path / "tokenizer", "--context-length", 16, "--workers", 1)
    files: list[list[bytes]] = []
    for fast in (True, False):
        if not fast:
            monkeypatch.setitem(sys.modules, "gigatoken", None)
        from priorkit.data.corpus import tokenizer_files

        tokenizer_files._encoder.cache_clear()
        found = cli("mix", f"a={good}", f"b={bad}", *options, "--out", tmp_path / str(fast))
        assert found.code == 0, found.err
        assert ("are tokenized again, by tokenizers only" in found.err) == fast
        files.append([path.read_bytes() for path in sorted(found.path.glob("tokens-*"))])
    assert files[0] == files[1]
