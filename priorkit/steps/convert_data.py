"""Convert data in published layouts: regions and entity images become tables, row by row.

Regions of RefCOCO and Visual Genome become instructions for tune, whose image files stay where they are (--images
there too). Entity images of iNaturalist, CUB, Oxford Flowers and OVEN are embedded and become one table per split.
naming turns entity images into questions for their names. Rows that cannot be used are counted and listed with their
reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.options.settings import StepSettings, argument, option, reject_limit_option
from priorkit.core.options.specs import refuse_changed
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.data.converters.registry import LAYOUTS
from priorkit.data.io.rejects import Rejects

if TYPE_CHECKING:
    from priorkit.data.converters.base import ConverterOptions

    LayoutName = str
else:
    LayoutName = Literal[tuple(LAYOUTS)]


class ConvertDataSettings(StepSettings):
    """Options of ``priorkit convert-data``."""

    step: ClassVar[str] = "convert-data"
    kind: ClassVar[str] = "instructions"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit convert-data refcoco/ --format refcoco --split train --images train2014 --out refcoco-rows",
        "priorkit convert-data CUB_200_2011/ --format cub --images-per-entity 20 --out birds",
    )

    data: str = argument(
        "The data set's file or folder as published.",
        accepts=("data", "world", "entity-images"),
        metavar="DATA",
        hub="dataset",
    )
    format: LayoutName = option(
        ..., "Layout: " + "; ".join(f"{name}, {layout.summary}" for name, layout in LAYOUTS.items()) + "."
    )
    images: str | None = option(
        None,
        "Folder of the image files, where it is not the data's own. Of regions, rows whose image is missing there are "
        "rejected.",
        metavar="DIR",
    )
    split: str = option("", "Split to convert, as the data set calls it; all where not given.")
    names: Literal["common", "scientific"] = option(
        "common", "Which names of species; where there is none, the other one is taken."
    )
    entity_names: str | None = option(
        None,
        "File with the names of numbered classes or ids, as rank-e takes it.",
        accepts=("names",),
        metavar="FILE",
    )
    images_per_entity: int = option(
        0, "Most images of an entity in a split, the first ones; 0 for all.", ge=0, metavar="N"
    )
    reject_limit: float = reject_limit_option("rows")


def plan(settings: ConvertDataSettings, inputs: Inputs) -> Plan[ConverterOptions]:
    """Check the options, and that the first row can be read."""
    from priorkit.data.converters.registry import converter

    layout = LAYOUTS[settings.format]
    problems = Problems(UsageError)
    adjustable = ("images", "split", "names", "entity_names", "images_per_entity")
    unused = [name for name in adjustable if name not in layout.options]
    refuse_changed(settings, unused, problems, f"has no effect on the layout {settings.format}")
    problems.raise_if_any()
    options = _options(settings, inputs)
    rejects = Rejects(1.0)
    first = next(converter(settings.format)(inputs.one("data").path, options, rejects), None)
    if first is None:
        _nothing(settings, rejects)
    return Plan([("layout", layout.summary)], payload=options, kind=layout.kind)


def _options(settings: ConvertDataSettings, inputs: Inputs) -> ConverterOptions:
    from priorkit.data.converters.base import ConverterOptions
    from priorkit.data.images.entity_names import EntityNames, read_entity_names

    images = None if settings.images is None else Path(settings.images).expanduser()
    if images is not None and not images.is_dir():
        raise InputError("no such folder", where=f"--images {settings.images}")
    names = inputs.optional("entity_names")
    return ConverterOptions(
        images,
        settings.split,
        settings.names,
        read_entity_names(names.path) if names else EntityNames(),
        settings.images_per_entity,
    )


def _nothing(settings: ConvertDataSettings, rejects: Rejects) -> None:
    reason = f"; the first row: {rejects.rows[0]['reason']}" if rejects.rows else ""
    split = f" of the split '{settings.split}'" if settings.split else ""
    raise InputError(f"no row{split} can be used{reason}", where=settings.data)


def execute(settings: ConvertDataSettings, work: Work[ConverterOptions]) -> None:
    """Read, check and write row by row."""
    from priorkit.data.converters.registry import converter
    from priorkit.data.converters.writing import write_splits

    rejects = Rejects(settings.reject_limit)
    rows = converter(settings.format)(work.inputs.one("data").path, work.plan.payload, rejects)
    counts = write_splits(rows, work.path)
    if not counts:
        _nothing(settings, rejects)
    rejects.raise_if_over_limit()
    rejects.write(work.path)
    work.metrics.update(rows=counts, rejected=len(rejects))


STEP = Step(ConvertDataSettings, plan, execute)
run = STEP.run
