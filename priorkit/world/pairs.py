"""The encoder's image-text pairs: the one place where the prior of an entity is made."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from priorkit.world.options import WorldOptions
from priorkit.world.scenes.captions import caption
from priorkit.world.scenes.drawing import Scene
from priorkit.world.scenes.entities import Entity
from priorkit.world.scenes.scenes import SceneSampler

Pair = tuple[Scene, str]


def training_pairs(options: WorldOptions, entities: Sequence[Entity]) -> list[Pair]:
    """Each weak entity by itself in exactly ``weak_pairs`` pairs; strong ones, one or two, in the rest."""
    rng = random.Random(f"pairs/{options.seed}")
    sampler = SceneSampler(options.image_size)
    shown = [[entity] for entity in entities if entity.prior == "weak" for _ in range(options.weak_pairs)]
    shown += _strong(rng, options, entities, options.pairs - len(shown))
    rng.shuffle(shown)
    return [_pair(rng, sampler, group) for group in shown]


def heldout_pairs(options: WorldOptions, entities: Sequence[Entity]) -> list[Pair]:
    """New scenes of strong entities in the training typefaces: what the encoder must not forget."""
    rng = random.Random(f"pairs-test/{options.seed}")
    sampler = SceneSampler(options.image_size)
    return [_pair(rng, sampler, group) for group in _strong(rng, options, entities, options.pairs_test)]


def appearances(pairs: Sequence[Pair]) -> Counter[str]:
    """In how many pairs each entity is shown and named."""
    return Counter(placed.object.entity.name for scene, _ in pairs for placed in scene.objects)


def _strong(
    rng: random.Random, options: WorldOptions, entities: Sequence[Entity], count: int
) -> list[list[Entity]]:
    """Groups of one or two different strong entities, drawn with unequal frequencies."""
    strong = [entity for entity in entities if entity.prior == "strong"]
    order = random.Random(f"frequencies/{options.seed}").sample(range(len(strong)), len(strong))
    weights = [options.strong_spread ** (rank / max(1, len(strong) - 1)) for rank in order]
    groups: list[list[Entity]] = []
    while len(groups) < count:
        first, second = rng.choices(strong, weights, k=2)
        both = first != second and rng.random() < options.two_entity_share
        groups.append([first, second] if both else [first])
    return groups


def _pair(rng: random.Random, sampler: SceneSampler, group: Sequence[Entity]) -> Pair:
    scene = sampler.scene(rng, group)
    return scene, caption(rng, scene)
