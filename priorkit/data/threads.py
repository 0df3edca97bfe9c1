"""Work on several threads that comes back in order: decoders of images release the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """The results of all items, in order.

    Args:
        work: done for each item.
        items: what is worked on.
        threads: how many work at once; 0 leaves it to the calling one.

    Raises:
        Exception: what the work on the first item that fails raises.
    """
    if not threads or len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))
