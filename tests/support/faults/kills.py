"""Commands killed at random moments and run again: the same bytes as undisturbed, nothing left over."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.faults.child import Ended, run_in_child

Words = Sequence[object]

_CHANGES = frozenset(
    {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink"}
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def at_every_change(below: Path, call: Callable[[int, str], None]) -> None:
    """Call a function, with a number from 0, before every change of files below a folder: opening for writing,
    renaming, removing, forcing to the disk ... It stays for the life of the process.
    """
    count = 0
    root = str(below)

    def changed(what: str, path: Any) -> None:
        nonlocal count
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        # Names relative to an open folder are those of a tree that is being removed.
        if not name or not name.startswith("/") or name.startswith(root):
            count += 1
            call(count - 1, what)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes) and isinstance(flags, int) and flags & _WRITING:
                changed(event, path)
        elif event in _CHANGES:
            changed(event, arguments[0])

    sys.addaudithook(hook)
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        changed("os.fsync", None)
        fsync(descriptor)

    os.fsync = counted


def kill_at(below: Path, number: int) -> Callable[[], None]:
    """What kills the process at a change of files below a folder."""

    def call(at: int, _: str) -> None:
        if at == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: at_every_change(below, call)


@dataclass(frozen=True)
class Site:
    """Where one command is run again and again.

    Attributes:
        words: the command line without ``--out``.
        folder: its own folder, for the result and all that may be left over.
    """

    words: Words
    folder: Path

    @property
    def results(self) -> Path:
        """The folder that holds ``--out`` and nothing else."""
        return self.folder / "results"

    @property
    def out(self) -> Path:
        """The artifact."""
        return self.results / "out"

    def clear(self) -> None:
        """Begin again."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.results.mkdir(parents=True)
        (self.folder / "child").mkdir()

    def run(self, *more: object, **faults: Any) -> Ended:
        """Run the command in a child."""
        return run_in_child((*self.words, "--out", self.out, *more), self.folder / "child", **faults)

    def content(self) -> dict[str, str]:
        """What the results hold, see :func:`content_of`."""
        return content_of(self.results)

    def left_over(self) -> list[str]:
        """What is there besides the artifact."""
        names = [item.name for item in self.results.iterdir() if item != self.out]
        return names + [f"tmp/{item.name}" for item in (self.folder / "child" / "tmp").glob("*")]


_DIFFERENT = ("created", "cost", "manifest_sha256")
"""Keys of a manifest that differ from run to run."""


def content_of(folder: Path, stamps: bool = True) -> dict[str, str]:
    """Names of all files in a folder with digests: of a manifest all but times and costs.

    Args:
        folder: the folder.
        stamps: whether the stamps of inputs count, which hold when their files were written.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            continue
        content = path.read_bytes()
        if path.name == "priorkit.json":
            manifest = json.loads(content)
            if not stamps:
                for record in manifest["inputs"]:
                    record.pop("stamp", None)
            content = json.dumps(
                {key: value for key, value in manifest.items() if key not in _DIFFERENT}
            ).encode()
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


@dataclass(frozen=True)
class Undisturbed:
    """A command that was left to run.

    Attributes:
        content: see :meth:`Site.content`.
        changes: how many changes of files it made.
        seconds: how long it took.
    """

    content: dict[str, str]
    changes: list[str]
    seconds: float


def undisturbed(site: Site) -> Undisturbed:
    """Run a command twice: it must succeed, and give the same bytes both times."""
    log = site.folder / "changes"
    site.clear()

    def setup() -> None:
        stream = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        at_every_change(site.results, lambda _, what: os.write(stream, f"{what}\n".encode()) and None)

    ended = site.run(setup=setup)
    if ended.code != 0:
        raise AssertionError(ended.err)
    content, changes = site.content(), log.read_text().splitlines()
    site.clear()
    again = site.run()
    if again.code != 0 or site.content() != content:
        raise AssertionError(f"two undisturbed runs differ: {difference(content, site.content())}{again.err}")
    return Undisturbed(content, changes, again.seconds)


def difference(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Names of files that differ."""
    return sorted(name for name in {**one, **other} if one.get(name) != other.get(name))


@dataclass(frozen=True)
class Kill:
    """A command killed some times and run again.

    Attributes:
        where: where it was killed.
        reached: whether any kill came before the command ended.
        wrong: what is wrong with the result; empty where it is right.
    """

    where: str
    reached: bool
    wrong: str


def killed_runs(site: Site, whole: Undisturbed, count: int, random_: random.Random) -> Iterator[Kill]:
    """Kill a command again and again, each time at one to three places, and run it to its end."""
    for number in range(count):
        site.clear()
        places: list[str] = []
        reached = False
        for _ in range(random_.choice((1, 1, 2, 3))):
            if number % 2:
                at = random_.randrange(len(whole.changes))
                places.append(f"change {at} ({whole.changes[at]})")
                ended = site.run(setup=kill_at(site.results, at))
            else:
                seconds = random_.uniform(0, 1.05 * whole.seconds)
                places.append(f"{seconds:.3f} s")
                ended = site.run(kill_after=seconds)
            reached |= ended.code == -signal.SIGKILL
            if ended.code not in (0, -signal.SIGKILL):
                yield Kill(", ".join(places), True, f"exit {ended.code}: {ended.err[-2000:]}")
                break
        else:
            yield Kill(", ".join(places), reached, _wrong(site, whole))


def _wrong(site: Site, whole: Undisturbed) -> str:
    ended = site.run()
    if ended.code != 0:
        return f"exit {ended.code}: {ended.err[-2000:]}"
    if ended.orphans:
        return f"{ended.orphans} processes are left"
    if left := site.left_over():
        return f"left over: {', '.join(left)}"
    if (content := site.content()) != whole.content:
        return f"other bytes: {', '.join(difference(whole.content, content))}"
    return ""
