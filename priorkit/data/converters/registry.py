"""The published layouts that ``convert-data`` reads: a line each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from priorkit.data.converters.base import Convert

DataKind = Literal["instructions", "entity-images"]


@dataclass(frozen=True)
class Layout:
    """A published layout.

    Attributes:
        module: where its ``convert`` is.
        kind: of the artifact.
        summary: what is read.
        options: options that have an effect on it.
    """

    module: str
    kind: DataKind
    summary: str
    options: tuple[str, ...] = ()


_ROOM = "priorkit.data.converters."

LAYOUTS: dict[str, Layout] = {
    "refcoco": Layout(
        _ROOM + "refcoco", "instructions", "RefCOCO, RefCOCO+ and RefCOCOg: refs(*).p with instances.json",
        ("images", "split"),
    ),
    "visual-genome": Layout(
        _ROOM + "visual_genome", "instructions", "Visual Genome: region_descriptions.json with image_data.json",
        ("images",),
    ),
    "naming": Layout(
        _ROOM + "naming", "instructions", "entity images as questions for their names",
        ("split", "images_per_entity", "entity_names"),
    ),
    "inaturalist": Layout(
        _ROOM + "inaturalist", "entity-images", "iNaturalist 2017 to 2021: train.json, val.json",
        ("images", "split", "names", "images_per_entity"),
    ),
    "cub": Layout(
        _ROOM + "cub", "entity-images", "CUB-200-2011: images.txt, classes.txt, image_class_labels.txt",
        ("images", "split", "images_per_entity"),
    ),
    "flowers": Layout(
        _ROOM + "flowers", "entity-images", "Oxford 102 Flowers: imagelabels.mat, setid.mat",
        ("images", "split", "entity_names", "images_per_entity"),
    ),
    "oven": Layout(
        _ROOM + "oven", "entity-images", "OVEN: oven_entity_*.jsonl with oven_images/ or ovenid2impath.csv",
        ("images", "split", "images_per_entity"),
    ),
}  # fmt: skip
"""By the name that ``--format`` takes."""


def converter(name: str) -> Convert:
    """The function that reads a layout."""
    return import_module(LAYOUTS[name].module).convert
