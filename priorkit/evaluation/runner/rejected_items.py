"""Items that a model cannot be asked: counted with the rows that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.tasks.item import Item


def reject_items(items: Sequence[Item], problems: Mapping[int, str], rejects: Rejects, name: str) -> None:
    """Count items that cannot be asked as rejected, with file, row, id and reason.

    Args:
        items: all items, which were accepted when they were read.
        problems: reasons by position of the item.
        rejects: takes the items.
        name: of the benchmark, for items that come from no file.

    Raises:
        InputError: too many are rejected.
    """
    for index, reason in problems.items():
        item = items[index]
        rejects.withdraw(item.file or name, item.row or index + 1, f"item {item.id}: {reason}")
    if problems:
        rejects.raise_if_over_limit()
