"""``priorkit preload``: a command whose calls of ``priorkit`` start with all libraries loaded.

A step spends seconds on importing torch and transformers before it does anything. A server imports them once and forks
for every call of ``priorkit`` in the command: the call's process hands its streams over and waits (preload_client.py).
Each call still has a process of its own, with the caller's streams and folder, and ends as it would have ended: by its
exit code, by a signal, or with the server.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import multiprocessing
import os
import pkgutil
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from priorkit.cli.output import flush_standard_streams
from priorkit.cli.preload_client import ADDRESS, STREAMS, is_preloaded, surroundings
from priorkit.core.errors import ResourceError, UsageError

CONTEXT = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""Options after the command's name are the command's."""

PACKAGE = Path(__file__).parents[1]

LIBRARIES = (
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.processing_clip",
    "transformers.models.llama.modeling_llama",
    "transformers.models.llava.modeling_llava",
    "transformers.models.siglip.image_processing_siglip",
)
"""What steps import when they run, besides what our modules import."""

REQUEST_SECONDS = 10.0
"""How long a client may take to send its request."""

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def preload(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="Command and its arguments.")],
) -> None:
    """Run a command, such as a script, whose priorkit steps start without importing their libraries again.

    For example: priorkit preload bash examples/pocket.sh. A call with another environment, limits or processors than
    the command's starts by itself, as do all calls where processes cannot be watched by descriptor (not on Linux).
    """
    found = shutil.which(command[0])
    if found is None:
        raise UsageError(f"no such command: '{command[0]}'", where="COMMAND")
    if is_preloaded():
        os.execv(found, command)
    if not hasattr(os, "pidfd_open"):
        os.environ[ADDRESS] = "not supported"  # so that a script does not ask again
        os.execv(found, command)
    with tempfile.TemporaryDirectory(prefix="priorkit-") as folder:
        address = Path(folder) / "socket"
        try:
            server = _Server(address, context.obj)
        except OSError as error:
            raise ResourceError(
                f"no socket can be made: {error}", where=str(address), hint="set TMPDIR to a shorter path"
            ) from None
        code = server.run([found, *command[1:]])
    raise typer.Exit(code)


def load_libraries() -> None:
    """Import all of our modules and what steps import when they run, except for missing extras."""
    for module in pkgutil.walk_packages([str(PACKAGE)], "priorkit.", onerror=lambda _: None):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):
                importlib.import_module(module.name)
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)


class _Server:
    """Forks for every request, in one thread, as forking needs; lives as long as the command and its requests.

    Args:
        address: path of the socket; its folder must be this user's.
        run_command_line: runs a command line of priorkit and returns its exit code.
    """

    def __init__(self, address: Path, run_command_line: Callable[[list[str]], int]) -> None:
        self._run_command_line = run_command_line
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen(128)
        self._connections: set[socket.socket] = set()
        os.environ[ADDRESS] = str(address)
        # A library that looks for GPUs when it is imported must not start CUDA, which does not survive a fork.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        self._surroundings = json.loads(json.dumps(surroundings()))

    def run(self, command: list[str]) -> int:
        """Run the command to its end, and what it left running; returns its exit code."""
        child = subprocess.Popen(command)
        # An interrupt from the terminal reaches the command too, which decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        load_libraries()
        gc.collect()
        gc.freeze()  # or a collection would write to, and so copy, every page that is shared
        watched = os.pidfd_open(child.pid)
        self._selector.register(watched, selectors.EVENT_READ, lambda: self._end(watched))
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        while self._selector.get_map():
            for key, _ in self._selector.select():
                if self._selector.get_map().get(key.fd) is key:  # not closed by an event before it
                    key.data()
        gc.unfreeze()  # so that the interpreter can end as usual
        code = child.wait()
        return code if code >= 0 else 128 - code

    def _end(self, watched: int) -> None:
        """The command ended: take no more requests."""
        self._selector.unregister(watched)
        os.close(watched)
        self._selector.unregister(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(REQUEST_SECONDS)
        streams: list[int] = []
        try:
            request = _receive(connection, streams)
            if request["surroundings"] == self._surroundings:
                self._start(connection, request, streams)
                return
            _answer(connection, {"declined": "other surroundings"})
        except (OSError, ValueError, KeyError):
            with suppress(OSError):
                _answer(connection, {"declined": "failed"})
        finally:
            for stream in streams:
                os.close(stream)
        connection.close()

    def _start(self, connection: socket.socket, request: dict[str, Any], streams: list[int]) -> None:
        flush_standard_streams()
        process = multiprocessing.get_context("fork").Process(
            target=self._work, args=(os.getpid(), request, streams)
        )
        process.start()
        self._connections.add(connection)
        registered = {connection, process.sentinel}

        def finish() -> None:
            for file in registered:
                self._selector.unregister(file)
            process.join()
            with suppress(OSError):
                _answer(connection, {"status": process.exitcode})
            self._connections.discard(connection)
            connection.close()
            process.close()

        # A client that is killed takes its process with it.
        self._selector.register(connection, selectors.EVENT_READ, process.kill)
        self._selector.register(process.sentinel, selectors.EVENT_READ, finish)
        with suppress(OSError):
            _answer(connection, {"process": process.pid})

    def _work(self, server: int, request: dict[str, Any], streams: list[int]) -> NoReturn:
        """In the fork: take the client's place and run its command line."""
        _die_with_parent(server)
        self._selector.close()
        for held in (self._listener, *self._connections):
            held.close()
        _take_streams(streams)
        # An interrupt from the terminal reaches the client, which passes it on; it must not arrive twice.
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            ignored = number in request["ignored_signals"]
            signal.signal(number, signal.SIG_IGN if ignored else signal.default_int_handler)
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, request["niceness"])
        os.umask(request["umask"])
        os.chdir(request["folder"])
        os.environ.update(request["shell"])
        sys.argv = ["priorkit", *request["arguments"]]
        code = self._run_command_line(request["arguments"])
        flush_standard_streams()
        sys.exit(code)


def _receive(connection: socket.socket, streams: list[int]) -> dict[str, Any]:
    """A client's request; its streams are added to the list as they arrive."""
    size, found, _, _ = socket.recv_fds(connection, 8, len(STREAMS))
    streams += found
    with connection.makefile("rb") as reader:
        text = reader.read(int.from_bytes(size, "big"))
    if len(streams) != len(STREAMS):
        raise ValueError("a request without its three streams")
    return json.loads(text)


def _answer(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def _take_streams(streams: list[int]) -> None:
    for number, stream in zip(STREAMS, streams, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    buffering = 1 if os.isatty(1) else -1
    sys.stdout = os.fdopen(1, "w", buffering, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
