from __future__ import annotations

import random
from itertools import groupby

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.world.options import WorldOptions
from priorkit.world.scenes.captions import caption, describe, position_phrase
from priorkit.world.scenes.crowds import crowd
from priorkit.world.scenes.drawing import Background, Scene, masks, pixel_box, render
from priorkit.world.scenes.entities import catalogue, choose_entities
from priorkit.world.scenes.palette import INKS, SIZES, TINTS
from priorkit.world.scenes.scenes import RELATIONS, SceneSampler, area, box, relation_between

ENTITIES = choose_entities(WorldOptions())
scenes = st.builds(
    lambda seed, count, held_out: SceneSampler(48, held_out).scene(
        random.Random(seed), random.Random(seed).sample(ENTITIES, count)
    ),
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.booleans(),
)


@given(scenes)
@settings(max_examples=60, deadline=None)
def test_masks_boxes_and_areas_are_exact(scene: Scene) -> None:
    drawn = masks(scene)
    assert drawn.sum(axis=0).max() == 1, "objects must not overlap"
    for placed, mask in zip(scene.objects, drawn, strict=True):
        rows, columns = np.nonzero(mask)
        tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert box(placed) == pixel_box(mask) == tight
        assert area(placed, scene.side) == mask.mean()


@given(scenes)
@settings(max_examples=40, deadline=None)
def test_only_the_objects_pixels_differ_from_the_empty_scene(scene: Scene) -> None:
    empty = render(Scene(scene.side, scene.background, ()))
    changed = (render(scene) != empty).any(axis=2)
    near = np.zeros_like(changed)
    for left, top, right, bottom in map(box, scene.objects):
        near[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = True
    assert not (changed & ~near).any()
    full = masks(scene).any(axis=0)
    assert changed[full].mean() > 0.95


@given(scenes)
@settings(max_examples=40, deadline=None)
def test_words_agree_with_numbers(scene: Scene) -> None:
    for placed in scene.objects:
        item = placed.object
        least, most = SIZES[item.size]
        assert round(least * scene.side) <= item.extent <= round(most * scene.side)
        assert max(abs(a - b) for a, b in zip(item.ink, INKS[item.color], strict=True)) <= 10
    colors = [placed.object.color for placed in scene.objects]
    assert len(set(colors)) == len(colors)


@given(scenes)
@settings(max_examples=40, deadline=None)
def test_relations_are_antisymmetric_and_follow_from_the_boxes(scene: Scene) -> None:
    opposite = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))
    for first in scene.objects:
        for second in scene.objects:
            if first is second:
                continue
            found = relation_between(first, second)
            assert relation_between(second, first) == (opposite[found] if found else None)
            if found == "left of":
                assert box(first)[2] <= box(second)[0]
            if found == "above":
                assert box(first)[3] <= box(second)[1]


@given(scenes, st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_captions_name_every_object_and_only_true_words(scene: Scene, seed: int) -> None:
    text = caption(random.Random(seed), scene)
    rest = f" {text} "
    for placed in scene.objects:
        assert placed.object.entity.name in text
        rest = rest.replace(placed.object.entity.name, "*")
    words = rest.replace(",", " ").split()
    items = [placed.object for placed in scene.objects]
    assert set(words) & set(INKS) <= {item.color for item in items}
    assert set(words) & set(SIZES) <= {item.size for item in items}
    assert set(words) & set(TINTS) <= {scene.background.tint, *(item.tile for item in items if item.tile)}
    relation = relation_between(*scene.objects) if len(scene.objects) == 2 else None
    positions = {word for placed in scene.objects for word in position_phrase(placed, scene.side).split()}
    allowed = set((relation or "").split()) | positions
    assert {"left", "right", "above", "below", "top", "bottom", "middle"} & set(words) <= allowed


@given(scenes, st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_descriptions_state_all_attributes(scene: Scene, seed: int) -> None:
    text = describe(random.Random(seed), scene)
    for placed in scene.objects:
        item = placed.object
        assert f"{item.size} {item.color} {item.entity.name}" in text
    assert scene.background.tint in text


def test_rendering_is_a_function_of_the_scene() -> None:
    scene = SceneSampler(48).scene(random.Random(3), ENTITIES[:3])
    np.testing.assert_array_equal(render(scene), render(scene))
    assert render(scene).shape == (48, 48, 3)


def test_a_plain_background_is_its_tint() -> None:
    picture = render(Scene(48, Background("sky", "plain", 0, 0), ()))
    assert (picture == TINTS["sky"]).all()


def test_every_symbol_leaves_a_mask_at_the_smallest_size() -> None:
    pool = choose_entities(WorldOptions(strong=len(catalogue()), weak=0, none=0))
    for held_out in (False, True):
        for entity in pool:
            scene = SceneSampler(48, held_out).scene(random.Random(0), [entity], ["small"])
            assert masks(scene).sum() >= 10, entity.name
            left, top, right, bottom = box(scene.objects[0])
            assert max(right - left, bottom - top) >= 12, entity.name


def test_a_tile_belongs_to_its_object() -> None:
    scene = SceneSampler(48).tile_scene(random.Random(0), ENTITIES[0], ENTITIES[1:2], (40, 40))
    assert len(scene.objects) == 1, "nothing fits beside a tile of 40 pixels"
    assert 0.66 < area(scene.objects[0], 48) <= 40 * 40 / 48**2
    assert scene.objects[0].object.size == "large"


def test_a_close_up_is_near_the_middle_and_others_are_anywhere() -> None:
    rng = random.Random(0)

    def middles(close_up_share: float) -> np.ndarray:
        sampler = SceneSampler(48, close_up_share=close_up_share)
        boxes = [box(sampler.scene(rng, ENTITIES[:1], ["small"]).objects[0]) for _ in range(60)]
        return np.array([((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in boxes])

    assert np.abs(middles(1.0) - 24).max() <= 48 / 16 + 1
    assert middles(0.0).std(axis=0).min() > 6


def test_crowds_show_one_to_four_objects_with_copies_side_by_side() -> None:
    rng = random.Random(0)
    groups = [crowd(rng, ENTITIES, (30, 28, 24, 18), 0.15) for _ in range(400)]
    assert {len(group) for group in groups} == {1, 2, 3, 4}
    copies = [group for group in groups if len(set(group)) < len(group)]
    assert 40 < len(copies) < 200
    assert all(len(list(groupby(group))) == len(set(group)) for group in groups)
    plain = [crowd(rng, ENTITIES, (0, 0, 1)) for _ in range(50)]
    assert all(len(set(group)) == 3 for group in plain)
