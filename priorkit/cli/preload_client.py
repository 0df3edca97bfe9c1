"""Hand a command line to the process that ``priorkit preload`` keeps. Imports little, as it runs before anything else.

The client sends its command line and standard streams and waits. The server answers with a line of JSON that names the
process at work, or says that the command must run by itself, and at the end with its exit status.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from priorkit.cli.output import print_error
from priorkit.core.errors import ResourceError

ADDRESS = "PRIORKIT_PRELOADED"
"""The environment variable with the socket of the server."""

STREAMS = (0, 1, 2)

PASSED_ON = (signal.SIGINT, signal.SIGTERM)

PER_SHELL = ("PWD", "OLDPWD", "SHLVL", "_")
"""Variables in which shells differ and which no library reads."""


def surroundings() -> dict[str, Any]:
    """What libraries read when they are loaded: where it differs from the server's, a command must run by itself."""
    limits = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))
    return {
        "environment": {name: value for name, value in os.environ.items() if name not in PER_SHELL},
        "python": [sys.executable, str(Path(__file__).parent), *map(str, sys.flags)],
        "processors": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
        "limits": [list(resource.getrlimit(getattr(resource, name))) for name in limits],
    }


def is_preloaded() -> bool:
    """Whether a server answers."""
    connection = _connect()
    if connection is not None:
        connection.close()
    return connection is not None


def run_preloaded(arguments: list[str]) -> int | None:
    """Run a command line in a fork of the server.

    Returns:
        The exit code; None if there is no server, or the command must run by itself.
    """
    if arguments[:1] == ["preload"] or not all(map(_is_open, STREAMS)):
        return None
    connection = _connect()
    if connection is None:
        return None
    with connection:
        try:
            _send(connection, arguments)
        except OSError:  # a working directory that is gone, a server that ended
            return None
        return _Wait(connection).code()


def _is_open(stream: int) -> bool:
    try:
        os.fstat(stream)
    except OSError:
        return False
    return True


def _connect() -> socket.socket | None:
    address = os.environ.get(ADDRESS)
    if not address:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        return None
    return connection


def _send(connection: socket.socket, arguments: list[str]) -> None:
    mask = os.umask(0)
    os.umask(mask)
    request = {
        "arguments": arguments,
        "folder": str(Path.cwd()),
        "shell": {name: os.environ[name] for name in PER_SHELL if name in os.environ},
        "umask": mask,
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "ignored_signals": [number for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN],
        "surroundings": surroundings(),
    }
    text = json.dumps(request).encode()
    socket.send_fds(connection, [len(text).to_bytes(8, "big")], STREAMS)
    connection.sendall(text)


class _Wait:
    """Waits for the process at work, and passes on the signals that ask this one to stop or pause."""

    def __init__(self, connection: socket.socket) -> None:
        self._answers = connection.makefile("r", encoding="utf-8")
        self._process: int | None = None
        self._early: list[int] = []

    def code(self) -> int | None:
        before = {number: signal.getsignal(number) for number in (*PASSED_ON, signal.SIGTSTP)}
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, self._pass_on)
        answer = self._answer()
        if "declined" in answer:
            for number, handler in before.items():
                signal.signal(number, handler)
            for number in self._early:
                os.kill(os.getpid(), number)
            return None
        self._process = answer.get("process")
        for number in self._early:
            self._pass_on(number, None)
        status = self._answer().get("status")
        if status is None:
            print_error(["the process of 'priorkit preload' ended", "  -> run the command again"])
            return ResourceError.exit_code
        if status < 0:  # ended by a signal, as this process then is too
            if -status != signal.SIGKILL:
                signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        return status

    def _answer(self) -> dict[str, Any]:
        try:
            return json.loads(self._answers.readline() or "{}")
        except OSError:
            return {}

    def _pass_on(self, number: int, _frame: object) -> None:
        if self._process is None:
            self._early.append(number)
        elif number == signal.SIGTSTP:
            self._send_signal(signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
            self._send_signal(signal.SIGCONT)  # after this process was continued
        else:
            self._send_signal(number)

    def _send_signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process, number)
