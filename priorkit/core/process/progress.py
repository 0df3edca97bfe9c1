"""Progress on standard error: a bar on a terminal, a line every so often elsewhere.

Nothing is shown until :func:`show_progress` is called, as the command line does; only the first process under torchrun
shows anything. A standard error that is closed or full never stops a run: it costs the words only.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from priorkit.core.process.runtime import rank

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")

LINE_EVERY_SECONDS = 15.0
"""How often progress is printed as a line where standard error is no terminal."""


class _Display:
    shown = False


def show_progress(shown: bool = True) -> None:
    """Show the progress of what runs from now on, or stop showing it."""
    _Display.shown = shown


@contextmanager
def progress_bar(title: str, total: int, start: int = 0, unit: str = "it") -> Generator[Progress, None, None]:
    """Progress of a loop whose body calls ``advance``.

    Args:
        title: what is being done.
        total: how many units there are.
        start: how many were done before.
        unit: what is counted.
    """
    progress = Progress(title, total, start, unit, hidden=not _Display.shown or rank() != 0)
    try:
        yield progress
    finally:
        progress.close()


def track(items: Iterable[T], title: str, total: int, unit: str = "it") -> Iterator[T]:
    """Yield the items, showing progress over them."""
    with progress_bar(title, total, unit=unit) as progress:
        for item in items:
            yield item
            progress.advance()


class Progress:
    """Progress of one loop. ``advance`` counts, ``note`` sets the text behind the bar."""

    def __init__(self, title: str, total: int, start: int, unit: str, hidden: bool) -> None:
        self._title, self._total, self._done, self._unit = title, total, start, unit
        self._text = ""
        self._hidden = hidden
        self._begun = time.monotonic()
        self._start = start
        self._printed = self._begun
        self._bar = None if hidden else _bar(title, total, start, unit)

    def note(self, text: str) -> None:
        """Set the text shown with the progress, such as the loss."""
        self._text = text
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def advance(self, count: int = 1) -> None:
        """Count finished units."""
        self._done += count
        if self._bar is not None:
            with suppress(OSError):
                self._bar.update(count)
        elif not self._hidden and time.monotonic() - self._printed >= LINE_EVERY_SECONDS:
            self._printed = time.monotonic()
            rate = (self._done - self._start) / max(self._printed - self._begun, 1e-9)
            write_line(progress_line(self._title, self._done, self._total, self._unit, rate, self._text))

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()


def progress_line(title: str, done: int, total: int, unit: str, rate: float, text: str = "") -> str:
    """What is done, how much of it, how fast, and the time left.

    Args:
        title: what is being done.
        done: units so far.
        total: units in all; 0 where that is not known.
        unit: what is counted.
        rate: units per second.
        text: further words, such as the loss.
    """
    counted = f"{done}/{total}" if total else str(done)
    speed = f"{rate:.3g} {unit}/s" if rate >= 0.1 else f"{_duration(1 / max(rate, 1e-9))} per {unit}"
    left = f", {_duration((total - done) / max(rate, 1e-9))} left" if total else ""
    return f"{title}: {counted} {unit}{f'  {text}' if text else ''}  ({speed}{left})"


def _duration(seconds: float) -> str:
    """A time in its two largest units."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def _bar(title: str, total: int, start: int, unit: str) -> tqdm[Any] | None:
    """A bar where standard error is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():  # pyright: ignore[reportUnnecessaryComparison]
        return None
    from tqdm import tqdm

    try:
        return tqdm(total=total, initial=start, desc=title, unit=unit, file=sys.stderr, dynamic_ncols=True)
    except OSError:
        return None


def write_line(text: str) -> None:
    """Write a line to standard error, above a bar where there is one."""
    stream = sys.stderr
    if stream is None:  # pyright: ignore[reportUnnecessaryComparison]
        return  # It was closed before Python started.
    try:
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(text, file=stream)
        else:
            stream.write(text + "\n")
        stream.flush()
    except (OSError, ValueError):
        discard(stream)


def discard(stream: Any) -> None:
    """Let a stream that cannot be written go to nowhere, so that Python's flush at exit does not fail again."""
    with suppress(OSError, ValueError):
        number = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
