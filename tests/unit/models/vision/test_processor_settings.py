"""Values of image processors that transformers reads and no image can be prepared with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from priorkit.core.errors import InputError
from priorkit.models.vision.loading import check_encoder, load_encoder
from priorkit.models.vision.processor_settings import check_processor

TINY = Path(__file__).parents[3] / "golden" / "tiny-clip"

WRONG: list[dict[str, Any]] = [
    {"image_mean": [0.5, 0.5]},
    {"image_mean": [0.5, 0.5, float("nan")]},
    {"image_mean": "0.5"},
    {"image_std": [0.2, 0.2, 0]},
    {"image_std": [0.2, 0.2, -0.1]},
    {"image_std": {}},
    {"size": "224"},
    {"size": {"shortest_edge": "224"}},
    {"size": {"height": -5, "width": 5}},
    {"size": {"height": 10**400, "width": 5}},
    {"size": 0},
    {"size": [1, 2, 3]},
    {"crop_size": {"height": 20.5, "width": 20}},
    {"crop_size": -1},
    {"crop_size": {}},
    {"resample": "bicubic"},
    {"resample": 9},
    {"rescale_factor": 0},
    {"rescale_factor": float("inf")},
    {"do_resize": "no"},
]


def changed(folder: Path, changes: dict[str, Any], name: str) -> Path:
    """A tiny encoder with its processor's settings in one of the two files."""
    shutil.copytree(TINY, folder)
    file = folder / "preprocessor_config.json"
    settings = {**json.loads(file.read_text()), **changes}
    file.unlink()
    nested = name == "processor_config.json"
    content = {"image_processor": settings, "processor_class": "CLIPProcessor"} if nested else settings
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
@pytest.mark.parametrize("changes", WRONG, ids=str)
def test_a_wrong_value_is_named_by_file_and_key(changes: dict[str, Any], name: str, tmp_path: Path) -> None:
    folder = changed(tmp_path / "encoder", changes, name)
    (key,) = changes
    for read in (check_encoder, load_encoder):
        with pytest.raises(InputError) as caught:
            read(folder)
        (problem,) = caught.value.problems
        assert problem.where == f"{folder / name}: {key}"
        assert problem.what.startswith("expected ")
        assert len(problem.what) < 200


def test_all_wrong_values_are_reported_at_once(tmp_path: Path) -> None:
    folder = changed(tmp_path / "encoder", {"size": -1, "image_mean": [1], "resample": "x"}, "preprocessor_config.json")  # fmt: skip
    with pytest.raises(InputError) as caught:
        check_processor(folder)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 224, "crop_size": 224, "image_mean": 0.5, "image_std": 0.5},
        {"size": [224, 224], "resample": 3, "rescale_factor": 1 / 255},
        {"size": {"height": 224, "width": 224}, "crop_size": None, "do_center_crop": None},
        {"size": {"shortest_edge": 224}, "crop_size": False},
        {"size": {"shortest_edge": 3136, "longest_edge": 12845056}, "patch_size": 14, "do_rescale": 1},
        {"do_normalize": False, "image_mean": [0.5], "do_resize": False, "size": {}},
        {"patch_size": 16, "max_num_patches": 256, "feature_extractor_type": "x"},
        {},
    ],
)
def test_settings_as_they_are_published_are_right(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    check_processor(tmp_path)
