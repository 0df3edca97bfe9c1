from __future__ import annotations

from pathlib import Path

from priorkit.data.corpus.tokenizer_files import TokenizerFiles


def test_token_ids_take_the_smallest_dtype() -> None:
    assert TokenizerFiles(Path(), 65_536, 0, 0).dtype == "uint16"
    assert TokenizerFiles(Path(), 65_537, 0, 0).dtype == "uint32"
