"""Build a glyph world: choose the entities, then have every part of it drawn and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from priorkit.data.io.worker_processes import Result, Task, Workers
from priorkit.world.card import card
from priorkit.world.options import WorldOptions
from priorkit.world.parts import PARTS, tasks, work
from priorkit.world.scenes.entities import choose_entities


def build_world(
    options: WorldOptions, folder: Path, report: Callable[[str], None], workers: int = 1
) -> dict[str, int]:
    """Write a world into an existing or new folder; equal options write equal bytes.

    The two text sources from the standard library also depend on the version of Python.

    Args:
        options: sizes, frequencies and the seed.
        folder: where to write; files of the same names are replaced.
        report: called with a line about each part when it is made.
        workers: processes that make parts at the same time; the bytes do not depend on them.

    Returns:
        Number of items written, by part.

    Raises:
        UsageError: there are fewer symbols than entities.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report("choosing entities")
    entities = choose_entities(options)
    counts = {"entities": len(entities)}
    counts |= Counter(f"entities, {entity.prior} prior" for entity in entities)
    todo = tasks(options, folder)
    for name, part_counts in zip(PARTS, _made(todo, min(workers, len(todo))), strict=True):
        report(f"{name}: " + ", ".join(f"{count:,} {what}" for what, count in part_counts.items()))
        counts |= part_counts
    (folder / "README.md").write_text(card(counts), encoding="utf-8")
    return counts


def _made(todo: list[Task], workers: int) -> Iterator[Result]:
    if workers <= 1:
        yield from map(work, todo)
        return
    with Workers("priorkit.world.parts", workers) as pool:
        yield from pool.map(todo)
