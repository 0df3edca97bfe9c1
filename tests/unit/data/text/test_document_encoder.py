"""Documents with the names of special tokens: text for every reader, whatever the tokenizer's model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from priorkit.data.corpus.tokenizer_files import load_document_encoder, read_tokenizer
from priorkit.data.text.document_encoder import DocumentEncoder, document_encoder
from priorkit.data.text.segments import Record, segments_of
from priorkit.training.engine.validation_loss import ValidationText

SPECIAL = ("<pad>", "</s>", "<unk>")
LETTERS = "▁abcdefghijklmnopqrstuvwxyz</>|"


def unigram() -> Tokenizer:
    """As T5's and XLM-R's: special tokens are pieces."""
    pieces = [*((name, 0.0) for name in SPECIAL), *((letter, -5.0) for letter in LETTERS)]
    tokenizer = Tokenizer(models.Unigram([*pieces, ("▁the", -2.0), ("o</s>", -30.0)], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def merging() -> Tokenizer:
    """BPE whose merges make the end token."""
    vocabulary = {piece: number for number, piece in enumerate([*SPECIAL, *LETTERS, "</", "s>"])}
    merges = [("<", "/"), ("s", ">"), ("</", "s>")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def added() -> Tokenizer:
    """BPE with an end token that is added but not marked as special."""
    vocabulary = {piece: number for number, piece in enumerate(["<pad>", "<unk>", *LETTERS])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_tokens([AddedToken("</s>", special=False)])
    return tokenizer


TOKENIZERS = {"unigram": unigram, "merging": merging, "added": added}


def saved(kind: str, folder: Path, mark: bool = True) -> Path:
    """A tokenizer's folder; without marks only ``tokenizer_config.json`` says what is special."""
    tokenizer = TOKENIZERS[kind]()
    if mark and kind != "added":
        tokenizer.add_special_tokens(["<pad>", "</s>"])
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "pad_token": {"__type": "AddedToken", "content": "<pad>"},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("mark", [True, False])
def test_special_tokens_in_documents_are_text_for_every_reader(kind: str, mark: bool, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path, mark)
    files = read_tokenizer(folder)
    encoder = load_document_encoder(str(files.path))
    fast: Any = PreTrainedTokenizerFast.from_pretrained(folder)
    theirs = document_encoder(fast)
    special = {files.end, files.padding}
    assert special == {fast.eos_token_id, fast.pad_token_id}
    fast("anything", truncation=True, max_length=2, padding="max_length")
    for text in ("</s>", "the end</s> of it", "a </s></s> b<pad>", "foo</s>o</s>", "<tool> the</s>"):
        (ids,) = encoder.ids([text])
        assert not special & set(ids)
        assert fast.decode(ids, clean_up_tokenization_spaces=False).strip() == text
        assert theirs.ids([text]) == [ids]
        assert [encoding.ids for encoding in encoder.encode_batch([text])] == [ids]
        if "<tool>" in text:
            assert fast.convert_tokens_to_ids("<tool>") in ids
        validation = ValidationText([text], fast, 64, 1)
        assert validation._ids_RT[0, : len(ids) + 1].tolist() == [*ids, files.end]
        (segment,) = segments_of(iter([Record("1", text, "")]), "s", fast, 64)
        assert segment.tokens == len(ids)
    # What transformers does afterwards is as before.
    assert fast.eos_token_id in fast("the</s>", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(deadline=None, max_examples=100)
@given(text=st.text(st.sampled_from("abotehs <>/|é"), max_size=30))
def test_other_texts_have_the_tokens_of_the_tokenizer(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    (ids,) = DocumentEncoder(tokenizer, {"</s>", "<pad>"}).ids([text])
    if "</s>" not in text and "<pad>" not in text:
        assert ids == TOKENIZERS[kind]().encode(text, add_special_tokens=False).ids
    assert not {tokenizer.token_to_id("</s>"), tokenizer.token_to_id("<pad>")} & set(ids)


def test_a_tokenizer_whose_text_makes_no_special_token_is_used_as_it_is() -> None:
    tokenizer = merging()
    assert DocumentEncoder(tokenizer)._tokenizer is tokenizer
