from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from priorkit.core.errors import InputError
from priorkit.data.conversations.conversation import (
    Conversation,
    Turn,
    check_conversations,
    drop_broken_images,
)
from priorkit.data.images.decoding import ImageRef
from priorkit.data.io.rejects import Rejects
from priorkit.data.pairs.reading import check_pairs, read_pairs
from tests.support.conversations import all_conversations


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


def read(folder: Path, *rows: dict[str, Any]) -> tuple[list[Conversation], list[str]]:
    path = folder / "c.json"
    good = {"conversations": turns("q", "a")}
    path.write_text(json.dumps([good, *rows]))
    (folder / "a.png").write_bytes(b"not looked at yet")
    rejects = Rejects(1)
    found = all_conversations(path, rejects)
    return found[1:], [str(row["reason"]) for row in rejects.rows]


def test_llavas_format(tmp_path: Path) -> None:
    (found,), reasons = read(
        tmp_path,
        {"id": 0, "image": "a.png", "conversations": turns("<image>\nWhat?", "This."), "ability": "x"},
    )
    assert reasons == []
    assert found == Conversation(
        "0",
        (Turn("user", "<image>\nWhat?"), Turn("assistant", "This.")),
        (ImageRef("a.png", tmp_path / "a.png"),),
        "x",
    )


def test_roles_and_contents_of_other_tools_and_several_images(tmp_path: Path) -> None:
    rows = [{"role": "system", "content": "s"}, {"role": "user", "content": "<image><image>q"}]
    (found,), _ = read(
        tmp_path,
        {"image": ["a.png", "a.png"], "conversations": [*rows, {"role": "assistant", "content": "a"}]},
    )
    assert [turn.role for turn in found.turns] == ["system", "user", "assistant"]
    assert found.id == "2"
    assert len(found.images) == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"conversations": []}, "empty or not a list"),
        ({"conversations": "q"}, "empty or not a list"),
        ({}, "empty or not a list"),
        ({"conversations": ["q"]}, "a turn is not an object"),
        ({"conversations": turns("q")}, "take turns"),
        ({"conversations": turns("q", "a")[::-1]}, "take turns"),
        ({"conversations": [{"from": "system", "value": "s"}]}, "take turns"),
        ({"conversations": [{"from": "humn", "value": "q"}]}, "unknown role 'humn' (did you mean 'human'?)"),
        ({"conversations": [{"from": "human"}]}, "has no text"),
        ({"conversations": [{"from": "human", "value": None}]}, "has no text"),
        ({"conversations": turns("q", " ")}, "an answer is empty"),
        ({"image": "a.png", "conversations": turns("q", "<image>")}, "an answer holds an image placeholder"),
        ({"image": "a.png", "conversations": turns("q", "a")}, "0 image placeholders, 1 images"),
        ({"conversations": turns("<image>q", "a")}, "1 image placeholders, 0 images"),
        ({"image": "b.png", "conversations": turns("<image>q", "a")}, "no such image: b.png"),
        ({"image": "../b.png", "conversations": turns("<image>q", "a")}, "leaves its folder"),
        ({"image": "", "conversations": turns("<image>q", "a")}, "1 image placeholders, 0 images"),
        ({"image": [""], "conversations": turns("<image>q", "a")}, "1 image placeholders, 0 images"),
        ({"video": "a.mp4", "conversations": turns("<video>q", "a")}, "the row has a 'video'"),
        ({"image": "a.png", "images": ["a.png"], "conversations": turns("<image>q", "a")}, "both"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "a turn's content is video"),
    ],
)
def test_unusable_samples_are_rejected_with_their_reason(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    found, reasons = read(tmp_path, row)
    assert found == []
    assert len(reasons) == 1
    assert reason in reasons[0]


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        ("<image>\nq", "q"),
        ("q\n<image>", "q"),
        ("a <image> b", "a  b"),
        ("<image>\n<image>\nq", "q"),
        ("q", "q"),
    ],
)
def test_images_are_withheld_with_their_line_break(text: str, dropped: str) -> None:
    sample = Conversation("1", (Turn("user", text), Turn("assistant", "a")), (ImageRef("x"),), "g")
    assert sample.without_images().turns[0].text == dropped
    assert sample.without_images().images == ()
    assert sample.without_images("<image>").turns == sample.turns
    assert sample.without_images("[no image]").turns[0].text == text.replace("<image>", "[no image]")


def test_a_file_without_conversations_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"conversation": []}\n')
    with pytest.raises(
        InputError,
        match=r"the columns are conversation\n.*rename 'conversation' to 'conversations'",
    ):
        check_conversations(path)


def test_images_that_do_not_decode_take_their_sample_along(tmp_path: Path) -> None:
    found, _ = read(tmp_path, {"image": "a.png", "conversations": turns("<image>q", "a")})
    rejects = Rejects(1)
    # Two conversations of one row, as regions give; the row counts once.
    rejects.accept()
    assert list(drop_broken_images([("c.json", 2, found[0])] * 2, rejects)) == []
    (row,) = rejects.rows
    assert rejects.total == 1
    assert (row["file"], row["row"]) == ("c.json", 2)
    assert "cannot identify image file" in str(row["reason"])


def test_pairs(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"x")
    path = tmp_path / "p.jsonl"
    rows = [
        {"file_name": "a.png", "caption": "one"},
        {"file_name": "broken.png", "caption": "x"},
        {"file_name": "a.png", "caption": " "},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rejects = Rejects(1)
    pairs = read_pairs(path, rejects)
    assert tuple(pairs.texts) == ("one",)
    assert len(pairs) == len(pairs.images) == 1
    assert [row["row"] for row in rejects.rows] == [2, 3]
    path.write_text('{"image": "a.png"}\n')
    with pytest.raises(
        InputError, match=r"no column of the text \(text or .*; the columns are image\n.*--text-column"
    ):
        check_pairs(path)
    path.write_text('{"text": "a"}\n')
    with pytest.raises(InputError, match="no column of the image"):
        check_pairs(path)
