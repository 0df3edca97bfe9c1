"""A partial artifact: claimed by one run, kept for the same request, renamed into place when it is complete."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from priorkit.core import artifact
from priorkit.core.errors import ResourceError, UsageError
from priorkit.core.input_files import PARTIAL
from priorkit.core.manifest import InputRecord
from priorkit.core.options.settings import StepSettings
from priorkit.core.options.specs import result_settings
from priorkit.core.process import runtime

STATE = "state"
"""Folder of a partial artifact that holds what an interrupted run needs to resume."""


def shortened(value: Any) -> str:
    """A value as JSON, of at most 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def partial_of(out: Path) -> Path:
    """Where an artifact is made before it is renamed into place."""
    return out.with_name(out.name + PARTIAL)


REQUEST = "request.json"
"""Names the settings and inputs that a partial artifact is being made from."""


@contextmanager
def claimed(
    partial: Path, settings: StepSettings, records: list[InputRecord], complete: bool
) -> Generator[None, None, None]:
    """Own a partial artifact: locked against a second run, and removed on failure unless it can resume.

    Args:
        partial: its folder.
        settings: the step's.
        records: its inputs.
        complete: it only needs the final rename; nothing in it is cleared.
    """
    if runtime.rank() != 0:
        yield
        return
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"cannot be made: {error.strerror}", where=str(partial), hint="choose another --out"
        ) from error
    lock = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResourceError(
                "another process is making this artifact", where=str(partial), hint="wait for it, or stop it"
            ) from None
        if not complete:
            refuse_other_run(partial, settings, records)
            _clear_or_resume(partial, _request(settings, records))
        try:
            yield
        except BaseException:
            if partial.is_dir() and not (partial / STATE).exists() and not artifact.is_artifact(partial):
                shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def _request(settings: StepSettings, records: list[InputRecord]) -> str:
    values = {
        "step": settings.step,
        "settings": result_settings(settings),
        "inputs": {record.setting: record.digest for record in records},
    }
    return json.dumps(values, indent=2, sort_keys=True)


def _waiting(partial: Path) -> str:
    """The request of an interrupted run that can resume; empty where there is none."""
    file = partial / REQUEST
    return file.read_text(encoding="utf-8") if file.is_file() and (partial / STATE).exists() else ""


def is_waiting(partial: Path) -> bool:
    """Whether an interrupted run can resume here."""
    return bool(_waiting(partial))


def refuse_other_run(partial: Path, settings: StepSettings, records: list[InputRecord]) -> None:
    known, request = _waiting(partial), _request(settings, records)
    if known and known != request and not settings.force:
        raise UsageError(
            "an interrupted run with other settings or inputs is waiting here: "
            + _request_difference(known, request),
            where=str(partial),
            hint="run its command again to finish it, or start over with --force",
        )


def _clear_or_resume(partial: Path, request: str) -> None:
    """Keep the state of an interrupted run of the same request; clear anything else."""
    keep = {STATE, REQUEST} if _waiting(partial) == request else set[str]()
    for item in sorted(partial.iterdir()):
        if item.name not in keep:
            shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
    artifact.write_text(partial / REQUEST, request)


def _request_difference(known: str, wanted: str) -> str:
    try:
        before, after = json.loads(known), json.loads(wanted)
    except json.JSONDecodeError:
        return "its request cannot be read"
    parts: list[str] = []
    for table in ("settings", "inputs"):
        old, new = before.get(table, {}), after.get(table, {})
        parts.extend(
            f"{name} was {shortened(old.get(name))}, now {shortened(new.get(name))}"
            for name in sorted({**old, **new})
            if old.get(name) != new.get(name)
        )
    return "; ".join(parts) or "another step"


def move_into_place(partial: Path, out: Path) -> None:
    """Rename the finished artifact to its target; an artifact that is replaced goes last."""
    old = out.with_name(out.name + ".replaced")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.replace(old)
    partial.replace(out)
    artifact.sync(out.absolute().parent)
    shutil.rmtree(old, ignore_errors=True)
