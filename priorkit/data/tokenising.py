"""Tokenising sources to flat files: tokens in a row and the length of every document."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorkit.data.corpus import token_dtype

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH_DOCUMENTS = 64
"""Documents tokenised together; 64 was the fastest of 64 to 1,000 and needs the least memory."""


def tokenise(documents: Iterable[str], tokenizer: PreTrainedTokenizerFast, path: Path) -> NDArray[np.int64]:
    """Write the token ids of all documents, each followed by the end-of-sequence token, to a flat file.

    Args:
        documents: the texts.
        tokenizer: a fast tokenizer with an end-of-sequence token.
        path: the file to write: uint16 or uint32 by the size of the vocabulary.

    Returns:
        int64, the number of tokens of each document, its end token included.
    """
    dtype = token_dtype(len(tokenizer))
    end = tokenizer.eos_token_id
    backend = tokenizer.backend_tokenizer
    lengths: list[int] = []
    with path.open("wb") as stream:
        iterator = iter(documents)
        while batch := list(itertools.islice(iterator, BATCH_DOCUMENTS)):
            for encoding in backend.encode_batch_fast(batch, add_special_tokens=False):
                ids = np.asarray([*encoding.ids, end], dtype=dtype)
                stream.write(ids.tobytes())
                lengths.append(len(ids))
    return np.asarray(lengths, dtype=np.int64)


def flat_tokens(path: Path, vocab_size: int) -> NDArray[Any]:
    """Memory-map what :func:`tokenise` wrote."""
    dtype = token_dtype(vocab_size)
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")
