from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from priorkit.core.errors import InputError
from priorkit.data.corpus.reader import Corpus, read_corpus_header

HEADER = {
    "context_length": 4, "rows": 5, "files": ["t0.safetensors", "t1.safetensors"], "vocab_size": 300,
    "pad_token_id": 2, "padded_share": 0.0,
}  # fmt: skip


def make(folder: Path, **changes: object) -> Path:
    tokens = np.arange(20)
    for number, part in enumerate((tokens[:12], tokens[12:])):
        save_file(
            {"document_starts": np.zeros(1, dtype=np.int64), "tokens": part.astype(np.uint16)},
            folder / f"t{number}.safetensors",
        )
    (folder / "corpus.json").write_text(json.dumps({**HEADER, **changes}))
    return folder


def test_rows_are_read_across_files(tmp_path: Path) -> None:
    corpus = Corpus(make(tmp_path))
    assert len(corpus) == 5
    rows = [corpus.row(index) for index in range(5)]
    assert np.array_equal(np.stack(rows), np.arange(20).reshape(5, 4))
    assert rows[0].dtype == np.int64


@pytest.mark.parametrize(
    "changes",
    [{"rows": "many"}, {"files": 3}, {"context_length": 0}, {"vocab_size": None}, {"padded_share": "x"}],
)
def test_a_damaged_header_is_reported(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"corpus\.json cannot be read"):
        read_corpus_header(make(tmp_path, **changes))


def test_what_is_not_a_corpus_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "text.jsonl"
    file.write_text("{}")
    for path in (tmp_path, file):
        with pytest.raises(InputError, match=r"not a corpus: it has no corpus\.json"):
            Corpus(path)
    with pytest.raises(InputError, match="6 rows expected, got 5"):
        Corpus(make(tmp_path, rows=6))
    (tmp_path / "t1.safetensors").write_bytes((tmp_path / "t1.safetensors").read_bytes()[:-3])
    with pytest.raises(InputError, match=r"t1\.safetensors: not a complete safetensors file"):
        Corpus(tmp_path)
