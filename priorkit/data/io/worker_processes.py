"""Worker processes: tasks in, results out in the order of the tasks.

A worker is ``python -m MODULE``: it reads one JSON task a line on standard input and answers with one JSON
line, so that it imports no more than its module needs, and a script that uses priorkit needs no
``if __name__ == "__main__"``. It ends when its input is closed, also when this process is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from priorkit.core import errors
from priorkit.core.errors import Problem, ResourceError

Task = dict[str, Any]
Result = dict[str, Any]

AHEAD = 4
"""Tasks per worker that may be finished before their turn; bounds what waits."""


class Workers:
    """Processes that run a module's :func:`serve`; a context manager.

    Args:
        module: the module to run, such as ``priorkit.data.corpus.tokenization``.
        count: the number of processes.
    """

    def __init__(self, module: str, count: int) -> None:
        root = str(Path(__file__).resolve().parents[3])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", module]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            for _ in range(count)
        ]
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(count)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for process in self._processes:
            if kind is not None:
                process.kill()
            assert process.stdin is not None
            try:
                process.stdin.close()
            except BrokenPipeError:
                continue
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def map(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the results of the tasks, in order.

        Raises:
            PriorkitError: what a worker raised.
            ResourceError: a worker was killed.
            RuntimeError: a bug in a worker, with its traceback.
        """
        waiting: deque[Future[Result]] = deque()
        for task in tasks:
            waiting.append(self._threads.submit(self._ask, task))
            if len(waiting) >= AHEAD * len(self._processes):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _ask(self, task: Task) -> Result:
        process = self._idle.get()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(task).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        finally:
            self._idle.put(process)
        if not answer:
            raise ResourceError(
                f"a worker process ended before its work was done (exit code {process.wait()})",
                hint="it may have run out of memory: use fewer --workers",
            )
        result = json.loads(answer)
        if "error" in result:
            problems = [Problem(*problem) for problem in result["problems"]]
            raise getattr(errors, result["error"])(problems)
        if "oserror" in result:
            raise OSError(*result["oserror"])
        if "traceback" in result:
            raise RuntimeError("in a worker process:\n" + result["traceback"])
        return result


def serve(work: Callable[[Task], Result]) -> None:
    """Answer tasks from standard input until it is closed; what a worker's module runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process decides when to end
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    for line in sys.stdin.buffer:
        try:
            result = work(json.loads(line))
        except errors.PriorkitError as error:
            problems = [[problem.what, problem.where, problem.hint] for problem in error.problems]
            result = {"error": type(error).__name__, "problems": problems}
        except OSError as error:
            result = {"oserror": [error.errno, error.strerror, error.filename]}
        except Exception:
            result = {"traceback": traceback.format_exc()}
        answers.write(json.dumps(result).encode() + b"\n")
        answers.flush()
