"""Image-text pairs: tables, LLaVA's captions, and WebDataset shards."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError, Problems
from priorkit.core.input_files import list_files
from priorkit.data.columns import RowLayout, find_column, require_column
from priorkit.data.conversations.conversation import conversations_of, has_turns
from priorkit.data.images.decoding import BrokenImageError
from priorkit.data.images.image_check import DEFAULT_CHECK, USABLE, ImageCheck
from priorkit.data.images.regions import REGION_FIELDS, SIZE_FIELDS, ImageRegion, read_regions
from priorkit.data.io.formats import row_suffixes
from priorkit.data.io.parquet import class_label_names
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import column_names, files_of, read_rows
from priorkit.data.pairs import webdataset
from priorkit.data.pairs.stored_pairs import Pair, Pairs, StoredPairs

COMMON = RowLayout()
CAPTION = "caption"
"""The column that GRIT's spans refer to."""


def check_pairs(path: Path, layout: RowLayout = COMMON) -> list[Path]:
    """The files of a source of pairs, their columns or first members checked from headers.

    In a folder with shards only these are read: tools that write them add further tables.

    Args:
        path: a file or a folder.
        layout: the columns of images and texts.

    Raises:
        InputError: no file of a known type, or no image or text in it.
    """
    shards = list_files(path).names if path.is_dir() else ()
    if tars := sorted(path / name for name in shards if name.lower().endswith(webdataset.SHARD_SUFFIX)):
        files = tars
    elif path.is_file() and path.name.lower().endswith(webdataset.COMPRESSED_SUFFIXES):
        files = [path]
    else:
        files = files_of(path, (*row_suffixes(), webdataset.SHARD_SUFFIX))
    for file in files:
        if not _is_table(file):
            if next(webdataset.samples_of(file), None) is None:
                raise InputError("the shard is empty", where=str(file))
            continue
        if _holds_conversations(file, layout):
            continue
        problems = Problems(InputError)
        for kind, wanted in (("image", layout.image), ("text", layout.text)):
            with problems.collecting():
                require_column(file, kind, wanted)
        problems.raise_if_any()
    return files


def _holds_conversations(file: Path, layout: RowLayout) -> bool:
    """Whether a table holds LLaVA's captions: turns, and no column of a text."""
    return has_turns(column_names(file)) and find_column(file, layout.text)[0] is None


def read_pairs(
    path: Path,
    rejects: Rejects,
    check: ImageCheck = DEFAULT_CHECK,
    limit: int = 0,
    layout: RowLayout = COMMON,
    *,
    with_regions: bool = False,
) -> Pairs:
    """Read image-text pairs; rows without text or with an image that does not decode go to ``rejects``.

    Args:
        path: where they are.
        rejects: takes broken rows and images, in the order of the files.
        check: how the images are checked.
        limit: stop after so many usable pairs; 0 reads all.
        layout: the columns of images and texts, and where the images are.
        with_regions: whether the images' regions are read too; rows with one that cannot be read are broken.

    Raises:
        InputError: nothing is left, or a file is damaged.
    """
    read = Rejects(1.0)
    stored = StoredPairs(check.spool_folder, with_regions)
    rows = _rows(check_pairs(path, layout), read, layout, with_regions)
    usable = array("q")
    taken = 0
    while True:
        first = len(stored)
        stored.add(islice(rows, limit - len(usable) if limit else None), read)
        statuses = check.statuses(stored.images_from(first))
        for place in range(first, len(stored)):
            # Unreadable rows before this one come first, as if rows were checked one by one.
            taken = rejects.take_from(read, taken, stored.broken_before(place))
            status = statuses.get(place - first, USABLE)
            if status.fault:
                file, row = stored.origin(place)
                rejects.add(str(file), row, f"{stored.images[place].name}: {status.fault}")
                continue
            rejects.accept()
            rejects.unusual.update(status.kinds)
            usable.append(place)
        if not limit or first == len(stored) or len(usable) == limit:
            break
    rejects.take_from(read, taken, len(read))
    rejects.raise_if_over_limit()
    if not usable:
        raise InputError("no image-text pairs here", where=str(path))
    return stored.pairs(usable)


