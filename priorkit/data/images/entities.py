"""Entity images: which image shows which entity, and the names that are ranked."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from priorkit.core.errors import InputError, Problems, nearest
from priorkit.data.columns import NAMES, find_column
from priorkit.data.images.decoding import IMAGE_SUFFIXES, ImageRef
from priorkit.data.images.entity_sources import COMMON, EntityLayout, entity_references
from priorkit.data.images.image_check import DEFAULT_CHECK, USABLE, ImageCheck
from priorkit.data.io.formats import format_of, row_suffixes, suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import read_rows
from priorkit.data.shuffling import sample_ids
from priorkit.data.spool import Spool

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EntityImages:
    """Images with the entity that each shows.

    Attributes:
        entities: names, sorted; each has at least one image.
        images: where the images are, sorted by entity and name.
        entity_of: for each image, the index of its entity.
        without: names, sorted, of entities without a usable image.
    """

    entities: tuple[str, ...]
    images: tuple[ImageRef, ...]
    entity_of: tuple[int, ...]
    without: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        """All names, those without an image last."""
        return (*self.entities, *self.without)

    @property
    def shown(self) -> list[str]:
        """The name of each image's entity."""
        return [self.entities[index] for index in self.entity_of]

    @property
    def single(self) -> bool:
        """Whether every entity has one image."""
        return len(self.images) == len(self.entities)

    def keep(self, rows: Sequence[int]) -> EntityImages:
        """Only the images of these rows; entities that lose all of theirs go to ``without``."""
        return _gathered([(self.entities[self.entity_of[row]], self.images[row]) for row in rows],
                         (*self.without, *self.entities))  # fmt: skip


def read_entities(
    path: Path,
    rejects: Rejects,
    verify: bool = True,
    check: ImageCheck = DEFAULT_CHECK,
    layout: EntityLayout = COMMON,
) -> EntityImages:
    """Read entity images from an ImageFolder, a folder with ``metadata.jsonl``, or tables.

    Args:
        path: see :func:`priorkit.data.images.entity_sources.entity_references`.
        rejects: takes rows without a name or an image, and images that do not decode.
        verify: decode every image once now, so that broken ones are known before any work; without it
            the caller counts good and broken images and judges.
        check: how the images are checked.
        layout: the columns of images and names, the split, other names of the entities.

    Raises:
        InputError: there are no images, or two entities have the same name in different spellings.
    """
    listed: list[str] = []
    spool = Spool(check.spool_folder)
    references = [
        (entity, ref.spooled(spool)) for entity, ref in entity_references(path, rejects, listed, layout)
    ]
    name_of = layout.names.names_of(listed)
    references = [(name_of[entity], ref) for entity, ref in references]
    listed = [name_of[entity] for entity in listed]
    if layout.only:
        references, listed = _only(references, listed, layout.only, str(path))
    spool.flush()
    statuses = check.statuses([ref for _, ref in references]) if verify else {}
    usable: list[tuple[str, ImageRef]] = []
    for index, (entity, ref) in enumerate(references):
        status = statuses.get(index, USABLE)
        if status.fault:
            rejects.add(str(path), index + 1, f"{ref.name}: {status.fault}")
            continue
        if verify:
            rejects.accept()
            rejects.unusual.update(status.kinds)
        usable.append((entity, ref))
    if not usable and rejects.rows:
        first = rejects.rows[0]
        raise InputError(
            f"none of the {len(rejects)} entity images can be used; "
            f"the first: {first['file']}:{first['row']}: {first['reason']}",
            where=str(path),
        )
    if not usable:
        raise InputError(
            "no entity images here",
            where=str(path),
            hint=f"expected a folder per entity with images ({', '.join(IMAGE_SUFFIXES[:4])} ...), "
            "metadata.jsonl or .csv with file_name and entity, or parquet with image and entity",
        )
    if verify:
        rejects.raise_if_over_limit()
    check_names(sorted(set(listed)), str(path))
    return _gathered(usable, listed)


def _only(
    references: Sequence[tuple[str, ImageRef]], listed: Sequence[str], wanted: Collection[str], where: str
) -> tuple[list[tuple[str, ImageRef]], list[str]]:
    """Images and names of the wanted entities, whatever the spelling of their names.

    Raises:
        InputError: there is none of a name.
    """
    folded = {folded_name(name): name for name in sorted(wanted)}
    kept = [(entity, ref) for entity, ref in references if folded_name(entity) in folded]
    names = [name for name in listed if folded_name(name) in folded]
    absent = folded.keys() - {folded_name(name) for name in (*names, *(entity for entity, _ in kept))}
    if absent:
        shown = folded[min(absent)]
        raise InputError(
            f"{len(absent)} of the {len(folded)} entities to read are not there, such as '{shown}'",
            where=where,
            hint=nearest(shown, listed, only_close=True),
        )
    return kept, names


def check_entities(path: Path, reject_limit: float, layout: EntityLayout = COMMON) -> EntityImages | None:
    """Check entity images as far as folders and lists of files show: no image is decoded.

    Args:
        path: as for :func:`read_entities`.
        reject_limit: share of rows without a name or an image that is tolerated.
        layout: as for :func:`read_entities`.

    Returns:
        The images; None where tables embed them, of which only the columns and the first image are read.

    Raises:
        InputError: as :func:`read_entities`.
    """
    first = next(entity_references(path, Rejects(1.0), [], layout), None)
    if first is not None and (first[1].path is None or first[1].span is not None):
        return None
    rejects = Rejects(reject_limit)
    entities = read_entities(path, rejects, verify=False, layout=layout)
    rejects.accept(len(entities.images))
    if len(rejects) > reject_limit * rejects.total:
        rejects.raise_if_over_limit()
    return entities


