"""Splitting the images of every entity into training and held-out ones."""

from __future__ import annotations

from dataclasses import replace

from priorkit.data.images.entities import EntityImages
from priorkit.data.shuffling import sample_ids


def split_entities(entities: EntityImages, share: float, seed: int) -> tuple[EntityImages, EntityImages]:
    """Hold a share of each entity's images out; at least one stays, so single images are trained on.

    Args:
        entities: all images.
        share: 0 to 1, exclusive; rounded to a number of images per entity, at least one where there are two.
        seed: chooses the images.

    Returns:
        The training and the held-out images, both in their previous order.
    """
    held: set[int] = set()
    by_entity: dict[int, list[int]] = {}
    for index, entity in enumerate(entities.entity_of):
        by_entity.setdefault(entity, []).append(index)
    for entity, images in by_entity.items():
        count = min(len(images) - 1, max(1, round(share * len(images))))
        order = sample_ids(seed + 7919 * (entity + 1), 0, len(images), len(images)).tolist()
        held.update(images[position] for position in order[:count])
    trained = _those(entities, sorted(set(range(len(entities.images))) - held))
    return replace(trained, without=entities.without), _those(entities, sorted(held))


def _those(entities: EntityImages, chosen: list[int]) -> EntityImages:
    names = tuple(sorted({entities.entities[entities.entity_of[index]] for index in chosen}))
    number = {name: position for position, name in enumerate(names)}
    return EntityImages(
        names,
        tuple(entities.images[index] for index in chosen),
        tuple(number[entities.entities[entities.entity_of[index]]] for index in chosen),
    )
