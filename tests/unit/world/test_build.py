from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from priorkit.world.benchmarks import NAMES
from priorkit.world.build import build_world
from priorkit.world.files import run_lengths
from priorkit.world.options import WorldOptions
from priorkit.world.parts import annotated_scenes
from priorkit.world.scenes.drawing import masks
from priorkit.world.scenes.entities import Entity
from priorkit.world.scenes.scenes import area


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def decoded(encoding: dict[str, list[int]]) -> np.ndarray:
    """The mask of an uncompressed COCO run-length encoding."""
    values = np.arange(len(encoding["counts"])) % 2 == 1
    return np.repeat(values, encoding["counts"]).reshape(encoding["size"], order="F")


def test_equal_options_give_equal_bytes(
    world: Path, build: Callable[[WorldOptions], Path], options: WorldOptions
) -> None:
    assert contents(build(options)) == contents(world)


def test_another_seed_gives_other_pictures(
    world: Path, build: Callable[[WorldOptions], Path], options: WorldOptions
) -> None:
    other = build(options.model_copy(update={"seed": 8}))
    assert (other / "pairs/train.parquet").read_bytes() != (world / "pairs/train.parquet").read_bytes()


@pytest.mark.parametrize("name", [None, "captions", "instructions", "entities", *NAMES])
def test_datasets_loads_it(world: Path, name: str | None, tmp_path: Path, options: WorldOptions) -> None:
    loaded = load_dataset(str(world), name, cache_dir=str(tmp_path))
    split = loaded["train" if "train" in loaded else "test"]
    if name is None:
        assert {part: len(rows) for part, rows in loaded.items()} == {"train": options.pairs, "test": 10}
    if name != "entities":
        pictures = [picture for picture in split["image"] if picture is not None]
        assert all(picture.size == (48, 48) for picture in pictures)


def test_entity_images_are_an_image_folder(world: Path, tmp_path: Path, entities: tuple[Entity, ...]) -> None:
    loaded = load_dataset("imagefolder", data_dir=str(world / "entity_images"), cache_dir=str(tmp_path))
    assert loaded["test"].features["label"].names == sorted(entity.name for entity in entities)
    assert len(loaded["train"]) == len(loaded["test"]) == 2 * len(entities)


def test_the_frequencies_are_the_priors(world: Path, options: WorldOptions) -> None:
    rows = pq.read_table(world / "entities.parquet").to_pylist()
    texts = pq.read_table(world / "pairs/train.parquet", columns=["text"])["text"].to_pylist()
    for row in rows:
        if row["prior"] == "none":
            assert row["pairs"] == 0
            assert not [text for text in texts if text.endswith(f" {row['entity']}")]
        if row["prior"] == "weak":
            assert row["pairs"] == options.weak_pairs
            assert sum(row["entity"] in text for text in texts) >= options.weak_pairs


def test_no_picture_of_training_is_in_a_test(world: Path) -> None:
    def pictures(paths: list[Path]) -> set[bytes]:
        return {
            row["bytes"]
            for path in paths
            for row in pq.read_table(path, columns=["image"])["image"].to_pylist()
            if row
        }

    train = pictures([world / part / "train.parquet" for part in ("pairs", "captions", "instructions")])
    test = pictures([*(world / "benchmarks").glob("*.parquet"), world / "pairs/test.parquet"])
    train |= {path.read_bytes() for path in (world / "entity_images/train").rglob("*.png")}
    test |= {path.read_bytes() for path in (world / "entity_images/test").rglob("*.png")}
    assert train
    assert test
    assert not train & test


def test_annotations_decode_to_the_masks(
    world: Path, options: WorldOptions, entities: tuple[Entity, ...]
) -> None:
    content = json.loads((world / "annotated/instances.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in content["categories"]}
    scenes = annotated_scenes(options, entities)
    assert len(content["images"]) == len(scenes) == options.annotated
    by_image = [
        [own for own in content["annotations"] if own["image_id"] == image["id"]]
        for image in content["images"]
    ]
    for image, scene, objects in zip(content["images"], scenes, by_image, strict=True):
        with Image.open(world / "annotated/images" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
        assert [names[own["category_id"]] for own in objects] == [
            placed.object.entity.name for placed in scene.objects
        ]
        for annotation, mask in zip(objects, masks(scene), strict=True):
            np.testing.assert_array_equal(decoded(annotation["segmentation"]), mask)
            left, top, width, height = annotation["bbox"]
            assert mask[top : top + height, left : left + width].sum() == mask.sum() == annotation["area"]


def test_annotated_scenes_fill_the_three_bins_of_area(
    options: WorldOptions, entities: tuple[Entity, ...]
) -> None:
    shares = [
        max(area(placed, scene.side) for placed in scene.objects)
        for scene in annotated_scenes(options, entities)
    ]
    assert np.histogram(shares, [0, 0.3, 0.6, 1.0])[0].tolist() == [6, 6, 6]


@pytest.mark.parametrize(
    ("mask", "counts"),
    [
        (np.zeros((2, 3), dtype=bool), [6]),
        (np.ones((2, 3), dtype=bool), [0, 6]),
        (np.array([[0, 1, 1], [0, 0, 1]], dtype=bool), [2, 1, 1, 2]),
    ],
)
def test_run_lengths_go_down_the_columns(mask: np.ndarray, counts: list[int]) -> None:
    encoding = run_lengths(mask)
    assert encoding == {"counts": counts, "size": [2, 3]}
    np.testing.assert_array_equal(decoded(encoding), mask)


def test_grounding_rows_have_boxes_and_areas(world: Path) -> None:
    table = pq.read_table(world / "benchmarks/grounding.parquet")
    assert b"huggingface" in table.schema.metadata
    for row in table.to_pylist():
        assert row["task"] == "grounding"
        left, top, right, bottom = row["box"]
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        assert 0 < row["area"] <= (right - left) * (bottom - top)
        with Image.open(io.BytesIO(row["image"]["bytes"])) as picture:
            assert picture.size == (48, 48)


def test_several_processes_write_the_same_bytes(options: WorldOptions, world: Path, tmp_path: Path) -> None:
    build_world(options, tmp_path, lambda line: None, workers=2)
    assert contents(tmp_path) == contents(world)


def test_regions_name_every_object_of_a_pair(world: Path) -> None:
    rows = pq.read_table(world / "pairs/train.parquet", columns=["text", "regions"]).to_pylist()
    crowds = 0
    for row in rows:
        crowds += len(row["regions"]) > 1
        for region in row["regions"]:
            left, top, right, bottom = region["box"]
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
            _, _, name = region["text"].split(" ", 2)
            assert name in row["text"]
    assert crowds > len(rows) // 2
