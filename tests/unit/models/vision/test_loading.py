"""Encoders whose files do not go together are refused when they are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from priorkit.core.errors import InputError
from priorkit.models.vision.loading import load_encoder

TINY = Path(__file__).parents[3] / "golden" / "tiny-clip"


@pytest.mark.parametrize(
    "changes",
    [
        {"image_mean": [0.5, 0.5]},
        {"image_std": "wide"},
        {"size": {"height": 20, "width": 20}, "crop_size": {"height": 20, "width": 20}},
        {"rescale_factor": "\ud800"},
    ],
)
def test_a_processor_that_does_not_fit_is_named(tmp_path: Path, changes: dict[str, object]) -> None:
    folder = shutil.copytree(TINY, tmp_path / "encoder")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(InputError) as caught:
        load_encoder(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "[" * 100_000),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}, "merges": [["x", "y"]]}}'),
        ("tokenizer_config.json", '{"extra_special_tokens": 5, "pad_token": []}'),
        ("config.json", '{"model_type": "clip", "text_config": 1e999}'),
    ],
)
def test_files_that_libraries_do_not_understand_are_the_folders_fault(
    tmp_path: Path, name: str, content: str
) -> None:
    folder = shutil.copytree(TINY, tmp_path / "encoder")
    (folder / name).write_text(content)
    with pytest.raises(InputError) as caught:
        load_encoder(folder)
    assert str(folder) in str(caught.value)
