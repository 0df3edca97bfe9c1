"""Regions in views: every box and mask follows the pixels, whatever the preparation and the augmentation."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessor, SiglipImageProcessor

from priorkit.core.boxes import FULL_IMAGE
from priorkit.core.errors import InputError
from priorkit.data.images.augmentation import AugmentationSettings, View
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.masks import RunLengths
from priorkit.data.images.pixels import Pixels
from priorkit.data.images.region_views import PatchGrid, coverage, visible_regions
from priorkit.data.images.regions import ImageRegion
from priorkit.models.vision.preprocessing import Preprocessing, with_resize

SIDE = 48
PROCESSORS = {
    "crop": CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
    "margin": CLIPImageProcessor(size={"shortest_edge": 60}, crop_size={"height": SIDE, "width": SIDE}),
    "border": CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": SIDE, "width": SIDE}),
    "squash": SiglipImageProcessor(size={"height": SIDE, "width": SIDE}),
}
GRID = PatchGrid(SIDE, SIDE, 8)


def drawn(width: int, height: int, box: tuple[int, int, int, int]) -> ImageRef:
    """A white rectangle on black."""
    values = np.zeros((height, width, 3), dtype=np.uint8)
    values[box[1] : box[3], box[0] : box[2]] = 255
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return ImageRef("x", content=stream.getvalue())


def share(box: tuple[int, int, int, int], width: int, height: int) -> tuple[float, float, float, float]:
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


@st.composite
def rectangles(draw: st.DrawFn) -> tuple[int, int, tuple[int, int, int, int]]:
    width, height = draw(st.integers(50, 120)), draw(st.integers(50, 120))
    x, y = draw(st.integers(0, width - 26)), draw(st.integers(0, height - 26))
    return width, height, (x, y, draw(st.integers(x + 24, width)), draw(st.integers(y + 24, height)))


@pytest.mark.parametrize("name", PROCESSORS)
@settings(max_examples=25, deadline=None)
@given(shape=rectangles(), seed=st.integers(0, 999), crop=st.sampled_from([1.0, 0.4]), flip=st.booleans())
def test_boxes_and_masks_follow_the_pixels(
    name: str, shape: tuple[int, int, tuple[int, int, int, int]], seed: int, crop: float, flip: bool
) -> None:
    width, height, box = shape
    preprocessing = Preprocessing(PROCESSORS[name])
    pixels = Pixels([drawn(width, height, box)], preprocessing.prepare)
    view = pixels.draw(0, AugmentationSettings(augment_crop=crop, augment_shift=6, augment_flip=flip), seed)
    shown = pixels.view(0, view).float().mean(0) / 255
    prepared = preprocessing.window(width, height)
    x1, y1, x2, y2 = (value * SIDE for value in view.place(share(box, width, height), prepared, GRID.size))
    # Without borders, which a shift repeats, brightness is the covered area.
    inner = max(x1, 7), max(y1, 7), min(x2, SIDE - 7), min(y2, SIDE - 7)
    lit = shown[7 : SIDE - 7, 7 : SIDE - 7]
    if inner[0] + 2 > inner[2] or inner[1] + 2 > inner[3]:
        return
    assert float(lit.sum()) == pytest.approx((inner[2] - inner[0]) * (inner[3] - inner[1]), rel=0.1, abs=25)
    ys, xs = (lit > 0.5).nonzero(as_tuple=True)
    found = (int(xs.min()) + 7, int(ys.min()) + 7, int(xs.max()) + 8, int(ys.max()) + 8)
    assert found == pytest.approx(inner, abs=1.51)

    mask = np.zeros((height, width), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    shares = coverage(mask, view, prepared, GRID).reshape(6, 6)
    means = shown.reshape(6, 8, 6, 8).mean(dim=(1, 3))
    assert np.abs(shares - means.numpy())[1:-1, 1:-1].max() < 0.2


@settings(max_examples=50, deadline=None)
@given(
    left=st.floats(-0.2, 0.5), wide=st.floats(0.2, 0.8), move=st.integers(-5, 5), mirrored=st.booleans(),
    data=st.integers(0, 99),
)  # fmt: skip
def test_coverage_is_the_area_under_the_mask(
    left: float, wide: float, move: int, mirrored: bool, data: int
) -> None:
    """Against a plain sum over the mask's pixels."""
    mask = np.random.default_rng(data).random((9, 13)) < 0.4
    view = View(
        crop=(left, left, left + wide, left + wide), move=(move / SIDE, -move / SIDE), mirrored=mirrored
    )
    found = coverage(mask, view, FULL_IMAGE, PatchGrid(SIDE, SIDE, 16))
    expected = np.zeros((3, 3))
    for row, column in zip(*np.nonzero(mask), strict=True):
        x1, y1, x2, y2 = view.place(
            (column / 13, row / 9, (column + 1) / 13, (row + 1) / 9), FULL_IMAGE, GRID.size
        )
        for i in range(3):
            for j in range(3):
                across = min(x2, (j + 1) / 3) - max(x1, j / 3)
                down = min(y2, (i + 1) / 3) - max(y1, i / 3)
                expected[i, j] += max(across, 0) * max(down, 0) * 9
    assert found == pytest.approx(expected.ravel(), abs=1e-9)


