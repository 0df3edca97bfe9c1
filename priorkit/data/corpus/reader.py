"""Corpora: tokens of documents in a row, in safetensors files that are memory-mapped.

Layout of an artifact of kind ``corpus``: ``tokens-00000.safetensors`` ... with ``tokens`` (uint16, or
uint32 for vocabularies above 65,536) and ``document_starts`` (int64, positions within the file where a
document begins, a piece of one that does not continue the token before it, or padding);
``corpus.json`` (context length, packing, shares); the tokenizer; ``held_out/NAME.jsonl``, the documents
of each source that are in no row, where some were held out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError
from priorkit.core.json_text import parse_json
from priorkit.core.safetensors_header import read_header
from priorkit.data.io.tensor_file import map_tensor

CORPUS = "corpus.json"


def read_corpus_header(folder: Path) -> dict[str, Any]:
    """A corpus's ``corpus.json``.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        header = parse_json((folder / CORPUS).read_text(encoding="utf-8"))
        for name in ("rows", "context_length", "vocab_size", "pad_token_id"):
            header[name] = int(header[name])
        header["padded_share"] = float(header["padded_share"])
        header["files"] = list(header["files"])
        if header["context_length"] < 2:
            raise ValueError(f"rows of {header['context_length']} tokens")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"not a corpus: it has no {CORPUS}", where=str(folder), hint="priorkit mix makes one from text"
        ) from None
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
        header = read_corpus_header(folder)
        self.context_length: int = header["context_length"]
        self.rows: int = header["rows"]
        self._tokens: list[NDArray[Any]] = []
        self._starts: list[NDArray[np.int64]] = []
        for name in header["files"]:
            path = folder / Path(name).name
            try:
                tensors = read_header(path)
                if tensors["tokens"].dtype not in ("U16", "U32"):
                    raise ValueError(f"tokens of dtype {tensors['tokens'].dtype}")
                self._tokens.append(map_tensor(tensors["tokens"]))
                self._starts.append(map_tensor(tensors["document_starts"]))
            except KeyError as error:
                raise InputError(f"not a token file: tensor {error} is missing", where=str(path)) from None
            except (OSError, ValueError) as error:
                raise InputError(f"not a token file: {error}", where=str(path)) from None
        lengths = np.array([len(tokens) // self.context_length for tokens in self._tokens], dtype=np.int64)
        self._first_rows = np.concatenate([[0], np.cumsum(lengths)])
        if self._first_rows[-1] != self.rows:
            raise InputError(f"{self.rows} rows expected, got {self._first_rows[-1]}", where=str(folder))

    def __len__(self) -> int:
        return self.rows

    def _place(self, index: int) -> tuple[int, int]:
        """The file of a row, and where in it the row begins."""
        file = int(np.searchsorted(self._first_rows, index, side="right")) - 1
        return file, (index - int(self._first_rows[file])) * self.context_length

    def row(self, index: int) -> NDArray[np.int64]:
        """One row: int64 token ids of length ``context_length``."""
        file, start = self._place(index)
        return self._tokens[file][start : start + self.context_length].astype(np.int64)

    def document_ids(self, index: int) -> NDArray[np.int64]:
        """Which document each token of a row belongs to: int64 of length ``context_length``.

        Documents are counted from 0 within the row, so the ids rise by one where a document begins; one
        that continues from the row before is 0, padding has its own id. Two binary searches a row.
        """
        file, start = self._place(index)
        starts = self._starts[file]
        low, high = np.searchsorted(starts, [start + 1, start + self.context_length])
        ids = np.zeros(self.context_length, dtype=np.int64)
        ids[starts[low:high] - start] = 1
        return np.cumsum(ids)
