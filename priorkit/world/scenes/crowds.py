"""Which entities a scene shows: one to four objects, some of the same entity."""

from __future__ import annotations

import random
from collections.abc import Sequence

from priorkit.world.scenes.entities import Entity


def crowd(
    rng: random.Random,
    pool: Sequence[Entity],
    objects: Sequence[float],
    copy_share: float = 0.0,
    weights: Sequence[float] | None = None,
) -> list[Entity]:
    """Entities in the order of a scene's objects, copies next to each other.

    Args:
        rng: the source of chance.
        pool: what to draw from; at least as many as a scene has objects.
        objects: weights of scenes of one object, two, and so on.
        copy_share: probability that an object after the first shows the same entity as the one before.
        weights: how often each entity is drawn, evenly without.
    """
    (size,) = rng.choices(range(1, len(objects) + 1), objects)
    shown: list[Entity] = []
    while len(shown) < size:
        if shown and rng.random() < copy_share:
            shown.append(shown[-1])
            continue
        (entity,) = rng.choices(pool, weights)
        if entity not in shown:
            shown.append(entity)
    return shown
