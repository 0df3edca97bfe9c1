"""The life of a step: resolve inputs, check whether the work is done, plan, run, rename into place.

Every step runs through :func:`produce`, so that all steps start, stop, resume and fail alike.
"""

from __future__ import annotations

import errno
import logging
import re
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from priorkit.core import artifact
from priorkit.core.artifact import Artifact
from priorkit.core.card import write_card
from priorkit.core.errors import InputError, Problems, ResourceError, UsageError
from priorkit.core.inputs import IMAGES_OF, Input, resolve
from priorkit.core.manifest import SCHEMA, Manifest
from priorkit.core.options import recipe
from priorkit.core.options.settings import StepSettings
from priorkit.core.options.specs import default_values, input_values, result_settings
from priorkit.core.partial import (
    REQUEST,
    STATE,
    claimed,
    is_waiting,
    move_into_place,
    partial_of,
    refuse_other_run,
    shortened,
)
from priorkit.core.process import runtime
from priorkit.core.process.capacity import check_capacity, readable_bytes
from priorkit.core.process.energy import EnergyMeter
from priorkit.core.work import SCRATCH, Inputs, Plan, Work

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=StepSettings)


P = TypeVar("P")


def produce(
    settings: S,
    plan: Callable[[S, Inputs], Plan[P]],
    execute: Callable[[S, Work[P]], None],
    show_plan: Callable[[Mapping[str, str]], None] | None = None,
) -> Artifact | None:
    """Make a step's artifact, or find it complete.

    Args:
        settings: the step's validated settings.
        plan: validates the inputs from headers and sizes the work; raises all problems it finds.
        execute: does the work, writing into ``work.path``.
        show_plan: what to do with the plan's rows where the settings ask to check only; logs them where not given.

    Returns:
        The artifact; None after ``--check``.

    Raises:
        PriorkitError: see the classes for the exit codes.
    """
    if settings.out is None:
        raise UsageError(
            "--out is missing: name the directory to make", hint=f"priorkit {settings.step} --help"
        )
    out = Path(settings.out).expanduser()
    if out.name in ("", ".."):
        raise UsageError("--out names a directory to make, not one that is always there", where=str(out))
    inputs = resolve_inputs(settings)
    # In this order: while another process renames it, one of the two exists.
    unrenamed = None if settings.force else _finished(partial_of(out))
    finished = _finished(out, settings.force)
    if finished is not None:
        differences = _differences(settings, inputs, finished)
        if not differences:
            logger.info(f"{settings.step}: up to date")
            return finished
        if not settings.force:
            raise UsageError(
                f"{out} is complete and was made with other settings or inputs: " + "; ".join(differences),
                hint="choose another --out, or replace it with --force",
            )
    _check_target(out)
    problems = Problems(InputError)
    for item in inputs.values():
        try:
            item.verify(thorough=not settings.check)
        except InputError as error:
            problems.extend(error)
    problems.raise_if_any()
    planned = plan(settings, inputs)
    check_capacity(out, planned.disk_bytes, planned.memory_bytes)
    if settings.check:
        # Only an interrupted run has digests to compare with; reading a large model for its own takes minutes.
        if is_waiting(partial_of(out)):
            refuse_other_run(partial_of(out), settings, [item.record() for item in inputs.values()])
        (show_plan or log_plan)(_plan_rows(settings, out, planned))
        return None
    if unrenamed is not None and not _differences(settings, inputs, unrenamed):
        return _put_in_place(settings, out, inputs)
    return _make(settings, out, inputs, planned, execute)


def resolve_inputs(settings: StepSettings) -> Inputs:
    """Resolve all inputs that the settings name; all problems are raised at once."""
    problems = Problems(InputError)
    by_label: dict[str, Input] = {}
    for spec, label, value in input_values(settings):
        name = spec.name.upper() if spec.positional else spec.flag
        try:
            by_label[label] = resolve(value, label, spec.accepts, spec.hub, name, settings.hub_subset(label))
        except InputError as error:
            problems.extend(error)
    problems.raise_if_any()
    for label, (folder, names) in settings.named_files(by_label).items():
        named = by_label[label] = Input(label, str(folder), folder, "files", files=names)
        if (source := label.removeprefix(IMAGES_OF)) in by_label:
            by_label[source] = replace(by_label[source], named=named)
    return Inputs(by_label)


