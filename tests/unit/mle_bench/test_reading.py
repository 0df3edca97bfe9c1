"""Reading annotations: shares do not depend on resolution, EXIF rotation or how ids are written."""

from __future__ import annotations

import copy
import json
import logging
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from priorkit.core.errors import InputError
from priorkit.data.io.rejects import Rejects
from priorkit.mle_bench.annotations import AnnotatedImage, ImageSize, find_annotations
from priorkit.mle_bench.reading import read_annotated

WIDTH, HEIGHT = 120, 80
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
LEFT_THIRD = [[0, 0, 40, 0, 40, 80, 0, 80]]
TOP_HALF = [[0, 0, 120, 0, 120, 40, 0, 40]]
# Centroids at (20, 40) and (60, 20), the center at (60, 40).
DISTANCES = {"cat": 40 / math.hypot(60, 40), "dog": 20 / math.hypot(60, 40)}


def document() -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}],
        "annotations": [
            {"id": 41, "image_id": 7, "category_id": 1, "segmentation": LEFT_THIRD},
            {"id": 42, "image_id": 7, "category_id": 2, "segmentation": TOP_HALF},
        ],
        "categories": copy.deepcopy(CATEGORIES),
    }


def save(folder: Path, content: dict[str, Any], size: tuple[int, int], orientation: int = 1) -> None:
    """One image whose stored pixels have this size, and the annotations."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, "red").save(folder / "a.jpg", exif=exif)
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")


def areas(image: AnnotatedImage) -> dict[str, float]:
    return {name: placement.area for name, placement in image.measured.items()}


def distances(image: AnnotatedImage) -> dict[str, float]:
    return {name: placement.center_distance for name, placement in image.measured.items()}


def read(folder: Path, limit: float = 0.0) -> list[AnnotatedImage]:
    return read_annotated(find_annotations(folder, None, None, None), Rejects(limit))[0]


@pytest.mark.parametrize("scale", [1, 0.5, 0.25, 3, 0.31])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_shares_do_not_depend_on_resolution_or_rotation(
    scale: float, orientation: int, tmp_path: Path
) -> None:
    save(tmp_path, document(), (round(WIDTH * scale), round(HEIGHT * scale)), orientation)
    (image,) = read(tmp_path)
    assert areas(image) == pytest.approx({"cat": 1 / 3, "dog": 1 / 2})
    assert distances(image) == pytest.approx(DISTANCES)


@pytest.mark.parametrize("orientation", [6, 8])
def test_annotations_may_be_of_the_upright_image(orientation: int, tmp_path: Path) -> None:
    save(tmp_path, document(), (HEIGHT, WIDTH), orientation)
    (image,) = read(tmp_path)
    assert areas(image) == pytest.approx({"cat": 1 / 3, "dog": 1 / 2})
    assert distances(image) == pytest.approx(DISTANCES)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (WIDTH, WIDTH), (WIDTH, HEIGHT + 5)])
def test_another_shape_is_refused_with_both_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    save(tmp_path, document(), size)
    with pytest.raises(InputError, match=f"annotated at 120 x 80, but the image is {size[0]} x {size[1]}"):
        read(tmp_path)


def test_polygons_of_a_larger_image_are_refused_where_no_size_is_given(tmp_path: Path) -> None:
    content = document()
    del content["images"][0]["width"]
    save(tmp_path, content, (WIDTH // 4, HEIGHT // 4))
    with pytest.raises(
        InputError, match="annotation 41: a polygon reaches 40, beyond the image's width of 30"
    ):
        read(tmp_path)


@pytest.mark.parametrize("write", [str, float, lambda value: f"{value:09d}", lambda value: f" {value} "])
@pytest.mark.parametrize("place", ["images", "annotations", "categories"])
def test_ids_are_numbers_or_text(write: Any, place: str, tmp_path: Path) -> None:
    content = document()
    for row in content[place]:
        for key in ("image_id", "category_id") if place == "annotations" else ("id",):
            row[key] = write(row[key])
    save(tmp_path, content, (WIDTH, HEIGHT))
    (image,) = read(tmp_path)
    assert set(image.measured) == {"cat", "dog"}


@pytest.mark.parametrize("segmentation", [[], None, "absent"])
def test_an_object_without_a_mask_is_present_but_not_measured(
    segmentation: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = document()
    content["annotations"][0]["segmentation"] = segmentation
    if segmentation == "absent":
        del content["annotations"][0]["segmentation"]
    save(tmp_path, content, (WIDTH, HEIGHT))
    with caplog.at_level(logging.WARNING, "priorkit"):
        (image,) = read(tmp_path)
    assert set(image.measured) == {"dog"}
    assert image.unmeasured == ("cat",)
    assert caplog.text.count("annotation 41 (cat) of a.jpg") == 1


def test_an_object_smaller_than_a_pixel_is_present(tmp_path: Path) -> None:
    content = document()
    content["annotations"][0]["segmentation"] = [[1, 1, 1.1, 1, 1.1, 1.1]]
    save(tmp_path, content, (WIDTH, HEIGHT))
    assert read(tmp_path)[0].unmeasured == ("cat",)


BROKEN = {
    "two corners": ([[1, 2, 3, 4]], "annotation 41: a polygon needs three corners"),
    "text": ("x", "annotation 41: a segmentation is a list"),
    "infinity": ([[0, 0, 5, 0, float("inf"), 9]], "annotation 41: a polygon must contain finite numbers"),
    "runs of another size": ({"counts": [4], "size": [2, 2]}, "annotation 41: the run lengths have size"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_masks_are_reported_with_the_annotation(kind: str, tmp_path: Path) -> None:
    content = document()
    content["annotations"][0]["segmentation"], message = BROKEN[kind]
    save(tmp_path, content, (WIDTH, HEIGHT))
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_an_annotation_without_an_id_is_named_by_its_place(tmp_path: Path) -> None:
    content = document()
    del content["annotations"][1]["id"]
    content["annotations"][1]["category_id"] = 9
    save(tmp_path, content, (WIDTH, HEIGHT))
    with pytest.raises(InputError, match=r"annotations\[1\]: no category 9"):
        read(tmp_path)


def test_ids_that_match_no_image_are_the_reason_given(tmp_path: Path) -> None:
    content = document()
    content["annotations"] = [{**row, "image_id": "b"} for row in content["annotations"]]
    save(tmp_path, content, (WIDTH, HEIGHT))
    with pytest.raises(InputError, match="annotation 41 has the image_id 'b', images have ids such as 7"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("key", "entry"),
    [("images", "images[1]"), ("annotations", "annotations[2]"), ("categories", "categories[2]")],
)
@pytest.mark.parametrize("row", [3, None, "x", [1]])
def test_an_entry_that_is_no_object_is_named(key: str, entry: str, row: Any, tmp_path: Path) -> None:
    content = document()
    content[key].append(row)
    save(tmp_path, content, (WIDTH, HEIGHT))
    with pytest.raises(
        InputError, match=re.escape(f"instances.json: {entry}: expected an object, got {row!r}")
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("key", "needed"),
    [("images", "an image needs id and file_name"), ("categories", "a category needs id and name")],
)
@pytest.mark.parametrize("row", [{}, {"id": [1]}, {"id": True}])
def test_images_and_categories_need_ids(key: str, needed: str, row: Any, tmp_path: Path) -> None:
    content = document()
    content[key].append(row)
    save(tmp_path, content, (WIDTH, HEIGHT))
    with pytest.raises(InputError, match=needed):
        read(tmp_path)


@pytest.mark.parametrize("row", [{}, {"id": [1]}, {"id": True}])
def test_annotations_of_no_image_are_left_out(row: Any, tmp_path: Path) -> None:
    content = document()
    content["annotations"].append(row)
    save(tmp_path, content, (WIDTH, HEIGHT))
    (image,) = read(tmp_path)
    assert areas(image) == pytest.approx({"cat": 1 / 3, "dog": 1 / 2})


def test_masks_of_another_resolution_have_the_same_shares(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, :40] = 1
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (WIDTH // 2, HEIGHT // 2)).save(tmp_path / "images" / "a.png")
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert areas(read(tmp_path)[0]) == pytest.approx({"cat": 1 / 3})


def test_sizes_fit_up_to_rounding() -> None:
    assert ImageSize((333, 500)).fits((213, 320))
    assert not ImageSize((333, 500)).fits((320, 213))
    assert ImageSize((333, 500), rotated=True).fits((320, 213))
    assert not ImageSize((100, 100)).fits((100, 90))
