"""Make the glyph world: text, image-text pairs, entity images, instructions and benchmarks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import ClassVar

from priorkit.core.inputs import Input
from priorkit.core.options.settings import StepSettings, option
from priorkit.core.step import Step
from priorkit.core.work import Plan, Work
from priorkit.world.options import WorldOptions

logger = logging.getLogger(__name__)


class GlyphWorldSettings(WorldOptions, StepSettings):
    """Options of ``priorkit glyph-world``."""

    step: ClassVar[str] = "glyph-world"
    kind: ClassVar[str] = "world"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit glyph-world --out world",
        "priorkit glyph-world --strong 24 --weak 6 --none 6 --pairs 500 --seed 7 --out small-world",
    )

    workers: int = option(
        0, "Processes that draw at the same time, 0 for one per processor.", ge=0, changes_result=False
    )


def plan(settings: GlyphWorldSettings, inputs: Mapping[str, Input]) -> Plan:
    """Say how large the world will be."""
    images = settings.pairs + settings.captions + settings.instructions
    images += settings.entities * (settings.entity_images_train + settings.entity_images_test)
    return Plan(
        [
            ("entities", f"{settings.strong} strong, {settings.weak} weak, {settings.none} none"),
            ("images", f"about {images:,} of {settings.image_size} x {settings.image_size} pixels"),
        ],
        disk_bytes=images * settings.image_size**2 * 2 + 8 * settings.text_characters,
    )


def execute(settings: GlyphWorldSettings, work: Work) -> None:
    """Draw and write everything."""
    from priorkit.core.process.processors import processors
    from priorkit.world.build import build_world

    workers = settings.workers or processors()
    counts = build_world(settings, work.path, lambda line: logger.info(f"  {line}"), workers)
    work.metrics.update(counts)


STEP = Step(GlyphWorldSettings, plan, execute)
run = STEP.run
