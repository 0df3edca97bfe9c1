"""Memory and disk that an evaluation will take, from headers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from priorkit.core.safetensors_header import read_header
from priorkit.data.io.formats import suffix_of
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource
from priorkit.models.folder import tensor_files

if TYPE_CHECKING:
    from priorkit.inference.model_info import ModelInfo

SAMPLE_BYTES = 2000
"""A line of ``samples.jsonl`` and the same answer in the state of the run: with prompt and options, rounded up."""


def memory_of(models: Sequence[ModelInfo], sources: Sequence[BenchmarkSource], device: str) -> int:
    """Bytes of main memory: the weights of the largest model in fp32, and the benchmarks' rows.

    Images within a table stay in memory, encoded, as long as the run; those in separate files do not. What
    passes the model at a time is not counted: it depends on the texts and is cut to the processor's cache.

    Args:
        models: those that are loaded one after the other.
        sources: the benchmarks.
        device: as ``--device`` names it; weights on a GPU take no main memory.
    """
    weights = max((4 * _parameters(model) for model in models), default=0)
    if weights and _on_gpu(device):
        weights = 0
    return weights + sum(
        file.stat().st_size for source in sources for file in (*source.files, *source.images)
    )


def disk_of(sources: Sequence[BenchmarkSource], limit: int) -> int:
    """Bytes of the artifact with the state of an interrupted run: a sample per item, texts once more.

    Args:
        sources: the benchmarks.
        limit: items taken of each; 0 for all.
    """
    size = 0
    for source in sources:
        taken = min(limit, source.rows) / source.rows if limit and source.rows else 1.0
        texts = sum(file.stat().st_size for file in source.files if suffix_of(file, (".parquet",)) is None)
        size += int(taken * (source.rows * SAMPLE_BYTES + texts))
    return size


def _on_gpu(device: str) -> bool:
    import torch

    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def _parameters(checked: ModelInfo) -> int:
    folders = [checked.folder, *([checked.adapter] if checked.adapter else [])]
    return sum(_values(folder) for folder in folders)


def _values(folder: Path) -> int:
    adapter = folder / "adapter_model.safetensors"
    tensors = read_header(adapter) if adapter.is_file() else tensor_files(folder)
    return sum(tensor.count for tensor in tensors.values())