def _finished(out: Path, replace_damaged: bool = False) -> Artifact | None:
    """The artifact that is there; none where its manifest is damaged and it may be replaced."""
    if not artifact.is_artifact(out):
        return None
    try:
        return artifact.open_artifact(out)
    except InputError:
        if replace_damaged:
            return None
        raise


def _differences(settings: StepSettings, inputs: Mapping[str, Input], finished: Artifact) -> list[str]:
    """What differs between the settings and inputs and those of a finished artifact, in words."""
    manifest = finished.manifest
    if manifest.step != settings.step:
        return [f"it was made by '{manifest.step}'"]
    new = result_settings(settings)
    # Options that the version that made it did not have were at their default.
    old = {**default_values(type(settings)), **manifest.settings}
    differences = [
        f"{name} is {shortened(old.get(name))}, now {shortened(value)}"
        for name, value in new.items()
        if old.get(name) != value
    ]
    known = {record.setting: record for record in manifest.inputs}
    for label, item in inputs.items():
        if label not in known:
            if not item.files or _changed_since(item, manifest.created):
                differences.append(f"the input {label} is new")
        elif item.record(known[label]).digest != known[label].digest:
            differences.append(f"the input {label} ({item.given}) has changed")
    differences.extend(f"the input {label} is gone" for label in known if label not in inputs)
    for name, record in manifest.files.items():
        path = finished.path / name
        if not path.is_file() or path.stat().st_size != record.size:
            differences.append(f"its file {name} is missing or damaged")
    return differences


def _changed_since(item: Input, created: str) -> bool:
    """Whether any of the files is newer than an artifact made when files that rows name were not recorded."""
    # A manifest leaves out the fraction of its second.
    finished = datetime.fromisoformat(created).timestamp() + 1
    return any((item.path / name).stat().st_ctime > finished for name in item.files)


def _check_target(out: Path) -> None:
    """Refuse to overwrite what priorkit did not make."""
    for path in (out, partial_of(out), *out.absolute().parents):
        if path.is_file():
            raise UsageError("this is a file; --out names a directory", where=str(path))
    if out.is_dir() and any(out.iterdir()) and not artifact.is_artifact(out):
        raise UsageError(
            "this folder is not empty and is no priorkit artifact",
            where=str(out),
            hint="choose another --out; --force does not delete what priorkit did not make",
        )


def _plan_rows(settings: StepSettings, out: Path, plan: Plan[Any]) -> dict[str, str]:
    rows = [("step", settings.step), ("makes", f"{plan.kind or settings.kind} at {out}"), *plan.facts]
    if plan.memory_bytes:
        rows.append(("memory", f"about {readable_bytes(plan.memory_bytes)}"))
    if plan.disk_bytes:
        rows.append(("disk", f"about {readable_bytes(plan.disk_bytes)}"))
    return dict(rows)


def log_plan(rows: Mapping[str, str]) -> None:
    """Log a plan, a line per row."""
    width = max(map(len, rows))
    for name, value in rows.items():
        logger.info(f"{name:<{width}}  {value}")


def _make(
    settings: S, out: Path, inputs: Inputs, plan: Plan[P], execute: Callable[[S, Work[P]], None]
) -> Artifact:
    partial = partial_of(out)
    records = [item.record() for item in inputs.values()]
    begun, energy = time.monotonic(), EnergyMeter()
    with _disk_errors(out), claimed(partial, settings, records, complete=False):
        work = Work(partial, inputs, plan)
        execute(settings, work)
        if runtime.rank() != 0:
            return Artifact(out, _unwritten(settings))
        work.cost.update(seconds=round(time.monotonic() - begun, 3), peak_memory_bytes=runtime.peak_memory())
        if (joules := energy.joules()) is not None:
            work.cost.update(energy_joules=round(joules, 1))
        manifest = _complete(settings, work, partial, work.metrics)
        _remove_state(partial)
        write_card(partial, manifest, inputs, out.name)
        move_into_place(partial, out)
    return Artifact(out, manifest)


