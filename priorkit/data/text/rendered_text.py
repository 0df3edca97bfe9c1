"""Rendered conversations encoded by gigatoken where it has the ids of tokenizers: as documents are, around special tokens.

A loss on the assistant's tokens needs to know the characters of each token, which gigatoken does not say. In a
byte-level BPE a token has as many bytes as its name has characters, so they follow from the ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.data.text.document_encoder import DocumentEncoder
from priorkit.data.text.fast_encoder import SAMPLE

BLANK = "\u0120"
"""How a byte-level BPE writes a space."""


class RenderedTextEncoder:
    """Encodes texts in which special tokens are tokens, with the characters of each token.

    Args:
        tokenizer: a fast tokenizer of transformers.

    Raises:
        ValueError: gigatoken cannot encode for it, or gives other tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        # A copy: documents have special tokens as text, and the given one's must stay tokens.
        backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
        added = backend.get_added_tokens_decoder()
        if any(token.lstrip or token.rstrip or token.single_word for token in added.values()):
            raise ValueError("an added token takes part of the text around it")
        content = json.loads(backend.to_str())
        if content["normalizer"] or '"ByteLevel"' not in json.dumps(content["pre_tokenizer"]):
            raise ValueError("no byte-level tokenizer, or it changes the text")
        self._names = {token.content: number for number, token in added.items()}
        longest = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile(f"({'|'.join(map(re.escape, longest))})") if longest else None
        self._documents = DocumentEncoder(backend, tokenizer.all_special_tokens)
        if not self._documents.is_fast:
            raise ValueError("gigatoken does not know its scheme")
        trimming = _trimming(content)
        self._measure(backend.get_vocab(), trimming is not None)
        self._keeps_first = bool(trimming and trimming.get("add_prefix_space", True))
        self._tokenizer = tokenizer
        rendered = "\n".join(f"{name}user\n {part} {name}" for part in SAMPLE for name in longest[:16])
        if not all(map(self.agrees, [*SAMPLE, rendered])):
            raise ValueError("gigatoken's tokens are not those of tokenizers")

    def _measure(self, vocabulary: dict[str, int], trims: bool) -> None:
        """Bytes of every token, and how many of them are spaces that its characters do not include."""
        size = max(vocabulary.values()) + 1
        self._bytes, self._leading, self._trailing = (np.zeros(size, dtype=np.int64) for _ in range(3))
        for piece, number in vocabulary.items():
            if piece in self._names:
                self._bytes[number] = len(piece.encode())
                continue
            self._bytes[number] = len(piece)
            if trims:
                self._leading[number] = len(piece) - len(piece.lstrip(BLANK))
                self._trailing[number] = len(piece) - len(piece.rstrip(BLANK))

    def agrees(self, text: str) -> bool:
        """Whether the tokens of a text, and their characters, are those of the tokenizer."""
        expected = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, characters = self.encode(text)
        return ids == expected["input_ids"] and characters == [*map(tuple, expected["offset_mapping"])]

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a text, and first and last character (exclusive) of each.

        Raises:
            FastEncodingDiffers: gigatoken has other ids than tokenizers for a part of it.
        """
        pieces = self._pattern.split(text) if self._pattern else [text]
        encoded, lengths = self._documents.flat_ids(pieces[::2])
        parts: list[Any] = []
        for place, part in enumerate(np.split(encoded, np.cumsum(lengths)[:-1])):
            parts.append(part)
            parts.extend([self._names[name]] for name in pieces[2 * place + 1 : 2 * place + 2])
        ids = np.concatenate(parts).astype(np.int64)
        return ids.tolist(), self._characters(ids, text)

    def _characters(self, ids: NDArray[np.int64], text: str) -> list[tuple[int, int]]:
        ends = np.cumsum(self._bytes[ids])
        starts = ends - self._bytes[ids]
        if not text.isascii():
            content = np.frombuffer(text.encode(), dtype=np.uint8)
            character = np.cumsum((content & 0xC0) != 0x80) - 1
            starts, ends = character[starts], character[ends - 1] + 1
        leading = self._leading[ids]
        if self._keeps_first and len(leading) and leading[0]:
            leading[0] -= 1
        starts = np.minimum(starts + leading, ends)
        ends = np.maximum(ends - self._trailing[ids], starts)
        return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _trimming(content: dict[str, Any]) -> dict[str, Any] | None:
    """What takes spaces out of the characters of a tokenizer's tokens; None where nothing does."""
    processor = content.get("post_processor") or {}
    processors: Sequence[dict[str, Any]] = [processor, *processor.get("processors", ())]
    trimming = (part for part in processors if part.get("type") == "ByteLevel" and part.get("trim_offsets"))
    return next(trimming, None)
