"""Carrying out a merge: tensor by tensor, several in flight, every byte written once at its place."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits  # pyright: ignore[reportMissingTypeStubs]

from priorkit.core.errors import InputError, Problem
from priorkit.core.process.processors import processors
from priorkit.core.process.progress import progress_bar
from priorkit.data.io.tensor_file import ShardWriter
from priorkit.merging.deltas import Deltas
from priorkit.merging.plan import MergePlan
from priorkit.merging.tensors import (
    FLOATS,
    TensorReader,
    check_finite,
    chunks,
    narrow,
    widen,
)
from priorkit.models.folder import read_json

T = TypeVar("T")

IN_FLIGHT = 192 << 20
"""Bytes that tensors in flight may need together; a larger tensor is processed by itself."""


@dataclass(frozen=True, slots=True)
class TensorNorms:
    """What a merge did to one tensor.

    Attributes:
        change: the norm of the result minus the reference.
        reference: the norm of the reference.
    """

    change: float
    reference: float


class _MemoryBudget:
    """Lets a job begin when its memory fits; one that never fits waits until no other runs."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, size: int) -> Generator[None, None, None]:
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + size <= self._limit)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()


def map_tensors(
    names: Sequence[str],
    work: Callable[[str], T],
    need: Callable[[str], int],
    workers: int,
    title: str,
) -> dict[str, T]:
    """Do one job per tensor on threads; results come back in the order of the names.

    Each job computes on one thread, so results do not depend on the number of threads.

    Raises:
        InputError: of the first job that fails, with the tensor's name.
    """
    budget = _MemoryBudget(IN_FLIGHT)
    results: dict[str, T] = {}

    def job(name: str) -> T:
        with budget.holding(need(name)):
            try:
                return work(name)
            except InputError as error:
                raise InputError(
                    Problem(p.what, " ".join(filter(None, (p.where, f"tensor {name}"))), p.hint)
                    for p in error.problems
                ) from None

    pool = ThreadPoolExecutor(max_workers=workers or min(8, processors()))
    try:
        with threadpool_limits(1), progress_bar(title, len(names), unit="tensors") as progress:
            futures = [pool.submit(job, name) for name in names]
            # In order, so that of several failures the same one is reported every time.
            for name, future in zip(names, futures, strict=True):
                results[name] = future.result()
                progress.advance()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return results


def write_model(
    plan: MergePlan, deltas: Deltas, reader: TensorReader, folder: Path, workers: int
) -> dict[str, TensorNorms]:
    """Write the merged model in the reference's shards.

    Returns:
        Norms by tensor name.
    """
    reader.open(_files(plan))
    shards: dict[Path, list[str]] = {}
    for name, info in sorted(plan.reference.items(), key=lambda item: (item[1].file.name, item[1].offset)):
        shards.setdefault(info.file, []).append(name)
    with ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        total = 0
        for file, names in shards.items():
            layout = {name: (plan.stored_dtype(name), plan.reference[name].shape) for name in names}
            writer = stack.enter_context(ShardWriter(folder / file.name, layout))
            writers.update(dict.fromkeys(names, writer))
            total += writer.size
        order = [name for names in shards.values() for name in names]
        written = map_tensors(
            order,
            lambda name: _write_tensor(plan, deltas, reader, writers[name], name),
            plan.tensor_bytes,
            workers,
            "merge",
        )
    if len(shards) > 1:
        index = {
            "metadata": {
                "total_parameters": sum(info.count for info in plan.reference.values()),
                "total_size": total,
            },
            "weight_map": {name: plan.reference[name].file.name for name in sorted(plan.reference)},
        }
        text = json.dumps(index, indent=2) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    return written


def _write_tensor(
    plan: MergePlan, deltas: Deltas, reader: TensorReader, writer: ShardWriter, name: str
) -> TensorNorms:
    info = plan.reference[name]
    if info.dtype not in FLOATS or not deltas.touched(name):
        return _copy_tensor(plan, reader, writer, name)
    merged = deltas.merged(name)
    moved = size = 0.0
    dtype = plan.stored_dtype(name)
    for start, count in deltas.blocks(name):
        base = deltas.base(name, start, count)
        change = merged(start, count, base)
        moved += float(np.dot(change, change))
        size += float(np.dot(base, base))
        writer.write(name, narrow(np.add(base, change, out=base), dtype), start)
    return TensorNorms(math.sqrt(moved), math.sqrt(size))


def _copy_tensor(plan: MergePlan, reader: TensorReader, writer: ShardWriter, name: str) -> TensorNorms:
    """Copy what no input changes; only its type may change."""
    info, dtype = plan.reference[name], plan.stored_dtype(name)
    size = 0.0
    for part in chunks(info.count):
        raw = reader.raw(info, part.start, part.stop - part.start)
        if info.dtype in FLOATS:
            check_finite(raw, info)
            values = np.empty(raw.size, np.float64 if info.dtype == "F64" else np.float32)
            widen(raw, info.dtype, values)
            size += float(np.dot(values, values))
            if dtype != info.dtype:
                raw = narrow(values, dtype)
        writer.write(name, raw, part.start)
    return TensorNorms(0.0, math.sqrt(size))


def _files(plan: MergePlan) -> Iterable[Path]:
    yield from (info.file for info in plan.reference.values())
    for source in plan.inputs:
        yield from (info.file for info in source.full.values())
        for lora in source.loras.values():
            yield from (lora.a.file, lora.b.file)


def open_inputs(plan: MergePlan, reader: TensorReader) -> None:
    """Open all files of a plan's inputs."""
    reader.open(_files(plan))


def note_untied(folder: Path) -> None:
    """Note in ``config.json`` that the head is not tied to the embeddings."""
    config = read_json(folder / "config.json")
    config["tie_word_embeddings"] = False
    text: Any = config.get("text_config")
    if isinstance(text, dict) and "tie_word_embeddings" in text:
        text["tie_word_embeddings"] = False
    content = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(content, encoding="utf-8")


def summary(written: Mapping[str, TensorNorms]) -> dict[str, Any]:
    """Norms of the change, in all and by tensor, for ``merge.json``."""
    tensors = {
        name: {
            "change_norm": record.change,
            "relative_change": record.change / record.reference if record.reference else None,
        }
        for name, record in written.items()
    }
    change = math.sqrt(math.fsum(record.change**2 for record in written.values()))
    reference = math.sqrt(math.fsum(record.reference**2 for record in written.values()))
    return {
        "change_norm": change,
        "relative_change": change / reference if reference else None,
        "tensors": tensors,
    }


def sizes(plan: MergePlan) -> tuple[int, int]:
    """Expected memory and disk use in bytes."""
    names = list(plan.reference) or list(dict.fromkeys(n for s in plan.inputs for n in s.loras))
    largest = max((plan.tensor_bytes(name) for name in names), default=0)
    memory = (120 << 20) + max(largest, min(IN_FLIGHT, sum(plan.tensor_bytes(name) for name in names)))
    return memory, plan.output_bytes