def _put_in_place(settings: StepSettings, out: Path, inputs: Mapping[str, Input]) -> Artifact:
    """End a run that was killed between its manifest and its renaming: nothing is computed again."""
    partial = partial_of(out)
    if runtime.rank() != 0:
        return Artifact(out, _unwritten(settings))
    with (
        _disk_errors(out),
        claimed(partial, settings, [item.record() for item in inputs.values()], complete=True),
    ):
        _remove_state(partial)
        write_card(partial, artifact.open_artifact(partial).manifest, inputs, out.name)
        move_into_place(partial, out)
    logger.info(f"{settings.step}: was complete and is now in place")
    return artifact.open_artifact(out)


def _remove_state(partial: Path) -> None:
    """Remove all that is not part of the artifact, once its manifest is written."""
    shutil.rmtree(partial / STATE, ignore_errors=True)
    shutil.rmtree(partial / SCRATCH, ignore_errors=True)
    (partial / REQUEST).unlink(missing_ok=True)


def _complete(settings: StepSettings, work: Work[Any], folder: Path, metrics: dict[str, Any]) -> Manifest:
    """Make a folder a complete artifact: its recipe, then its manifest."""
    paths = {label: _lasting_path(item) for label, item in work.inputs.items() if not item.files}
    (folder / artifact.RECIPE).write_text(recipe.render(settings, paths), encoding="utf-8")
    return artifact.write_manifest(
        folder,
        kind=work.plan.kind or settings.kind,
        step=settings.step,
        settings={**settings.model_dump(mode="json", exclude=set(recipe.OUTPUT_ONLY))},
        inputs=[item.record() for item in work.inputs.values()],
        metrics=metrics,
        versions=runtime.versions(),
        seed=getattr(settings, "seed", None),
        cost=work.cost,
        leave_out=(STATE, SCRATCH, REQUEST),
    )


def export(
    settings: StepSettings, work: Work[Any], name: str, metrics: dict[str, Any], write: Callable[[Path], None]
) -> Path:
    """Make a complete artifact of the run so far, next to the one that is being made.

    Args:
        settings: the running step's.
        work: the running step's.
        name: what is added to the name of ``--out``.
        metrics: figures for its manifest.
        write: writes its files into a folder.

    Returns:
        Its path; an earlier artifact of the same name is replaced.
    """
    target = sibling(settings, name)
    partial = partial_of(target)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    write_card(partial, _complete(settings, work, partial, metrics), work.inputs, target.name)
    move_into_place(partial, target)
    return target


def sibling(settings: StepSettings, name: str) -> Path:
    """Where :func:`export` makes an artifact.

    Raises:
        UsageError: something that priorkit did not make is there.
    """
    out = Path(settings.out or "").expanduser()
    target = out.with_name(f"{out.name}-{name}")
    _check_target(target)
    return target


def _lasting_path(item: Input) -> str:
    return item.given if item.revision else str(item.path.resolve())


def _unwritten(settings: StepSettings) -> Manifest:
    """The manifest as a process other than the first knows it: not yet written."""
    return Manifest(
        schema_=SCHEMA, kind=settings.kind, step=settings.step, settings={}, inputs=[], files={},
        metrics={}, versions={}, seed=None, created="",
    )  # fmt: skip


_FULL = "the disk is full"
_FORBIDDEN = "no permission"
_REASONS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "the file is larger than the limit (ulimit -f) or the file system allows",
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk fails (input/output error)",
    errno.ESTALE: "the network file system has lost the file",
    errno.EMFILE: "too many open files (ulimit -n)",
    errno.ENFILE: "too many open files on this machine",
}
"""What the system can say about the machine, not about the input or this program."""


@contextmanager
def _disk_errors(out: Path) -> Generator[None, None, None]:
    """Report a full, read-only or failing disk as such, not as a bug."""
    try:
        yield
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        # Libraries written in Rust report the system's error only in words.
        if code is None and (said := re.search(r"\(os error (\d+)\)", str(error))):
            code = int(said[1])
        if code not in _REASONS:
            raise
        file = getattr(error, "filename", None)
        raise ResourceError(
            _REASONS[code] + (f": {file}" if file else ""),
            where=str(out),
            hint="free some space or choose another --out",
        ) from error
