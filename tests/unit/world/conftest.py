from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from priorkit.world.build import build_world
from priorkit.world.options import WorldOptions
from priorkit.world.scenes.entities import Entity, choose_entities

SMALL = WorldOptions(
    seed=7,
    strong=24,
    weak=6,
    none=6,
    pairs=80,
    pairs_test=10,
    weak_pairs=3,
    entity_images_train=2,
    entity_images_test=2,
    captions=20,
    instructions=200,
    naming_questions=1,
    benchmark_questions=24,
    annotated=18,
    text_characters=6_000,
    python_characters=20_000,
    objects=(30, 28, 24, 18),
    copy_share=0.15,
    close_up_share=0.5,
    questions_per_image=3,
    listing_share=0.5,
)


@pytest.fixture(scope="session")
def options() -> WorldOptions:
    return SMALL


@pytest.fixture(scope="session")
def entities() -> tuple[Entity, ...]:
    return choose_entities(SMALL)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[WorldOptions], Path]:
    """Builds a world into a new folder."""

    def build_into_new(options: WorldOptions) -> Path:
        folder = tmp_path_factory.mktemp("world")
        build_world(options, folder, lambda line: None)
        return folder

    return build_into_new


@pytest.fixture(scope="session")
def world(build: Callable[[WorldOptions], Path]) -> Path:
    """A small world on disk."""
    return build(SMALL)
