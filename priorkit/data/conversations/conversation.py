"""Conversations: LLaVA's rows, questions with answers, and captions, with or without images."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError, Problems, nearest, rename_hint
from priorkit.core.json_text import UnusableJsonError, parse_json
from priorkit.core.process.threads import streamed_in_threads
from priorkit.data.columns import IMAGES, RowLayout, require_column
from priorkit.data.images.decoding import BrokenImageError, ImageRef, decode, is_no_image
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_format import json_type
from priorkit.data.io.rows import column_names, files_of, read_rows

PLACEHOLDER = "<image>"

TURN_KEYS = ("conversations", "messages")
"""Keys of a row's turns, the first that is there: LLaVA's, and that of chat interfaces."""

IMAGE_KEYS = ("image", "images")
"""Keys of a row's images, the first that holds any."""

CAPTION_IMAGES = (*IMAGE_KEYS, *(name for name in IMAGES if name not in IMAGE_KEYS))
"""Columns of the image where every row shows one; rows of text may have others of these, such as a file's name."""

COMMON = RowLayout(image=IMAGE_KEYS, text=())
"""Rows of captions are read by ``align``, and where pairs are."""

_OTHER_MEDIA = ("video", "videos", "audio", "audios")
"""Keys of what a row may show and no model here takes."""

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: ``role`` is ``user``, ``assistant`` or ``system``."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation.

    Attributes:
        id: the sample's id, or its number in the file.
        turns: user and assistant in turn, perhaps after a system turn; the last is the assistant's.
        images: as many as there are placeholders in the turns.
        ability: the group of abilities the sample trains, where labelled.
        payload: JSON values that an architecture needs with it, such as LION's task type.
    """

    id: str
    turns: tuple[Turn, ...]
    images: tuple[ImageRef, ...]
    ability: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)

    def without_images(self, placeholder: str = "") -> Conversation:
        """The same words with no image: each placeholder is replaced by a text, with its line break."""
        pattern = PLACEHOLDER if placeholder else rf"{PLACEHOLDER}\n|\n?{PLACEHOLDER}"
        turns = tuple(Turn(turn.role, re.sub(pattern, placeholder, turn.text)) for turn in self.turns)
        return replace(self, turns=turns, images=())


def check_conversations(
    path: Path, layout: RowLayout = COMMON, alternatives: Collection[str] = ()
) -> list[Path]:
    """The files of a source of conversations, their columns checked from headers.

    Args:
        path: a file or a folder.
        layout: the columns of images, questions, answers and captions.
        alternatives: further columns by which rows can be made into conversations.

    Raises:
        InputError: no file of a known type, or no conversations in it.
    """
    files = files_of(path)
    problems = Problems(InputError)
    for file in files:
        with problems.collecting():
            _check_file(file, layout, alternatives)
    problems.raise_if_any()
    return files


def _check_file(file: Path, layout: RowLayout, alternatives: Collection[str]) -> None:
    columns = column_names(file)
    if not holds_conversations(columns, layout) and set(alternatives).isdisjoint(columns):
        raise InputError(
            f"neither 'conversations' in LLaVA's format nor a question with an answer; the columns are "
            f"{', '.join(columns)}",
            where=str(file),
            hint=rename_hint(TURN_KEYS[0], columns, only_close=True)
            or "name the columns with --question-column and --answer-column",
        )
    check_given_images(file, layout)


def check_given_images(file: Path, layout: RowLayout) -> None:
    """Check that a file has the column of images where one was named; without one all its rows may be of text.

    Raises:
        InputError: it has not.
    """
    if layout.image not in (IMAGE_KEYS, CAPTION_IMAGES):
        require_column(file, "image", layout.image)


def has_turns(columns: Iterable[str]) -> bool:
    """Whether rows with these columns hold turns."""
    return not set(TURN_KEYS).isdisjoint(columns)


def holds_conversations(columns: Collection[str], layout: RowLayout) -> bool:
    """Whether rows with these columns hold turns, a question with its answer, or a caption."""
    asked = not set(layout.question).isdisjoint(columns) and not set(layout.answer).isdisjoint(columns)
    return has_turns(columns) or asked or not set(layout.text).isdisjoint(columns)


def conversations_of(
    path: Path, rejects: Rejects, layout: RowLayout = COMMON
) -> Iterator[tuple[str, int, Conversation]]:
    """Yield ``(file, row number from 1, conversation)``; unusable samples go to ``rejects`` with the reason.

    Usable samples are not counted here: the caller may still reject their images.

    Raises:
        InputError: a file is damaged.
    """
    for file in check_conversations(path, layout):
        for number, row in read_rows(file, rejects):
            try:
                yield str(file), number, conversation_of(row, file, number, layout)
            except (BrokenImageError, ValueError) as error:
                rejects.add(str(file), number, str(error))


def drop_broken_images(
    conversations: Iterable[tuple[str, int, Conversation]], rejects: Rejects
) -> Iterator[tuple[str, int, Conversation]]:
    """Yield the conversations all of whose images decode; the rows of the others go to ``rejects``, in order.

    The conversations of a row (one for each direction of each region) share its images.

    Args:
        conversations: ``(file, row number, conversation)``, counted as usable.
        rejects: takes rows with a broken image.
    """
    rows = (list(items) for _, items in groupby(conversations, key=lambda item: item[:2]))
    for items, reason in streamed_in_threads(lambda items: _image_fault(items[0][2]), rows):
        if reason:
            rejects.add(items[0][0], items[0][1], reason, accepted=True)
        else:
            yield from items


def _image_fault(conversation: Conversation) -> str:
    """Why an image of a conversation cannot be used; empty where all can."""
    for image in conversation.images:
        try:
            decode(image)
        except BrokenImageError as error:
            return f"{conversation.id}: {error}"
    return ""


def conversation_of(
    row: Mapping[str, Any], file: Path, number: int, layout: RowLayout = COMMON
) -> Conversation:
    """The conversation of a row: its turns, or its question and answer, or a caption as an answer to the image.

    Raises:
        ValueError: it is not a conversation, or its images are not as many as its placeholders.
        BrokenImageError: an image is missing.
    """
    given = row.get("id")
    name = str(number if given is None else given)
    for key in _OTHER_MEDIA:
        if row.get(key):
            raise ValueError(f"the row has a '{key}', which cannot be read")
    shown: list[Any] = []
    given_images = _image_cells(row, layout)
    turns = _turns(_turn_cells(row, len(given_images), layout), shown)
    cells = given_images or shown
    images = tuple(layout.image_of(cell, file, f"{name}.{index}") for index, cell in enumerate(cells))
    wanted = sum(turn.text.count(PLACEHOLDER) for turn in turns)
    if wanted != len(images):
        raise ValueError(f"{wanted} image placeholders, {len(images)} images")
    return Conversation(name, turns, images, str(row.get("ability") or ""))


def _turn_cells(row: Mapping[str, Any], images: int, layout: RowLayout) -> Any:
    """A row's turns, after its system prompt where that is a key of the row.

    Raises:
        ValueError: a question or caption that is no text.
    """
    cells = next((row[key] for key in TURN_KEYS if row.get(key) is not None), None)
    if cells is None:
        cells = _plain_turns(row, images, layout)
    elif isinstance(cells, str):
        cells = _from_json(cells)
    system = row.get("system")
    if isinstance(cells, list) and isinstance(system, str) and system.strip():
        return [{"role": "system", "content": system}, *cells]
    return cells


def _plain_turns(row: Mapping[str, Any], images: int, layout: RowLayout) -> Any:
    """The turns of a row with a question and an answer, or with a caption; the images come first.

    Raises:
        ValueError: one of them is no text.
    """
    columns = [next((name for name in wanted if row.get(name) is not None), None)
               for wanted in (layout.question, layout.answer, layout.text)]  # fmt: skip
    question, answer, text = columns
    if answer is None or question is None:
        question, answer = None, text
    if answer is None:
        return None
    asked, said = "" if question is None else row[question], row[answer]
    for name, cell in ((question, asked), (answer, said)):
        if not isinstance(cell, str):
            raise ValueError(f"'{name}' is {json_type(cell)}, not text")
    shown = "" if PLACEHOLDER in asked else (PLACEHOLDER + "\n") * images
    return [
        {"role": "user", "content": shown + asked if asked else shown.removesuffix("\n")},
        {"role": "assistant", "content": said},
    ]


def _from_json(text: str) -> Any:
    """What a cell of a CSV holds, where it is JSON; else the text."""
    try:
        return parse_json(text, unique_keys=True)
    except UnusableJsonError as error:
        raise ValueError(error.msg) from None
    except json.JSONDecodeError:
        return text


def _image_cells(row: Mapping[str, Any], layout: RowLayout) -> list[Any]:
    """A row's images; an empty text or null is none.

    Raises:
        ValueError: two keys hold images.
    """
    by_column: dict[str, list[Any]] = {}
    for key in layout.image:
        value = row.get(key)
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = _from_json(value)
        cells = [cell for cell in (value if isinstance(value, list) else [value]) if not is_no_image(cell)]
        if cells:
            by_column[key] = cells
    if by_column.keys() >= set(IMAGE_KEYS):
        raise ValueError("images under both 'image' and 'images'")
    return next(iter(by_column.values()), [])


def _content(value: Any, shown: list[Any]) -> Any:
    """A turn's text; of content parts the texts with a placeholder for each image, which go to ``shown``.

    Raises:
        ValueError: a part is neither text nor an image.
    """
    if not isinstance(value, list):
        return value
    texts: list[str] = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image", "image_url"):
            texts.append(PLACEHOLDER + "\n")
            cell = next((part[key] for key in ("image", "image_url", "path", "url") if part.get(key)), None)
            cell = cell.get("url", cell) if isinstance(cell, dict) else cell
            if cell is not None:
                shown.append(cell)
        else:
            raise ValueError(f"a part of a turn's content is {kind or json_type(part)}, not text or image")
    return "".join(texts)


def _turns(value: Any, shown: list[Any]) -> tuple[Turn, ...]:
    """The turns of a row; images named in their contents go to ``shown``."""
    if not isinstance(value, list) or not value:
        raise ValueError("conversations is empty or not a list")
    turns: list[Turn] = []
    for part in value:
        if not isinstance(part, dict):
            raise ValueError("a turn is not an object")
        role = str(part.get("from") or part.get("role") or "")
        text = _content(part.get("value") if "value" in part else part.get("content"), shown)
        if role not in _ROLES:
            raise ValueError(f"unknown role '{role}' ({nearest(role, _ROLES)})")
        if not isinstance(text, str):
            raise ValueError(f"the turn of '{role}' has no text")
        turns.append(Turn(_ROLES[role], text))
    spoken = [turn for turn in turns if turn.role != "system"]
    expected = ["user", "assistant"] * (len(spoken) // 2)
    if [turn.role for turn in spoken] != expected or not spoken:
        raise ValueError("user and assistant must take turns, the assistant last")
    if any(turn.role == "assistant" and not turn.text.strip() for turn in turns):
        raise ValueError("an answer is empty")
    if any(turn.role == "assistant" and PLACEHOLDER in turn.text for turn in turns):
        raise ValueError("an answer holds an image placeholder")
    return tuple(turns)
