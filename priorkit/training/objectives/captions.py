"""Texts tokenized once for training."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from priorkit.models.vision.encoder import Encoder


def text_key(text: str) -> int:
    """A number that is equal for equal texts in every process."""
    return zlib.crc32(text.encode())


class Captions:
    """Texts tokenized once, padded per batch to its longest text.

    Args:
        encoder: whose tokenizer is used; texts that it pads to a fixed length stay padded (SigLIP).
        texts: the texts.

    Attributes:
        keys: int64 ``[texts]``, equal for equal texts.
    """

    _CHUNK = 8192

    def __init__(self, encoder: Encoder, texts: Sequence[str]) -> None:
        self.keys = torch.from_numpy(np.fromiter(map(text_key, texts), np.int64, len(texts)))
        self._padding = {"input_ids": int(getattr(encoder.tokenizer, "pad_token_id", None) or 0)}
        fixed_length = _pads_to_fixed_length(encoder)
        flat: dict[str, list[Tensor]] = {}
        lengths: list[Tensor] = []
        for start in range(0, len(texts), self._CHUNK):
            tokens = encoder.tokenize(texts[start : start + self._CHUNK])
            used = _used_tokens(tokens, fixed_length)
            lengths.append(used.sum(dim=1))
            for name, value in tokens.items():
                # Masks and types are small numbers.
                kept = torch.int32 if name == "input_ids" else torch.int8
                flat.setdefault(name, []).append(value[used].to(kept))
        # All tokens in one tensor, and where each text ends: ten million captions fit in memory.
        self._flat = {name: torch.cat(parts) for name, parts in flat.items()}
        self._ends = np.concatenate([[0], torch.cat(lengths).cumsum(0).numpy()])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Token ids and mask of some texts, int64 ``[texts, longest]``."""
        spans = [(int(self._ends[index]), int(self._ends[index + 1])) for index in indices]
        return {
            name: nn.utils.rnn.pad_sequence(
                [flat[start:end] for start, end in spans],
                batch_first=True,
                padding_value=self._padding.get(name, 0),
            ).long()
            for name, flat in self._flat.items()
        }


def _pads_to_fixed_length(encoder: Encoder) -> bool:
    """Whether even an empty text is padded, as SigLIP's are, whose text tower reads the last position."""
    tokens = encoder.tokenize([""])
    return "attention_mask" not in tokens or not bool(tokens["attention_mask"].all())


def _used_tokens(tokens: dict[str, Tensor], fixed_length: bool) -> Tensor:
    """Mask of the tokens to keep, bool ``[texts, time]``: all but padding on the right."""
    mask = tokens.get("attention_mask", torch.ones_like(tokens["input_ids"])).bool()
    return torch.ones_like(mask) if fixed_length or not bool(mask[:, 0].all()) else mask
