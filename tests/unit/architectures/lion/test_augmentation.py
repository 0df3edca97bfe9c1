"""Views of region data: pixels, boxes and the words left and right agree, and no box is ever cut."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from priorkit.architectures.lion.augmentation import SampleAugmentation
from priorkit.architectures.lion.objective import LionObjective
from priorkit.core.boxes import BOX_FORMAT_NAMES, BoxWriter
from priorkit.data.conversations.conversation import Conversation, Turn
from priorkit.data.conversations.region_augmentation import (
    fit_view,
    seen_text,
    swap_sides,
)
from priorkit.data.conversations.regions import box_text
from priorkit.data.conversations.task_conversations import TaskConversation, check_boxes
from priorkit.data.images.augmentation import AugmentationSettings, View
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.pixels import Pixels
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.training.finetuning.vision_features import PerStepFeatures
from tests.support.lion_models import build_lion
from tests.support.lion_objective import objective, samples, tokenized

DECIMALS = BoxWriter()
SIZE: tuple[int, int] = (48, 48)
MIRROR = View(mirrored=True)


def prepare(image: Image.Image) -> torch.Tensor:
    resized = image.resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    # At least six prepared pixels wide, so that its position can be measured.
    x1, y1 = draw(st.floats(0, 0.8)), draw(st.floats(0, 0.8))
    return x1, y1, draw(st.floats(x1 + 0.125, 1)), draw(st.floats(y1 + 0.125, 1))


WORDS = st.sampled_from(
    [
        "left",
        "Right",
        "LEFT",
        "leftmost",
        "right-hand",
        "rightwards",
        "leFt",
        "upright",
        "left.",
        "the",
        "dog",
    ]
)


@given(st.lists(WORDS))
def test_swapping_sides_twice_is_nothing(words: list[str]) -> None:
    text = " ".join(words)
    assert swap_sides(swap_sides(text)) == text


def test_sides_are_swapped_in_all_their_forms() -> None:
    text = "Left of the upright man, the rightmost copyright sign; at the RIGHT-hand side of leftwards arrow"
    swapped = (
        "Right of the upright man, the leftmost copyright sign; at the LEFT-hand side of rightwards arrow"
    )
    assert swap_sides(text) == swapped


@given(boxes(), st.integers(1, 4), st.lists(WORDS))
def test_mirroring_twice_is_nothing(box: tuple, decimals: int, words: list[str]) -> None:
    numbers = ", ".join(f"{number:.{decimals}f}" for number in box)
    text = f"{' '.join(words)} [{numbers}] and [0,0.25,1,0.5]"
    once = seen_text(text, MIRROR, SIZE, DECIMALS)
    assert seen_text(once, MIRROR, SIZE, DECIMALS) == text
    assert "[0,0.25,1,0.5]" in once
    for (x1, y1, x2, y2), (a, b, c, d) in zip(
        DECIMALS.boxes_in([text]), DECIMALS.boxes_in([once]), strict=True
    ):
        assert (b, d) == (y1, y2)
        assert a + x2 == pytest.approx(1)
        assert c + x1 == pytest.approx(1)


@given(
    boxes(),
    st.sampled_from([BoxWriter("thousandths"), *(BoxWriter("location-tokens", bins=n) for n in (48, 1000))]),
)
def test_mirroring_keeps_the_format(box: tuple, writer: BoxWriter) -> None:
    text = writer.write(box)
    once = seen_text(text, MIRROR, SIZE, writer)
    assert seen_text(once, MIRROR, SIZE, writer) == text
    ((x1, y1, x2, y2),), ((a, b, c, d),) = writer.boxes_in([text]), writer.boxes_in([once])
    assert (a, b, c, d) == pytest.approx(
        (1 - x2, y1, 1 - x1, y2), abs=1.01e-3 if writer.bins < 1000 else 1e-9
    )
    assert set(re.findall(r"<.*?>", once)) <= set(writer.tokens)


def test_what_is_no_box_stays_as_it_is() -> None:
    writer = BoxWriter("thousandths")
    text = "the points (30,40),(10,20) and (0,5000),(1,1)"
    assert seen_text(text, View(crop=(0.0, 0.0, 0.5, 0.5)), SIZE, writer) == text


@given(
    box=boxes(),
    seed=st.integers(0, 1 << 40),
    crop=st.sampled_from([1.0, 0.5, 0.1]),
    shift=st.integers(0, 12),
    flip=st.booleans(),
    writer=st.sampled_from([BoxWriter(name) for name in BOX_FORMAT_NAMES]),
)
def test_the_box_is_where_the_thing_is(
    box: tuple, seed: int, crop: float, shift: int, flip: bool, writer: BoxWriter
) -> None:
    settings = AugmentationSettings(augment_crop=crop, augment_shift=shift, augment_flip=flip)
    # A red thing on blue, drawn large so that its edges are exact to a fraction of a prepared pixel.
    source = np.zeros((480, 480, 3), dtype=np.uint8)
    source[..., 2] = 255
    x1, y1, x2, y2 = (round(value * 480) for value in box)
    source[y1:y2, x1:x2] = (255, 0, 0)
    image = Image.fromarray(source)
    pixels = Pixels([ImageRef("a", content=_png(image))], prepare)
    text = f"It is at {box_text((x1 / 480, y1 / 480, x2 / 480, y2 / 480), writer)}"
    view = fit_view(pixels.draw(0, settings, seed), [text], SIZE, writer)
    seen = pixels.view(0, view)
    said = seen_text(text, view, SIZE, writer)
    check_boxes([said], writer)
    ((a, b, c, d),) = writer.boxes_in([said])
    red = seen[0].numpy() > 127
    down, across = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    found = (across[0] / 48, down[0] / 48, (across[-1] + 1) / 48, (down[-1] + 1) / 48)
    # Within a prepared pixel; a shift repeats border pixels, which lengthens what touched the border.
    edge = 1.2 / 48
    reach = edge + max(map(abs, view.move))
    for name, stated, seen_at in zip(("x1", "y1", "x2", "y2"), (a, b, c, d), found, strict=True):
        outward, border = (
            (stated - seen_at, stated) if name in ("x1", "y1") else (seen_at - stated, 1 - stated)
        )
        lengthened = outward > 0 and border <= reach and outward <= reach
        assert abs(stated - seen_at) <= edge or lengthened, (name, said, found, view)
    # Nothing is cut off: its area in the view is its original area times the crop's scale.
    left, top, right, bottom = view.crop or (0.0, 0.0, 1.0, 1.0)
    assert (c - a) * (right - left) == pytest.approx((x2 - x1) / 480, abs=2.5e-3)
    assert (d - b) * (bottom - top) == pytest.approx((y2 - y1) / 480, abs=2.5e-3)


def _png(image: Image.Image) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@given(boxes(), boxes())
def test_words_and_boxes_agree(one: tuple, other: tuple) -> None:
    def side(box: tuple) -> str:
        return "left" if sum(box[::2]) < 1 else "right"

    texts = [f"the thing on the {side(box)}: {box_text(box, DECIMALS)}" for box in (one, other)]
    for text in (seen_text(text, MIRROR, SIZE, DECIMALS) for text in texts):
        (box,) = DECIMALS.boxes_in([text])
        if abs(sum(box[::2]) - 1) > 2e-3:
            assert f"the {side(box)}:" in text


def test_texts_that_may_become_false_are_not_augmented() -> None:
    drawn = View(crop=(0.1, 0.1, 0.6, 0.6), move=(0.1, 0.0), mirrored=True)
    assert fit_view(drawn, ["the red ball"], SIZE, DECIMALS) == drawn
    placed = fit_view(drawn, ["the second ball from the left"], SIZE, DECIMALS)
    assert placed == View(mirrored=True)
    assert not fit_view(drawn, ["how many are left?", "two are left"], SIZE, DECIMALS).mirrored
    assert fit_view(drawn, ["is it left of the cat?"], SIZE, DECIMALS).mirrored
    assert not fit_view(drawn, ["it is red, right?"], SIZE, DECIMALS).mirrored
    # A box that fills the image is not cropped and not moved.
    whole = fit_view(drawn, ["[0.000,0.000,1.000,1.000]"], SIZE, DECIMALS)
    assert whole.crop == (0.0, 0.0, 1.0, 1.0)
    assert whole.move == (0.0, 0.0)
    # One in a corner pulls the crop there, and a crop that is too small grows.
    assert fit_view(View(crop=(0.1, 0.1, 0.3, 0.3)), ["[0.5,0.5,1.0,1.0]"], SIZE, DECIMALS).crop == (
        0.5,
        0.5,
        1.0,
        1.0,
    )


def augmented(lion, data: list[TaskConversation], settings: AugmentationSettings) -> LionObjective:
    chat = ChatTokenizer(lion.tokenizer, lion.image_tokens, lion.max_length)
    encoded = tokenized(data, chat, lion.model.config.tags)
    pixels = Pixels(encoded.images, lion.prepare)
    augmentation = SampleAugmentation(settings, pixels, encoded.tokenizer, seed=7)
    features = PerStepFeatures(lion, pixels, trained=False)
    return LionObjective(lion, encoded, features, {}, True, 0, augmentation)


def test_a_sample_repeats_at_its_place_and_its_words_follow(base) -> None:
    lion = build_lion(base)
    turns = Turn("user", "<image>\nFind the left circle."), Turn("assistant", "[0.100,0.250,0.480,0.710]")
    image = samples()[1].conversation.images
    data = [TaskConversation(Conversation("a", turns, image), "region-level", ("red", "left arrow"))]
    own = augmented(lion, data, AugmentationSettings(augment_flip=True))
    seen = [own.sample(0, place) for place in range(16)]
    assert [sample.views for sample in seen] == [own.sample(0, place).views for place in range(16)]
    texts = {}
    for sample in seen:
        (view,) = sample.views
        text = lion.tokenizer.decode(sample.encoded.input_ids)
        texts[view.mirrored] = text
        question = lion.tokenizer.decode(sample.questions[0])
        assert ("right circle" in question) == view.mirrored
    assert set(texts) == {False, True}
    assert re.search(r"tags: \[red, left arrow\]", texts[True])
    assert "Find the right circle" in texts[True]
    assert "[0.520,0.250,0.900,0.710]" in texts[True]
    assert "Find the left circle" in texts[False]
    mirrored = next(sample for sample in seen if sample.views[0].mirrored)
    plain = next(sample for sample in seen if not sample.views[0].mirrored)
    both = own.collate([mirrored, plain])["pixels"]
    assert torch.equal(both[0], both[1].flip(-1)) or torch.equal(both[1], both[0].flip(-1))
    assert torch.isfinite(own.loss(own.collate([mirrored, plain])).total)
    # Without augmentation, nothing changes.
    still = objective(lion, data).sample(0, 3)
    assert still.views == ()
    assert still.encoded == plain.encoded


def test_conversations_of_several_images_are_not_cropped(base) -> None:
    lion = build_lion(base)
    turns = Turn("user", "<image>\n<image>\nSame?"), Turn("assistant", "yes")
    images = tuple(sample.conversation.images[0] for sample in samples()[:2])
    own = augmented(
        lion,
        [TaskConversation(Conversation("a", turns, images), "image-level", None)],
        AugmentationSettings(augment_flip=True, augment_crop=0.3, augment_jitter=0.5),
    )
    for place in range(6):
        views = own.sample(0, place).views
        assert all(view.crop is None and not view.mirrored for view in views)
        assert any(view.colour != (1.0, 1.0, 1.0) for view in views)


def test_from_the_command_line(artifacts, cli, tmp_path) -> None:
    common = (
        "--adapter-width", 8, "--queries", 3, "--qformer-width", 16, "--qformer-layers", 2, "--qformer-heads", 2,
        "--aggregator-heads", 2, "--steps", 2, "--batch-size", 4, "--device", "cpu", "--precision", "fp32",
        "--augment-flip", "--augment-crop", 0.6,
    )  # fmt: skip
    written = []
    for workers in (0, 1):
        out = tmp_path / str(workers)
        done = cli(
            "tune", artifacts.mllm, artifacts.instructions, "--architecture", "lion", "--stage", "all", *common,
            "--workers", workers, "--out", out,
        )  # fmt: skip
        assert done.code == 0, done.err
        written.append((out / "adapter_model.safetensors").read_bytes())
    assert written[0] == written[1]
    llava = cli("tune", artifacts.mllm, artifacts.instructions, "--augment-flip", "--out", tmp_path / "no")
    assert llava.code == 2
    assert "--augment-flip: only --architecture lion takes this" in llava.err
