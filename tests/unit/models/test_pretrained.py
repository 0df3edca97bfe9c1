"""Loading a model of transformers: missing, misshapen and unreadable files are errors that name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from priorkit.core.errors import InputError
from priorkit.models.pretrained import load_preprocessor, load_pretrained, refuse_missing_tensors


def test_tensors_that_would_be_random_are_named(tmp_path: Path) -> None:
    refuse_missing_tensors({"missing_keys": set(), "mismatched_keys": set()}, tmp_path)
    report = {"missing_keys": {"b", "a"}, "mismatched_keys": [("c", (1,), (2,))]}
    with pytest.raises(
        InputError, match="3 tensors are missing or of another shape, such as a, b, c"
    ) as caught:
        refuse_missing_tensors(report, tmp_path)
    assert caught.value.problems[0].where == str(tmp_path)


def test_folders_that_transformers_cannot_read(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModel

    with pytest.raises(InputError, match="the model cannot be loaded"):
        load_pretrained(AutoModel, tmp_path)
    with pytest.raises(InputError, match="its processor cannot be loaded"):
        load_preprocessor(AutoImageProcessor, tmp_path)
