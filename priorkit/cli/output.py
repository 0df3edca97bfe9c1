"""What the command line prints: the result on standard output, everything else on standard error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable

from priorkit.core.errors import ResourceError
from priorkit.core.process.progress import discard, show_progress, write_line
from priorkit.core.process.runtime import rank

LOGGER = logging.getLogger("priorkit")


class StderrHandler(logging.Handler):
    """Notes as they are, warnings behind the command's name; from the first process only."""

    def __init__(self) -> None:
        super().__init__()
        self.prefix = "priorkit"

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        if rank() == 0:
            warning = record.levelno >= logging.WARNING
            write_line((f"{self.prefix}: warning: " if warning else "") + record.getMessage())


HANDLER = StderrHandler()


def configure(command: str = "priorkit", quiet: bool = False) -> None:
    """Print what is logged, and show progress.

    Args:
        command: what warnings and errors begin with.
        quiet: print warnings only.
    """
    HANDLER.prefix = command
    if HANDLER not in LOGGER.handlers:
        LOGGER.addHandler(HANDLER)
    LOGGER.setLevel(logging.WARNING if quiet else logging.INFO)
    show_progress(not quiet)


def print_error(lines: Iterable[str]) -> None:
    """Print an error's lines."""
    for line in lines:
        lead = "  " if line.startswith("  ") else f"{HANDLER.prefix}: "
        write_line(lead + line.strip())


def print_result(text: str) -> None:
    """Print the result: the only thing that standard output carries.

    Raises:
        ResourceError: it cannot be written. A reader that is gone, as in ``| head -1``, is no error.
    """
    if rank() != 0:
        return
    reason = "it is closed"
    if sys.stdout is not None:
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
            return
        except BrokenPipeError:
            discard(sys.stdout)
            return
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            discard(sys.stdout)
    raise ResourceError(f"the result cannot be printed: {reason}", where="standard output")


def open_standard_streams() -> None:
    """Open closed standard streams on the null device, so that no file of ours gets their numbers."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def flush_standard_streams() -> None:
    """Flush what is left, where it can be, so that Python's own flush at exit cannot fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            discard(stream)
        except AttributeError:
            continue  # It was closed before Python started.
