"""Corpora: tokens of documents in a row, in safetensors files that are memory-mapped.

Layout of an artifact of kind ``corpus``: ``tokens-00000.safetensors`` ... with ``tokens`` (uint16, or
uint32 for vocabularies above 65,536) and ``document_starts`` (int64, positions within the file);
``corpus.json`` (context length, packing, shares); the tokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError

CORPUS = "corpus.json"


def token_dtype(vocab_size: int) -> type[np.uint16 | np.uint32]:
    """The smallest dtype that holds a vocabulary's token ids."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def read_corpus_header(folder: Path) -> dict[str, Any]:
    """A corpus's ``corpus.json``.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        header = json.loads((folder / CORPUS).read_text(encoding="utf-8"))
        for name in ("rows", "context_length", "vocab_size", "pad_token_id"):
            header[name] = int(header[name])
        header["padded_share"] = float(header["padded_share"])
        header["files"] = list(header["files"])
        if header["context_length"] < 2:
            raise ValueError(f"rows of {header['context_length']} tokens")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{CORPUS} cannot be read: {error}", where=str(folder)) from None
    return header


class Corpus:
    """Rows of a corpus, read on demand.

    Args:
        folder: the artifact.

    Raises:
        InputError: it is not a corpus, or a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        header = read_corpus_header(folder)
        self.context_length: int = header["context_length"]
        self.rows: int = header["rows"]
        self._tokens: list[NDArray[Any]] = []
        for name in header["files"]:
            path = folder / Path(name).name
            try:
                with safe_open(path, framework="numpy") as file:
                    shape = file.get_slice("tokens").get_shape()
                    dtype = {"U16": np.uint16, "U32": np.uint32}[file.get_slice("tokens").get_dtype()]
                self._tokens.append(_map(path, "tokens", dtype, shape[0]))
            except (OSError, SafetensorError, KeyError, ValueError) as error:
                raise InputError(f"not a readable token file: {error}", where=str(path)) from None
        lengths = np.array([len(tokens) // self.context_length for tokens in self._tokens], dtype=np.int64)
        self._first_rows = np.concatenate([[0], np.cumsum(lengths)])
        if self._first_rows[-1] != self.rows:
            raise InputError(f"{self.rows} rows expected, got {self._first_rows[-1]}", where=str(folder))

    def __len__(self) -> int:
        return self.rows

    def row(self, index: int) -> NDArray[np.int64]:
        """One row: int64 token ids of length ``context_length``."""
        file = int(np.searchsorted(self._first_rows, index, side="right")) - 1
        start = (index - int(self._first_rows[file])) * self.context_length
        return self._tokens[file][start : start + self.context_length].astype(np.int64)


def _map(path: Path, name: str, dtype: type, length: int) -> NDArray[Any]:
    """Memory-map one tensor of a safetensors file."""
    with path.open("rb") as stream:
        header_length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(header_length))
    start = 8 + header_length + header[name]["data_offsets"][0]
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=(length,))
