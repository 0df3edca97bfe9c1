"""Regions: RefCOCO-style and Visual Genome rows to questions and answers, and every broken box refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.core.boxes import BoxWriter
from priorkit.core.errors import InputError
from priorkit.data.conversations.regions import box_text, conversations_of_regions
from priorkit.data.conversations.task_conversations import (
    TaskConversation,
    check_boxes,
    check_task_conversations,
    tags_of,
    task_conversations_of,
    task_type_of,
)
from priorkit.data.io.rejects import Rejects
from priorkit.scoring.answers.boxes import read_box
from tests.support.lion_models import png

DECIMALS = BoxWriter()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A picture of 40 x 40 pixels."""
    (tmp_path / "a.png").write_bytes(png(0))
    return tmp_path


def read(
    path: Path,
    rejects: Rejects,
    task_column: str = "task_type",
    tags_column: str = "",
    reserved: tuple[str, ...] = (),
    writer: BoxWriter = DECIMALS,
) -> list[TaskConversation]:
    items = list(task_conversations_of(path, rejects, task_column, tags_column, writer, reserved))
    rejects.raise_if_over_limit()
    return [TaskConversation.of(conversation) for _, _, conversation in items]


def write(folder: Path, *rows: dict) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_refcoco_rows_ask_both_ways(folder: Path) -> None:
    path = write(
        folder,
        {"image": "a.png", "sentences": [{"sent": "left man"}, "the man"], "bbox": [4, 8, 20, 16]},
        {"image": "a.png", "expression": "a hat", "box": [0.44, 0.06, 0.65, 0.367]},
    )
    found = read(path, Rejects(0), "task_type", "")
    texts = [[turn.text for turn in row.conversation.turns] for row in found]
    assert len(found) == 6
    assert {row.task_type for row in found} == {"region-level"}
    assert texts[0][1] == "[0.100,0.200,0.600,0.600]"
    assert "left man" in texts[0][0]
    assert "[0.100,0.200,0.600,0.600]" in texts[1][0]
    assert texts[1][1] == "left man"
    assert texts[4][1] == "[0.440,0.060,0.650,0.367]"
    assert all(text[0].startswith("<image>\n") for text in texts)


def test_regions_with_normalized_boxes(folder: Path) -> None:
    path = write(folder, {"image": "a.png", "regions": [{"text": "a red hat", "box": [0.1, 0.2, 0.6, 0.6]}]})
    first, second = (row.conversation.turns for row in read(path, Rejects(0)))
    assert "a red hat" in first[0].text
    assert first[1].text == "[0.100,0.200,0.600,0.600]"
    assert second[1].text == "a red hat"


def test_visual_genome_rows(folder: Path) -> None:
    region = {"phrase": "a red hat", "x": 10, "y": 0, "width": 20, "height": 30.5}
    path = write(
        folder,
        {"image": "a.png", "regions": [region, {**region, "phrase": "sky"}]},
        {"image": "a.png", **region, "image_width": 100, "image_height": 50},
    )
    found = read(path, Rejects(0), "task_type", "")
    assert len(found) == 6
    assert found[0].conversation.turns[1].text == "[0.250,0.000,0.750,0.762]"
    assert found[4].conversation.turns[1].text == "[0.100,0.000,0.300,0.610]"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"expression": "a", "box": [0.2, 0.1, 1.2, 0.5]}, "leaves [0, 1]"),
        ({"expression": "a", "box": [0.6, 0.1, 0.2, 0.5]}, "reversed corners"),
        ({"expression": "a", "bbox": [30, 0, 20, 10]}, "leaves the image of 40 x 40"),
        ({"expression": "a", "bbox": [1, 2, 3]}, "needs four numbers"),
        ({"expression": "  ", "bbox": [1, 2, 3, 4]}, "not text"),
        ({"phrase": "x", "x": 1, "y": 1, "width": 0, "height": 4}, "no area"),
        ({"regions": [{"x": 1}]}, "no phrase"),
    ],
)
def test_broken_regions(folder: Path, row: dict, words: str) -> None:
    found, faults = conversations_of_regions({"image": "a.png", **row}, folder / "rows.jsonl", 1, DECIMALS)
    assert not found
    assert [fault.region for fault in faults] == [1]
    assert words in faults[0].reason