def _gathered(images: Sequence[tuple[str, ImageRef]], listed: Sequence[str]) -> EntityImages:
    """Images sorted by entity and name; listed entities without any go to ``without``."""
    names = tuple(sorted({entity for entity, _ in images}))
    index = {name: number for number, name in enumerate(names)}
    ordered = sorted(images, key=lambda item: (item[0], item[1].name))
    return EntityImages(
        names,
        tuple(ref for _, ref in ordered),
        tuple(index[entity] for entity, _ in ordered),
        tuple(sorted(set(listed) - set(names))),
    )


def with_known_spelling(entities: EntityImages, known: Sequence[str]) -> EntityImages:
    """The same images under known names, where theirs differ only in case or Unicode form."""
    spelling = {folded_name(name): name for name in known}
    names = [spelling.get(folded_name(name), name) for name in entities.entities]
    if tuple(names) == entities.entities:
        return entities
    shown = [names[index] for index in entities.entity_of]
    without = [spelling.get(folded_name(name), name) for name in entities.without]
    return _gathered(list(zip(shown, entities.images, strict=True)), (*names, *without))


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse names that differ only in case or Unicode form: their ranks would be meaningless.

    Raises:
        InputError: naming each pair.
    """
    problems = Problems(InputError)
    seen: dict[str, str] = {}
    for name in names:
        folded = folded_name(name)
        if folded in seen:
            problems.add(
                f"'{seen[folded]}' and '{name}' differ only in case or Unicode form",
                where=where,
                hint="rename or merge them",
            )
        seen[folded] = name
    problems.raise_if_any()


def folded_name(name: str) -> str:
    """A name's form for comparison: Unicode compatibility form, case-folded, single blanks."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def name_suffixes() -> tuple[str, ...]:
    """Suffixes of the files that names are read from."""
    return (".txt", *row_suffixes())


def check_names_file(path: Path, where: str) -> None:
    """Check that a path is a file of a type that names are read from.

    Raises:
        InputError: it is not.
    """
    if not path.is_file() or suffix_of(path, name_suffixes()) is None:
        raise InputError(f"expected a file of names ({', '.join(name_suffixes())})", where=where)


def read_names(path: Path) -> list[str]:
    """Names from a text file, one per line, or from a table with one of :data:`priorkit.data.columns.NAMES`.

    Blank lines are skipped; a table's rows without a name are an error.

    Raises:
        InputError: the file is empty, not UTF-8, or has no column of names.
    """
    names = _names_of_table(path) if format_of(path) else _names_of_lines(path)
    if not names:
        raise InputError("the file holds no names", where=str(path))
    return names


def _names_of_lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig") as stream:
            return [line.strip() for line in stream if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason} at byte {error.start}", where=str(path)) from None


def _names_of_table(path: Path) -> list[str]:
    column, present = find_column(path, NAMES)
    if column is None:
        raise InputError(f"columns {', '.join(present)}; expected one of {', '.join(NAMES)}", where=str(path))
    rejects, names = Rejects(0), list[str]()
    for number, row in read_rows(path, rejects, [column]):
        value = row.get(column)
        if isinstance(value, str) and value.strip():
            names.append(value.strip())
        else:
            rejects.add(str(path), number, f"'{column}' is not a name: {value!r}")
    rejects.accept(len(names))
    rejects.raise_if_over_limit()
    return names


def candidate_names(entities: Sequence[str], extra: Sequence[str]) -> tuple[str, ...]:
    """The names to rank among: the entities, then further names that are none of them, without repeats."""
    known = {folded_name(name) for name in entities}
    further = [name for name in dict.fromkeys(extra) if folded_name(name) not in known]
    unique = {folded_name(name): name for name in reversed(further)}
    return (*entities, *reversed(unique.values()))


def warn_without_images(entities: EntityImages, effect: str) -> int:
    """Warn of entities without an image that can be used; returns how many there are.

    Args:
        entities: what was read.
        effect: what follows for them, such as "they have no rank".
    """
    count = len(entities.without)
    if count:
        logger.warning(f"entities without a usable image: {count}, such as '{entities.without[0]}'; {effect}")
    return count


def split_entities(entities: EntityImages, share: float, seed: int) -> tuple[EntityImages, EntityImages]:
    """Hold a share of each entity's images out; at least one stays, so single images are trained on.

    Args:
        entities: all images.
        share: 0 to 1, exclusive; rounded to a number of images per entity, at least one where there are two.
        seed: chooses the images.

    Returns:
        The training and the held-out images, both in their previous order.
    """
    held: set[int] = set()
    by_entity: dict[int, list[int]] = {}
    for index, entity in enumerate(entities.entity_of):
        by_entity.setdefault(entity, []).append(index)
    for entity, images in by_entity.items():
        count = min(len(images) - 1, max(1, round(share * len(images))))
        order = sample_ids(seed + 7919 * (entity + 1), 0, len(images), len(images)).tolist()
        held.update(images[position] for position in order[:count])
    trained = _those(entities, sorted(set(range(len(entities.images))) - held))
    return replace(trained, without=entities.without), _those(entities, sorted(held))


def _those(entities: EntityImages, chosen: list[int]) -> EntityImages:
    names = tuple(sorted({entities.entities[entities.entity_of[index]] for index in chosen}))
    number = {name: position for position, name in enumerate(names)}
    return EntityImages(
        names,
        tuple(entities.images[index] for index in chosen),
        tuple(number[entities.entities[entities.entity_of[index]]] for index in chosen),
    )
