"""The files of an input: listed once, so that what is read and what decides the digest are the same.

Links to files and folders are followed. Left out, wherever they are below the input: hidden files, what
editors, archives and file managers leave behind, and priorkit's own artifacts, finished or not, which are
inputs themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from priorkit.core.errors import InputError, Problems

MANIFEST = "priorkit.json"
"""The file that makes a folder an artifact."""

CARD = "README.md"
"""The card of an artifact, for people: no part of its content."""

PARTIAL = ".partial"
"""Suffix of the folder of an unfinished artifact."""

_LEFT_BEHIND = frozenset({"__macosx", "@eadir", "thumbs.db", "desktop.ini"})
"""In lower case: an unpacked macOS archive's resource forks, Synology's and Windows' thumbnails and settings."""


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden or left behind by an editor, an archive or a file manager.

    Hidden names begin with a dot: ``.DS_Store``, ``._a.png``, ``.ipynb_checkpoints``, ``.a.jsonl.swp``, ``.#a.jsonl``.
    Emacs keeps ``a.jsonl~`` and ``#a.jsonl#``, office programs ``~$a.xlsx``.
    """
    return (
        name.startswith((".", "~$"))
        or name.endswith("~")
        or (len(name) > 1 and name[0] == name[-1] == "#")
        or name.lower() in _LEFT_BEHIND
    )


@dataclass(frozen=True, slots=True)
class InputFiles:
    """What is below an input's folder, as names relative to it, with ``/``, sorted.

    Attributes:
        names: the files.
        dangling: links that lead nowhere, or around in a circle.
        artifacts: folders with artifacts, which are left out.
    """

    names: tuple[str, ...]
    dangling: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()


def list_files(root: Path) -> InputFiles:
    """List the files of a folder; see the module for what is left out.

    A linked folder that is one of those on the way to it is not entered again.

    Raises:
        InputError: a folder may not be read, or a name is not UTF-8.
    """
    names: list[str] = []
    dangling: list[str] = []
    artifacts: list[str] = []

    def search(folder: str, lead: str, entered: frozenset[tuple[int, int]]) -> None:
        for entry in _entries(folder):
            name = lead + entry.name
            try:
                status = entry.stat()
            except OSError:
                if entry.is_symlink():
                    dangling.append(name)
                continue
            if not entry.is_dir():
                if entry.is_file():
                    names.append(name)
                continue
            identity = (status.st_dev, status.st_ino)
            if identity in entered:
                continue
            if entry.name.endswith(PARTIAL) or (Path(entry.path) / MANIFEST).is_file():
                artifacts.append(name)
                continue
            search(entry.path, name + "/", entered | {identity})

    def refuse_undecodable() -> None:
        problems = Problems(InputError)
        for name in names:
            try:
                name.encode()
            except UnicodeEncodeError:
                problems.add(f"a file name that is not UTF-8: {name!a}", where=str(root), hint="rename it")
        problems.raise_if_any()

    status = root.stat()
    search(str(root), "", frozenset({(status.st_dev, status.st_ino)}))
    refuse_undecodable()
    return InputFiles(tuple(sorted(names)), tuple(sorted(dangling)), tuple(sorted(artifacts)))


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not is_clutter(entry.name))
    except PermissionError:
        raise InputError(f"not readable: {folder}", hint="check its permissions") from None


def paths_below(root: Path) -> list[Path]:
    """The files of a folder as paths, in the order of their names' parts."""
    return sorted(root / name for name in list_files(root).names)