def test_patches_of_a_box_are_those_with_their_center_in_it() -> None:
    region = ImageRegion("a", (0.0, 0.0, 0.5, 0.25))
    (found,) = visible_regions([region], View(), FULL_IMAGE, PatchGrid(4, 4, 1))
    assert found.patches == (0, 1)
    assert found.box == region.box
    (mirrored,) = visible_regions([region], View(mirrored=True), FULL_IMAGE, PatchGrid(4, 4, 1))
    assert mirrored.patches == (2, 3)
    (moved,) = visible_regions([region], View(move=(-0.25, 0.25)), FULL_IMAGE, PatchGrid(4, 4, 1))
    assert moved.patches == (4,)
    assert moved.box == (0.0, 0.25, 0.25, 0.5)


def test_a_small_region_gets_the_nearest_patch() -> None:
    (found,) = visible_regions(
        [ImageRegion("a", (0.9, 0.51, 0.92, 0.52))], View(), FULL_IMAGE, PatchGrid(4, 4, 1)
    )
    assert found.patches == (11,)


def test_a_region_whose_center_left_the_view_is_dropped() -> None:
    regions = [ImageRegion("a", (0.0, 0.0, 0.5, 0.5)), ImageRegion("b", (0.2, 0.2, 0.6, 0.6))]
    (found,) = visible_regions(regions, View(crop=(0.3, 0.3, 1.0, 1.0)), FULL_IMAGE, GRID)
    assert found.number == 1
    assert found.box == pytest.approx((0.0, 0.0, 3 / 7, 3 / 7))


def test_a_mask_takes_the_patches_it_covers_by_half() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[:4, :2] = mask[0, 2:4] = mask[7, 7] = True
    (found,) = visible_regions(
        [ImageRegion("a", FULL_IMAGE, RunLengths.encode(mask))], View(), FULL_IMAGE, PatchGrid(8, 8, 4)
    )
    assert found.patches == (0,)
    thin = np.zeros((8, 8), dtype=bool)
    thin[7, 5:8] = True
    (found,) = visible_regions(
        [ImageRegion("a", FULL_IMAGE, RunLengths.encode(thin))], View(), FULL_IMAGE, PatchGrid(8, 8, 4)
    )
    assert found.patches == (3,)


def test_a_border_that_no_patch_covers_is_not_part_of_the_grid() -> None:
    grid = PatchGrid(50, 50, 16)
    assert (grid.rows, grid.columns, len(grid)) == (3, 3, 9)
    assert grid.edges()[0].tolist() == pytest.approx([0, 0.32, 0.64, 0.96])


def test_processors_that_place_boxes_otherwise_are_refused() -> None:
    padded = with_resize(PROCESSORS["squash"], "pad", SIDE, SIDE)
    with pytest.raises(InputError, match="is not known"):
        Preprocessing(padded).window(60, 40)
    assert Preprocessing(with_resize(PROCESSORS["crop"], "squash", SIDE, SIDE)).window(60, 40) == FULL_IMAGE
