"""Encoding documents: ``</s>`` in a document is text, not the end of a document.

Corpora, validation texts, perplexity, segments and labelled texts are encoded here, so that all read a document alike.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorkit.data.text.fast_encoder import FastEncoder, fast_encoder

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


class DocumentEncoder:
    """Encodes texts in which the names of special tokens are ordinary text.

    Args:
        tokenizer: a tokenizer of the tokenizers library; its truncation and padding are switched off.
        special: names of special tokens in addition to those that it marks as special.
        fast: whether gigatoken may encode where it gives the same ids.
    """

    def __init__(self, tokenizer: Tokenizer, special: Collection[str] = (), fast: bool = True) -> None:
        names = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
        self._special = sorted(names | set(special))
        self._tokenizer = _without_special_pieces(tokenizer, self._special)
        self._may_be_fast = fast

    @cached_property
    def _fast(self) -> FastEncoder | None:
        self._prepare()
        return fast_encoder(self._tokenizer, self._special) if self._may_be_fast else None

    @property
    def is_fast(self) -> bool:
        """Whether gigatoken encodes."""
        return self._fast is not None

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Encodings with offsets, without tokens that the tokenizer adds."""
        self._prepare()
        return self._tokenizer.encode_batch(list(texts), add_special_tokens=False)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without tokens that the tokenizer adds."""
        self._prepare()
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def flat_ids(self, texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Token ids of all texts one after the other, as :meth:`ids`, and the number of each text's.

        Raises:
            FastEncodingDiffers: this and earlier ids may be wrong; start again with ``fast=False``.
        """
        if self._fast is not None:
            self._prepare()
            return self._fast.encode(texts)
        ids = self.ids(texts)
        lengths = np.array([len(own) for own in ids], dtype=np.int64)
        return np.array([number for own in ids for number in own], dtype=np.int64), lengths

    def leave_fast(self) -> None:
        """Encode with tokenizers from here on."""
        self.__dict__["_fast"] = None

    def _prepare(self) -> None:
        # Each call: the tokenizer may be a transformers tokenizer's, which sets these before its own calls.
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()


def document_encoder(tokenizer: Any) -> DocumentEncoder:
    """The encoder of documents for a fast tokenizer of transformers."""
    return DocumentEncoder(tokenizer.backend_tokenizer, tokenizer.all_special_tokens)


def _without_special_pieces(tokenizer: Tokenizer, special: Collection[str]) -> Tokenizer:
    """A tokenizer that never makes these tokens of text; the given one where it makes none.

    In Unigram (SentencePiece) and word-level models a special token is often a piece as any other, in BPE models
    merges may make one, and an added token may not be marked as special: ``encode_special_tokens`` does not help.
    The pieces get names that occur in no text; all ids stay.
    """
    before = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    made = {name for name in special if _makes(tokenizer, name)}
    tokenizer.encode_special_tokens = before
    if not made:
        return tokenizer
    content = json.loads(tokenizer.to_str())
    model = content["model"]
    made -= {model.get("unk_token")}  # looked up by its name
    names = {name: f"\U0010ffff{name}\U0010ffff" for name in made}
    if isinstance(model["vocab"], list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    else:
        model["vocab"] = {names.get(piece, piece): number for piece, number in model["vocab"].items()}
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not _parts(merge) & made]
    for token in content["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    return type(tokenizer).from_str(json.dumps(content))


def _makes(tokenizer: Tokenizer, name: str) -> bool:
    number = tokenizer.token_to_id(name)
    texts = (name, f"a{name}", f"a {name} a")
    return any(number in encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False))


def _parts(merge: Sequence[str] | str) -> set[str]:
    """The two pieces of a merge and the one that they make."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return {first, second, first + second}
