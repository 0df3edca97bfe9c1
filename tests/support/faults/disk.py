"""A full disk at random moments: exit code 4 and words, then the same command again gives the same bytes.

Three ways, none of which needs root: the system's answer to changes of files is replaced by 'no space left'; no file
may grow beyond a limit (``ulimit -f``), which also stops writers that are not Python; and, where the system lets a
user mount one, a small tmpfs, which is a full disk in every respect.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import resource
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.faults.kills import Site, Undisturbed, at_every_change, difference

NEEDS_SPACE = ("open", "os.mkdir", "os.fsync")


@dataclass(frozen=True)
class Full:
    """A command on a full disk, and run again.

    Attributes:
        way: how the disk was full.
        reached: whether the command noticed.
        wrong: what is wrong; empty where nothing is.
    """

    way: str
    reached: bool
    wrong: str


def full_from(site: Site, number: int) -> Callable[[], None]:
    """What lets all changes of files that need space fail, from one of them on."""

    def call(at: int, what: str) -> None:
        if at >= number and what in NEEDS_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: at_every_change(site.results, call)


def limited_to(size: int) -> Callable[[], None]:
    """What lets no file grow beyond a size; Python ignores the signal, so that writing fails instead."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def full_disks(site: Site, whole: Undisturbed, count: int, random_: random.Random) -> Iterator[Full]:
    """Run a command on a full disk, in all ways in turn, and again on one with space."""
    site.clear()
    ended = site.run()
    sizes = [path.stat().st_size for path in site.results.rglob("*") if path.is_file()]
    assert ended.code == 0, ended.err
    ways = (
        ("no space left", "file size limit", "tmpfs")
        if _may_mount()
        else ("no space left", "file size limit")
    )
    for number in range(count):
        site.clear()
        way = ways[number % len(ways)]
        if way == "tmpfs":
            size = random_.randrange(4096, sum(sizes) + 16_384)
            yield replace(_on_tmpfs(site, whole, size), way=f"{way} of {size} bytes")
            continue
        if way == "no space left":
            place = random_.randrange(len(whole.changes))
            setup, way = full_from(site, place), f"{way} from change {place} ({whole.changes[place]})"
        else:
            size = random_.randrange(4096, max(*sizes, 4097))
            setup, way = limited_to(size), f"{way} of {size} bytes"
        yield replace(_failed_and_again(site, whole, setup), way=way)


def _failed_and_again(site: Site, whole: Undisturbed, setup: Callable[[], None] | None) -> Full:
    failed = site.run(setup=setup)
    if failed.code == 0:
        same = site.content() == whole.content
        return Full("", False, "" if same else "exit 0 with other bytes")
    if failed.code != 4:
        return Full("", True, f"exit {failed.code}: {failed.err[-2000:]}")
    if site.out.exists():
        return Full("", True, "an artifact is there although the command failed")
    if not failed.err.strip() or failed.out:
        return Full("", True, "no words")
    return Full("", True, _again(site, whole))


def _again(site: Site, whole: Undisturbed) -> str:
    again = site.run()
    if again.code != 0:
        return f"again: exit {again.code}: {again.err[-2000:]}"
    if left := site.left_over():
        return f"left over: {', '.join(left)}"
    different = difference(whole.content, site.content())
    return f"other bytes: {', '.join(different)}" if different else ""


_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000
_REMOUNT, _RECURSIVE, _PRIVATE = 32, 1 << 14, 1 << 18


def _mount(path: str, size: int, flags: int = 0) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.mount(b"tmpfs", path.encode(), b"tmpfs", flags, f"size={size}".encode()) == 0


def _own_mounts() -> bool:
    """Give this process mounts of its own; it must have one thread only."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEW_MOUNTS) != 0:
        if libc.unshare(_NEW_USER | _NEW_MOUNTS) != 0:
            return False
        for name, content in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path("/proc/self", name).write_text(content)
    # Else the new mount would show outside.
    return libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None) == 0


def _may_mount() -> bool:
    """Whether a user may mount a tmpfs here."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if _own_mounts() and _mount("/mnt", 4096) else 1)
    return os.waitpid(pid, 0)[1] == 0


def _on_tmpfs(site: Site, whole: Undisturbed, size: int) -> Full:
    """A command on a small tmpfs, which is enlarged before it is run again; in a child, as mounts are a process's."""
    verdict = site.folder / "verdict"
    pid = os.fork()
    if pid == 0:
        try:
            if not (_own_mounts() and _mount(str(site.results), size)):
                raise OSError(ctypes.get_errno(), "no tmpfs")
            failed = site.run()
            if failed.code == 0:
                found = Full("", False, "" if site.content() == whole.content else "exit 0 with other bytes")
            elif failed.code != 4 or site.out.exists() or not failed.err.strip():
                found = Full("", True, f"exit {failed.code}: {failed.err[-2000:]}")
            else:
                _mount(str(site.results), 1 << 30, _REMOUNT)
                found = Full("", True, _again(site, whole))
            verdict.write_text(json.dumps([found.reached, found.wrong]))
        except BaseException:
            verdict.write_text(json.dumps([True, traceback.format_exc()]))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    reached, wrong = json.loads(verdict.read_text())
    return Full("", reached, wrong)
