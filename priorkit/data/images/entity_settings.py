"""Options of the steps that read entity images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from priorkit.core.inputs import Input
from priorkit.core.options.settings import option
from priorkit.data.columns import ImageColumnSettings, LabelColumnSettings, layout_of
from priorkit.data.images.entities import read_names
from priorkit.data.images.entity_names import EntityNames, read_entity_names
from priorkit.data.images.entity_sources import EntityLayout

ENTITY_IMAGES = (
    "Entity images: a folder per entity, metadata.jsonl or .csv, or a table of images and names (parquet, Arrow, "
    "JSON Lines, CSV)."
)


class EntityImageSettings(LabelColumnSettings, ImageColumnSettings):
    """How entity images are read."""

    group: ClassVar[str] = "columns"

    entity_names: str | None = option(
        None,
        "File of names by id where folders or labels are ids: lines such as LOC_synset_mapping.txt, CSV, TSV or "
        "JSON.",
        accepts=("world",),
        metavar="FILE",
    )
    split: str | None = option(
        None, "Split that is read of images in several, such as test.", metavar="NAME", advanced=True
    )
    only_entities: str | None = option(
        None,
        "File of names, as diagnose writes for each cause: images of other entities are left out.",
        accepts=("world", "scores"),
        metavar="FILE",
        advanced=True,
    )

    def entity_layout(self, inputs: Mapping[str, Input]) -> EntityLayout:
        """How the images are read.

        Args:
            inputs: all inputs by label.

        Raises:
            InputError: the file of names cannot be read.
        """
        file = inputs.get("entity_names")
        names = read_entity_names(file.path) if file else EntityNames()
        only = inputs.get("only_entities")
        wanted = frozenset(read_names(only.path)) if only else frozenset[str]()
        return EntityLayout(layout_of(self), self.split or "", names, wanted)
