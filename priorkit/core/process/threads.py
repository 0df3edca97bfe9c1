"""Work in threads with results in order: image decoders and hashing release the interpreter's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from priorkit.core.process.processors import processors

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 8
"""Items per thread that may wait for earlier ones."""


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """The results of all items, in order.

    Args:
        work: called with each item.
        items: the items.
        threads: the number of threads; 0 works in the calling thread.

    Raises:
        Exception: the error of the first item that fails.
    """
    if not threads or len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def streamed_in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None, ahead: int = 0
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with its result, in order; a bounded number of items waits, however many there are.

    Args:
        work: called with each item.
        items: what is worked on; drawn as it is needed.
        threads: how many work at once; 0 leaves it to the calling one, None takes one per processor.
        ahead: items that may wait, worked on or done; 0 for :data:`AHEAD` per thread.

    Raises:
        Exception: the error of an item, when it is that item's turn.
    """
    threads = min(8, processors()) if threads is None else threads
    if not threads:
        yield from ((item, work(item)) for item in items)
        return
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > (ahead or AHEAD * threads):
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
