"""Errors for people: what is wrong, where, and what to do about it.

Every error that a user can cause is a :class:`PriorkitError`. Its class fixes the exit code, its
problems are printed a line or three each, without a traceback. Several problems found together are
reported together: collect them in :class:`Problems` and raise once.
"""

from __future__ import annotations

import difflib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn, Self


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        what: what is wrong, with the expected and the found value where there are such.
        where: file, line, key or tensor; empty where the message says it already.
        hint: what to do; empty where that is obvious.
    """

    what: str
    where: str = ""
    hint: str = ""

    def lines(self) -> list[str]:
        """The problem as printable lines: ``where: what`` and, indented, the hint."""
        first = f"{self.where}: {self.what}" if self.where else self.what
        return [first, f"  -> {self.hint}"] if self.hint else [first]


class PriorkitError(Exception):
    """Base of all errors that are shown without a traceback. ``exit_code`` is fixed per class."""

    exit_code = 1

    def __init__(self, what: str | Iterable[Problem], *, where: str = "", hint: str = "") -> None:
        self.problems: tuple[Problem, ...] = (
            (Problem(what, where, hint),) if isinstance(what, str) else tuple(what)
        )
        super().__init__("\n".join(line for problem in self.problems for line in problem.lines()))

    @property
    def what(self) -> str:
        """What is wrong, in one line without places and hints: the reason of a rejected row, for example."""
        return "; ".join(problem.what for problem in self.problems)

    def at(self, where: str) -> Self:
        """The same error with the place of its problems: set where they have none, put in front where they have.

        >>> raise InputError("no column 'text'").at("a.parquet")
        Traceback (most recent call last):
        ...
        priorkit.core.errors.InputError: a.parquet: no column 'text'
        """
        return type(self)(
            Problem(problem.what, f"{where}: {problem.where}" if problem.where else where, problem.hint)
            for problem in self.problems
        )


class UsageError(PriorkitError):
    """The command line or the recipe is wrong (exit code 2)."""

    exit_code = 2


class InputError(PriorkitError):
    """An input artifact or data file is missing, corrupt or incompatible (exit code 3)."""

    exit_code = 3


class ResourceError(PriorkitError):
    """A dependency, the device, memory or the disk cannot do what was asked (exit code 4)."""

    exit_code = 4


class GuardError(PriorkitError):
    """A guard stopped the run: a non-finite loss or a divergence (exit code 5)."""

    exit_code = 5


class Interrupted(PriorkitError):
    """The user or the scheduler stopped the run; training state is saved (exit code 130)."""

    exit_code = 130


class Problems:
    """Collects problems so that all of them are reported at once.

    >>> problems = Problems(UsageError)
    >>> problems.add("steps must be positive, got 0", where="--steps")
    >>> problems.raise_if_any()
    Traceback (most recent call last):
    ...
    priorkit.core.errors.UsageError: --steps: steps must be positive, got 0
    """

    def __init__(self, error: type[PriorkitError]) -> None:
        self._error = error
        self._problems: list[Problem] = []

    def add(self, what: str, *, where: str = "", hint: str = "") -> None:
        """Remember one problem."""
        self._problems.append(Problem(what, where, hint))

    def extend(self, error: PriorkitError) -> None:
        """Remember the problems of an error that was raised elsewhere."""
        self._problems.extend(error.problems)

    @contextmanager
    def collecting(self, where: str = "") -> Generator[None, None, None]:
        """Collect the problems of an error of this kind that is raised within; others pass.

        Args:
            where: the place that the problems get, see :meth:`PriorkitError.at`.
        """
        try:
            yield
        except self._error as error:
            self.extend(error.at(where) if where else error)

    def __len__(self) -> int:
        return len(self._problems)

    def raise_if_any(self) -> None:
        """Raise the collected problems as one error; do nothing where there are none."""
        if self._problems:
            self.fail()

    def fail(self) -> NoReturn:
        """Raise the collected problems as one error."""
        raise self._error(self._problems)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means out of memory, in Python, CUDA or torch's CPU allocator; torch is not imported."""
    named = type(error).__name__ in ("MemoryError", "OutOfMemoryError")
    return named or "can't allocate memory" in str(error)


@contextmanager
def library_reads(what: str, where: str) -> Generator[None, None, None]:
    """Report all that a library raises while it reads a user's file as the file's fault.

    Libraries raise what they happen to run into on values that they do not expect: TypeError, plain Exception,
    RecursionError, Rust's panics. Only the library's call belongs inside, so that no bug of ours is hidden.

    Args:
        what: what it cannot do, for example ``the model cannot be loaded``; the reason is added.
        where: the file or folder.

    Raises:
        InputError: in the place of any other error.
    """
    try:
        yield
    except PriorkitError:
        raise
    except BaseException as error:
        # Panics derive from BaseException only, as interrupts do.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, KeyError):
            reason = f"no {reason}"
        raise InputError(
            f"{what}: {reason if len(reason) <= 300 else reason[:297] + '...'}", where=where
        ) from error


def nearest(name: str, valid: Iterable[str], *, only_close: bool = False) -> str:
    """A hint that names the nearest valid spellings, or all of them where nothing is near.

    Args:
        name: what the user wrote.
        valid: what would be valid.
        only_close: give no hint where nothing is near (for names of files, which are many).

    Returns:
        For example ``did you mean 'learning_rate'?`` or ``valid: full, lora``.
    """
    options = list(dict.fromkeys(valid))
    close = difflib.get_close_matches(name, options, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"'{option}'" for option in close) + "?"
    if only_close:
        return ""
    shown = ", ".join(options[:12]) + (", ..." if len(options) > 12 else "")
    return f"valid: {shown}" if options else "nothing is valid here"


def rename_hint(wanted: str, present: Iterable[str], *, only_close: bool = False) -> str:
    """A hint for a name that must be there and is not, such as a column's: which of those present to rename.

    The reverse of :func:`nearest`, for names that the user cannot choose.
    """
    options = list(dict.fromkeys(present))
    close = difflib.get_close_matches(wanted, options, n=1, cutoff=0.6)
    close = close or [name for name in options if len(name) > 2 and (name in wanted or wanted in name)][:1]
    if close:
        return f"rename '{close[0]}' to '{wanted}'"
    return "" if only_close else f"rename one of {', '.join(options[:12])} to '{wanted}'"