def test_a_broken_region_leaves_the_others_of_its_row(folder: Path) -> None:
    good = {"phrase": "a red hat", "x": 10, "y": 0, "width": 20, "height": 30}
    path = write(
        folder,
        {
            "image": "a.png",
            "regions": [good, {**good, "x": 30}, {**good, "width": 0}, {**good, "phrase": "x"}],
        },
        {"image": "a.png", "sentences": ["left man", " ", "say <soft_prompt>"], "bbox": [4, 8, 20, 16]},
        {"image": "b.png", **good},
    )
    rejects = Rejects(1.0)
    found = read(path, rejects, "task_type", "", ("<soft_prompt>",))
    assert [row.conversation.id for row in found] == ["1.0.0", "1.0.1", "1.3.0", "1.3.1", "2.0.0", "2.0.1"]
    assert [(row["row"], row.get("region")) for row in rejects.rows] == [
        (1, 2), (1, 3), (2, 2), (2, 3), (3, None),
    ]  # fmt: skip
    reasons = [str(row["reason"]) for row in rejects.rows]
    assert "leaves the image of 40 x 40" in reasons[0]
    assert "no area" in reasons[1]
    assert "not text" in reasons[2]
    assert "holds <soft_prompt>" in reasons[3]
    assert rejects.total == 8
    rejects.write(folder)
    written = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    assert written[0] == {"file": str(path), "row": 1, "region": 2, "reason": reasons[0]}
    with pytest.raises(InputError, match=r"5 of 8 rows are broken .*rows.jsonl:1, region 2: the box"):
        read(path, Rejects(0.5), "task_type", "", ("<soft_prompt>",))


@given(*(st.floats(0, 1) for _ in range(4)))
def test_boxes_are_read_back_as_written(a: float, b: float, c: float, d: float) -> None:
    box = (min(a, c), min(b, d), max(a, c), max(b, d))
    try:
        text = box_text(box, DECIMALS)
    except ValueError:
        assert round(box[0], 3) == round(box[2], 3) or round(box[1], 3) == round(box[3], 3)
        return
    found = read_box(text)
    assert found is not None
    assert max(abs(one - other) for one, other in zip(found, box, strict=True)) <= 5.01e-4
    check_boxes([text], DECIMALS)


def test_task_types_by_name_and_by_box() -> None:
    assert task_type_of("grounding") == "region-level"
    assert task_type_of("Image_Level") == "image-level"
    assert task_type_of(None, ["It is at [0.1, 0.2,0.3,0.4]"]) == "region-level"
    assert task_type_of("", ["Answer with its box [x1,y1,x2,y2]."]) == "image-level"
    with pytest.raises(ValueError, match="did you mean 'region"):
        task_type_of("regio")


def test_tags_cells() -> None:
    assert tags_of(None) is None
    assert tags_of([]) == ()
    assert tags_of("a, b,") == ("a", "b")
    assert tags_of(["a, b", "犬"]) == ("a, b", "犬")
    with pytest.raises(ValueError, match="list of texts"):
        tags_of([1])


def test_conversations_with_bad_boxes_types_and_tokens_are_refused(folder: Path) -> None:
    def row(answer: str, **more: object) -> dict:
        turns = [{"from": "human", "value": "<image>\nWhere?"}, {"from": "gpt", "value": answer}]
        return {"image": "a.png", "conversations": turns, **more}

    for bad, words in (
        (row("[0.5,0.5,1.5,0.9]"), "leaves"),
        (row("[0.5,0.5,0.4,0.9]"), "reversed corners"),
        (row("x", task_type="regin"), "unknown task type 'regin'"),
        (row("say <soft_prompt>"), "reserved token"),
        (row("x", tags=7), "tags must be"),
    ):
        with pytest.raises(InputError, match=words):
            read(
                write(folder, bad),
                Rejects(0),
                "task_type",
                "tags" if "tags" in bad else "",
                ("<soft_prompt>",),
            )
    with pytest.raises(InputError, match="make it with priorkit tag-images"):
        check_task_conversations(write(folder, row("x")), "tags")
    with pytest.raises(InputError, match=r"neither 'conversations' .* nor regions"):
        check_task_conversations(write(folder, {"image": "a.png", "text": "b"}))
