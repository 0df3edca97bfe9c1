"""Image-text pairs: parquet, JSON, LLaVA's captions, and WebDataset shards."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from priorkit.core.errors import InputError, rename_hint
from priorkit.core.input_files import list_files
from priorkit.data.conversations.conversation import IMAGE_KEYS, conversations_of, has_turns
from priorkit.data.images.decoding import BrokenImageError, ImageRef, Spool, image_reference
from priorkit.data.images.image_check import IN_MEMORY_CHECK, USABLE, ImageCheck
from priorkit.data.io import webdataset
from priorkit.data.io.formats import row_suffixes
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import column_names, files_of, read_rows

IMAGE_COLUMNS = ("image", "file_name", "jpg", "png")
TEXT_COLUMNS = ("text", "caption", "txt")


@dataclass(frozen=True)
class Pairs:
    """Images and their texts, in the order of the files."""

    images: tuple[ImageRef, ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


def check_pairs(path: Path) -> list[Path]:
    """The files of a source of pairs, their columns or first members checked from headers.

    In a folder with shards only these are read: tools that write them add further tables.

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
        columns = column_names(file)
        if has_turns(columns) and not set(IMAGE_KEYS).isdisjoint(columns):
            continue
        for known, what in ((IMAGE_COLUMNS, "image"), (TEXT_COLUMNS, "text")):
            if not any(name in columns for name in known):
                raise InputError(
                    f"no {what} column; expected {' or '.join(known)}, got {', '.join(columns)}",
                    where=str(file),
                    hint=rename_hint(known[0], columns, only_close=True),
                )
    return files


def read_pairs(path: Path, rejects: Rejects, check: ImageCheck = IN_MEMORY_CHECK, limit: int = 0) -> Pairs:
    """Read image-text pairs; rows without text or with an image that does not decode go to ``rejects``.

    Args:
        path: where they are.
        rejects: takes broken rows and images, in the order of the files.
        check: how the images are checked.
        limit: stop after so many usable pairs; 0 reads all.

    Raises:
        InputError: nothing is left, or a file is damaged.
    """
    read = Rejects(1.0)
    spool = check.open_spool()
    rows = _rows(check_pairs(path), read, spool)
    images: list[ImageRef] = []
    texts: list[str] = []
    taken = 0
    while True:
        part = _Part(islice(rows, limit - len(texts) if limit else None), read)
        if spool is not None:
            spool.flush()
        statuses = check.statuses(part.images)
        for index, (ref, text) in enumerate(zip(part.images, part.texts, strict=True)):
            # Unreadable rows before this one come first, as if rows were checked one by one.
            taken = rejects.take_from(read, taken, part.broken_before[index])
            status = statuses.get(index, USABLE)
            if status.fault:
                file = str(part.files[part.file_of[index]])
                rejects.add(file, part.numbers[index], f"{ref.name}: {status.fault}")
                continue
            rejects.accept()
            rejects.unusual.update(status.kinds)
            images.append(ref)
            texts.append(text)
        if not limit or not part.images or len(texts) == limit:
            break
    rejects.take_from(read, taken, len(read))
    rejects.raise_if_over_limit()
    if not texts:
        raise InputError("no image-text pairs here", where=str(path))
    return Pairs(tuple(images), tuple(texts))


class _Part:
    """Rows as they were read, their images not checked yet.

    Attributes:
        images: where the images are.
        texts: their texts.
        numbers: the rows' numbers in their files.
        file_of: for each row the index of its file in ``files``.
        broken_before: for each row how many were unusable before it.
    """

    def __init__(self, rows: Iterable[tuple[Path, int, ImageRef, str]], read: Rejects) -> None:
        self.files: list[Path] = []
        self.images: list[ImageRef] = []
        self.texts: list[str] = []
        # Eight bytes a number: there may be ten million rows.
        self.numbers, self.file_of, self.broken_before = array("q"), array("q"), array("q")
        for file, number, ref, text in rows:
            if not self.files or self.files[-1] != file:
                self.files.append(file)
            self.images.append(ref)
            self.texts.append(text)
            self.numbers.append(number)
            self.file_of.append(len(self.files) - 1)
            self.broken_before.append(len(read))


def _rows(
    files: Sequence[Path], rejects: Rejects, spool: Spool | None
) -> Iterator[tuple[Path, int, ImageRef, str]]:
    for file in files:
        for number, ref, text in pairs_of(file, rejects):
            yield file, number, ref.spooled(spool), text


def _is_table(file: Path) -> bool:
    return not file.name.lower().endswith((webdataset.SHARD_SUFFIX, *webdataset.COMPRESSED_SUFFIXES))


def pairs_of(file: Path, rejects: Rejects) -> Iterator[tuple[int, ImageRef, str]]:
    """Row number, image and text of each pair of a file."""
    if not _is_table(file):
        return _from_shard(file, rejects)
    columns = column_names(file)
    if has_turns(columns) and not any(name in columns for name in TEXT_COLUMNS):
        return _from_conversations(file, rejects)
    return _from_table(file, columns, rejects)


def _from_table(file: Path, columns: list[str], rejects: Rejects) -> Iterator[tuple[int, ImageRef, str]]:
    image_column = next(name for name in IMAGE_COLUMNS if name in columns)
    text_column = next(name for name in TEXT_COLUMNS if name in columns)
    for number, row in read_rows(file, rejects, [image_column, text_column]):
        text = row.get(text_column)
        if not isinstance(text, str) or not text.strip():
            rejects.add(str(file), number, f"'{text_column}' is empty or not text")
            continue
        try:
            yield number, image_reference(row.get(image_column), file.parent, f"{file.name}:{number}"), text
        except BrokenImageError as error:
            rejects.add(str(file), number, str(error))


def _from_conversations(file: Path, rejects: Rejects) -> Iterator[tuple[int, ImageRef, str]]:
    """LLaVA's captions: the image and the first assistant turn."""
    for _, number, conversation in conversations_of(file, rejects):
        if len(conversation.images) != 1:
            rejects.add(str(file), number, f"{conversation.id}: {len(conversation.images)} images, not one")
            continue
        text = next(turn.text for turn in conversation.turns if turn.role == "assistant")
        yield number, conversation.images[0], text


def _from_shard(file: Path, rejects: Rejects) -> Iterator[tuple[int, ImageRef, str]]:
    for number, sample in enumerate(webdataset.samples_of(file), start=1):
        try:
            ref, text = webdataset.image_and_text(file, sample)
        except ValueError as error:
            rejects.add(str(file), number, f"{sample.key}: {error}")
            continue
        yield number, ref, text