def check_regions(path: Path, layout: RowLayout = COMMON) -> None:
    """Check that the pairs have regions that can be read; files are read up to the first.

    Args:
        path: where they are.
        layout: the columns of images and texts, and where the images are.

    Raises:
        InputError: no row has any; the message holds the first reason where rows were rejected.
    """
    rejects = Rejects(1.0)
    for file in check_pairs(path, layout):
        if any(pair.regions for pair in pairs_of(file, rejects, layout, with_regions=True)):
            return
    broken = rejects.rows[0] if rejects.rows else None
    found = f"; the first broken one: {broken['file']}:{broken['row']}: {broken['reason']}" if broken else ""
    raise InputError(
        f"no row has a region{found}",
        where=str(path),
        hint=f"a row holds regions in one of {', '.join(REGION_FIELDS)}, for example "
        '"regions": [{"text": "a heron", "box": [0.1, 0.2, 0.5, 0.9]}]',
    )


def _rows(
    files: Sequence[Path], rejects: Rejects, layout: RowLayout, with_regions: bool
) -> Iterator[tuple[Path, Pair]]:
    for file in files:
        for pair in pairs_of(file, rejects, layout, with_regions=with_regions):
            yield file, pair


def _is_table(file: Path) -> bool:
    return not file.name.lower().endswith((webdataset.SHARD_SUFFIX, *webdataset.COMPRESSED_SUFFIXES))


def pairs_of(
    file: Path, rejects: Rejects, layout: RowLayout, *, with_regions: bool = False
) -> Iterator[Pair]:
    """The pairs of a file."""
    if not _is_table(file):
        return _from_shard(file, rejects, with_regions)
    if _holds_conversations(file, layout):
        return _from_conversations(file, rejects, layout)
    return _from_table(file, rejects, layout, with_regions)


def _from_table(file: Path, rejects: Rejects, layout: RowLayout, with_regions: bool) -> Iterator[Pair]:
    image_column = require_column(file, "image", layout.image)
    text_column = require_column(file, "text", layout.text)
    read = [image_column, text_column]
    if with_regions:
        read += [CAPTION, *REGION_FIELDS, *(name for pair in SIZE_FIELDS for name in pair)]
    names = cache(partial(class_label_names, file))
    for number, row in read_rows(file, rejects, list(dict.fromkeys(read))):
        text = row.get(text_column)
        if not isinstance(text, str) or not text.strip():
            rejects.add(str(file), number, f"'{text_column}' is empty or not text")
            continue
        try:
            image = layout.image_of(row.get(image_column), file, f"{file.name}:{number}")
            regions = read_regions(row, image, _caption(row, text), names) if with_regions else ()
        except (BrokenImageError, ValueError) as error:
            rejects.add(str(file), number, str(error))
            continue
        yield Pair(number, image, text, regions)


def _caption(row: Mapping[str, Any], text: str) -> str:
    """The caption that the spans of regions refer to: the row's own, or else its text."""
    caption = row.get(CAPTION)
    return caption if isinstance(caption, str) else text


def _from_conversations(file: Path, rejects: Rejects, layout: RowLayout) -> Iterator[Pair]:
    """LLaVA's captions: the image and the first assistant turn."""
    for _, number, conversation in conversations_of(file, rejects, layout):
        if len(conversation.images) != 1:
            rejects.add(str(file), number, f"{conversation.id}: {len(conversation.images)} images, not one")
            continue
        text = next(turn.text for turn in conversation.turns if turn.role == "assistant")
        yield Pair(number, conversation.images[0], text)


def _from_shard(file: Path, rejects: Rejects, with_regions: bool) -> Iterator[Pair]:
    for number, sample in enumerate(webdataset.samples_of(file), start=1):
        try:
            image, text = webdataset.image_and_text(file, sample)
            regions: tuple[ImageRegion, ...] = ()
            if with_regions:
                row = webdataset.json_member(file, sample)
                regions = read_regions(row, image, _caption(row, text))
        except (BrokenImageError, ValueError) as error:
            rejects.add(str(file), number, f"{sample.key}: {error}")
            continue
        yield Pair(number, image, text, regions)
