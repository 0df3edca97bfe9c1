"""gigatoken instead of tokenizers where it knows a tokenizer's scheme: the same ids, some fifty times as fast.

It knows the byte-level BPE of GPT-2, Llama 3, Qwen 2 and others, and refuses the rest. That its ids are those of
tokenizers is not taken on trust: they are compared when an encoder is made, and on a fixed share of the documents that
it encodes. A difference ends its use; whoever has used its ids before starts again without it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

COMPARED_DOCUMENTS = 256
"""One of so many documents is compared, and the first one of every encoder."""

COMPARED_CHARACTERS = 1 << 16
"""Characters of a document that are compared: its beginning, which both libraries then encode by itself."""

RENEWED_AFTER = 32 << 20
"""Characters after which the encoder is made again, which takes milliseconds: its caches of words only grow. Random
words of eight letters fill some 40 bytes per word."""

SAMPLE = (
    "The grey heron's wings: 3.14, 1234567 (ten) and 50%!\n\n  def f(x):\n\treturn x**2  # ok\r\n",
    "e\u0301 \u00e9 \ufb01 \u00a0\u3000 \u2028 \U0001f600\U0001f1e9\U0001f1ea \u0663\u0664 \u00bd\u00b2 \u4e2d\u6587\u5b57 \u05d0\u05d1 \u0e01\u0e33",
    "it's IT'S we'll 'LL don't\u2019t x'y \u017fs 'S \u212a",
    "a" * 3000 + " " * 500 + "\n" * 300 + "-" * 700 + "ab1" * 400,
    " lead\ttab\x00\x07\x7f  trail  ",
    "",
)
"""Texts on which libraries disagree if at all: contractions, marks, digits of other scripts, blanks, long runs."""


class FastEncodingDiffers(Exception):
    """gigatoken's ids of a document are not those of tokenizers."""


class FastEncoder:
    """Encodes documents with gigatoken.

    Args:
        tokenizer: of the tokenizers library, which makes no special token of text.
        special: names that are text in documents.

    Raises:
        ImportError: gigatoken is not installed.
        ValueError: it does not know this scheme, or has other ids.
    """

    def __init__(self, tokenizer: Tokenizer, special: Collection[str] = ()) -> None:
        content = json.loads(tokenizer.to_str())
        content["added_tokens"] = [
            token
            for token in content.get("added_tokens", ())
            if not token["special"] and token["content"] not in special
        ]
        content["truncation"] = content["padding"] = content["post_processor"] = None
        self._content, self._tokenizer = json.dumps(content), tokenizer
        self._encoder = self._new()
        self._documents = self._characters = 0
        names = [*special, *(token["content"] for token in content["added_tokens"])]
        sample = [
            *SAMPLE,
            *(text for name in names[:64] for text in (name, f"a{name} b {name}", f"<{name}>")),
        ]
        try:
            self._compare(sample)
        except FastEncodingDiffers as difference:
            raise ValueError(str(difference)) from None

    def _new(self) -> Any:
        import gigatoken  # pyright: ignore[reportMissingImports]

        try:
            return gigatoken.Tokenizer.from_json(self._content)
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise ValueError(re.split(r"\s*\n", str(error))[0]) from None

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Token ids of all texts one after the other, and the number of each text's.

        Raises:
            FastEncodingDiffers: a compared document has other ids than tokenizers gives it.
        """
        first = -self._documents % COMPARED_DOCUMENTS
        self._compare([text[:COMPARED_CHARACTERS] for text in texts[first::COMPARED_DOCUMENTS]])
        self._documents += len(texts)
        self._characters += sum(map(len, texts))
        if self._characters > RENEWED_AFTER:
            self._encoder, self._characters = self._new(), 0
        return self._ids(texts)

    def _ids(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        # One text at a time: a batch costs as much for its thousands of words and more for a few.
        parts = [self._encoder.encode(text) for text in texts]
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        return np.concatenate([*parts, np.empty(0, np.uint32)]), lengths

    def _compare(self, texts: Sequence[str]) -> None:
        if not texts:
            return
        ids, lengths = self._ids(texts)
        own = np.split(ids, np.cumsum(lengths)[:-1])
        expected = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        for text, found, encoding in zip(texts, own, expected, strict=True):
            if found.tolist() != encoding.ids:
                raise FastEncodingDiffers(f"gigatoken's ids of {text[:40]!r} are not those of tokenizers")


def fast_encoder(tokenizer: Tokenizer, special: Collection[str] = ()) -> FastEncoder | None:
    """The fast encoder of a tokenizer; None where there is none.

    Args:
        tokenizer: with truncation and padding off and special tokens encoded as text.
        special: names that are text in documents.
    """
    try:
        return FastEncoder(tokenizer, special)
    except (ImportError, OSError) as error:
        logger.debug(f"gigatoken is not used: {error}")
    except ValueError as error:
        logger.debug(f"gigatoken is not used for this tokenizer: {error}")
    return None
