"""What the kit says: results on standard output, everything else on standard error.

Standard output carries one line, the result, so that steps compose in a shell. Talk, warnings and
progress go to standard error, from the first process only under torchrun.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

from priorkit.core.runtime import rank

T = TypeVar("T")

LINE_EVERY_SECONDS = 15.0
"""How often progress is printed as a line where standard error is no terminal."""


class Console:
    """Talk on standard error. One instance, :data:`console`, serves the process."""

    def __init__(self) -> None:
        self.quiet = False
        self.prefix = "priorkit"

    def say(self, message: str) -> None:
        """Print talk, unless ``--quiet``."""
        if not self.quiet and rank() == 0:
            tqdm.write(message, file=sys.stderr)

    def warn(self, message: str) -> None:
        """Print a warning, also under ``--quiet``."""
        if rank() == 0:
            tqdm.write(f"{self.prefix}: warning: {message}", file=sys.stderr)

    def error(self, lines: Iterable[str]) -> None:
        """Print an error's lines."""
        for line in lines:
            lead = "  " if line.startswith("  ") else f"{self.prefix}: "
            tqdm.write(lead + line.strip(), file=sys.stderr)

    def result(self, text: str) -> None:
        """Print the result: the only thing standard output ever carries."""
        if rank() != 0:
            return
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader is gone; the artifact is complete. Python's own flush at exit must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    @contextmanager
    def progress(
        self, title: str, total: int, start: int = 0, unit: str = "it"
    ) -> Generator[Progress, None, None]:
        """Show progress: a bar on a terminal, a line every so often elsewhere."""
        hidden = self.quiet or rank() != 0
        progress = Progress(title, total, start, unit, hidden)
        try:
            yield progress
        finally:
            progress.close()

    def track(self, items: Iterable[T], title: str, total: int, unit: str = "it") -> Iterator[T]:
        """Yield the items, showing progress over them."""
        with self.progress(title, total, unit=unit) as progress:
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
        terminal = sys.stderr.isatty()
        self._bar = (
            tqdm(total=total, initial=start, desc=title, unit=unit, file=sys.stderr, dynamic_ncols=True)
            if terminal and not hidden
            else None
        )

    def note(self, text: str) -> None:
        """Set the text shown with the progress, such as the loss."""
        self._text = text
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def advance(self, count: int = 1) -> None:
        """Count finished things."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif not self._hidden and time.monotonic() - self._printed >= LINE_EVERY_SECONDS:
            self._printed = time.monotonic()
            rate = (self._done - self._start) / max(self._printed - self._begun, 1e-9)
            left = (self._total - self._done) / max(rate, 1e-9)
            text = f"  {self._text}" if self._text else ""
            line = f"{self._title}: {self._done}/{self._total} {self._unit}{text}  ({left:.0f} s left)"
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


console = Console()
