"""The encoder's image-text pairs: the one place where the prior of an entity is made."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from priorkit.world.options import WorldOptions
from priorkit.world.scenes.captions import caption
from priorkit.world.scenes.crowds import crowd
from priorkit.world.scenes.drawing import Scene
from priorkit.world.scenes.entities import Entity
from priorkit.world.scenes.palette import article
from priorkit.world.scenes.scenes import SceneSampler, normalised_box

Pair = tuple[Scene, str]


def training_pairs(options: WorldOptions, entities: Sequence[Entity]) -> list[Pair]:
    """Each weak entity in exactly ``weak_pairs`` pairs, among strong ones or by itself; strong ones in the rest."""
    rng = random.Random(f"pairs/{options.seed}")
    weak = [entity for entity in entities if entity.prior == "weak" for _ in range(options.weak_pairs)]
    strong = _Strong(options, entities)
    groups = [strong.group(rng, entity) for entity in weak]
    groups += [strong.group(rng) for _ in range(options.pairs - len(groups))]
    rng.shuffle(groups)
    return _drawn(rng, options, groups)


def heldout_pairs(options: WorldOptions, entities: Sequence[Entity]) -> list[Pair]:
    """New scenes of strong entities in the training typefaces: what the encoder must not forget."""
    rng = random.Random(f"pairs-test/{options.seed}")
    strong = _Strong(options, entities)
    return _drawn(rng, options, [strong.group(rng) for _ in range(options.pairs_test)])


def appearances(pairs: Sequence[Pair]) -> Counter[str]:
    """In how many pairs each entity is shown and named."""
    return Counter(
        name for scene, _ in pairs for name in {placed.object.entity.name for placed in scene.objects}
    )


def regions(scene: Scene) -> list[dict[str, Any]]:
    """What a region-level loss reads: for every object its colour and name, and its normalised box."""
    return [
        {
            "text": article(f"{placed.object.color} {placed.object.entity.name}"),
            "box": list(normalised_box(placed, scene.side)),
        }
        for placed in scene.objects
    ]


class _Strong:
    """Groups of one to four strong entities, drawn with unequal frequencies."""

    def __init__(self, options: WorldOptions, entities: Sequence[Entity]) -> None:
        self._entities = [entity for entity in entities if entity.prior == "strong"]
        self._objects, self._copy_share = options.objects, options.copy_share
        count = len(self._entities)
        ranks = random.Random(f"frequencies/{options.seed}").sample(range(count), count)
        self._weights = [options.strong_spread ** (rank / max(1, count - 1)) for rank in ranks]

    def group(self, rng: random.Random, first: Entity | None = None) -> list[Entity]:
        """Strong entities; ``first`` replaces the first one and its copies."""
        drawn = crowd(rng, self._entities, self._objects, self._copy_share, self._weights)
        return drawn if first is None else [first if entity == drawn[0] else entity for entity in drawn]


def _drawn(rng: random.Random, options: WorldOptions, groups: Sequence[Sequence[Entity]]) -> list[Pair]:
    """The groups in scenes with their captions."""
    sampler = SceneSampler(options.image_size, close_up_share=options.close_up_share)
    scenes = [sampler.scene(rng, group) for group in groups]
    return [(scene, caption(rng, scene)) for scene in scenes]
