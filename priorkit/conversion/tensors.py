"""Tensors of a converted model: known by name, type and shape before they are read, and written one by one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.core.process.progress import progress_bar
from priorkit.core.safetensors_header import ITEM_BYTES
from priorkit.data.io.tensor_file import ShardWriter

SHARD_BYTES = 5_000_000_000
"""Largest file of weights, unless a single tensor is larger."""

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""safetensors' names of torch's types."""


@dataclass(frozen=True)
class NewTensor:
    """A tensor to be written.

    Attributes:
        dtype: of torch.
        shape: its shape.
        read: reads it.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        """Its size in a file."""
        return math.prod(self.shape) * ITEM_BYTES[DTYPES[self.dtype]]

    def as_dtype(self, dtype: torch.dtype | None) -> NewTensor:
        """The same in another floating-point type; None keeps the type, as integers do."""
        if dtype is None or not self.dtype.is_floating_point:
            return self
        return NewTensor(dtype, self.shape, lambda: self.read().to(dtype))


def stored(tensors: Mapping[str, Tensor], where: Path) -> dict[str, NewTensor]:
    """Tensors that are in memory or mapped.

    Raises:
        InputError: a tensor of a type that is not expected in weights.
    """
    found: dict[str, NewTensor] = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES or tensor.layout != torch.strided:
            raise InputError(
                f"'{name}' is a tensor of type {tensor.dtype}, {tensor.layout}", where=str(where)
            )
        found[name] = NewTensor(tensor.dtype, tuple(tensor.shape), lambda tensor=tensor: tensor.detach())
    return found


def write_weights(tensors: Mapping[str, NewTensor], path: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a file of safetensors, or shards with their index, in the order of the names.

    Args:
        tensors: by name.
        path: the file; shards and index have its name as their beginning.
        shard_bytes: most bytes of a shard.

    Raises:
        InputError: a tensor holds NaN or infinite values.
    """
    shards: list[list[str]] = [[]]
    size = 0
    for name in sorted(tensors):
        if shards[-1] and size + tensors[name].bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensors[name].bytes
    many = len(shards) > 1
    files = {
        f"{path.stem}-{number:05}-of-{len(shards):05}{path.suffix}" if many else path.name: names
        for number, names in enumerate(shards, start=1)
    }
    with progress_bar("convert", len(tensors), unit="tensors") as progress:
        for file, names in files.items():
            layout = {name: (DTYPES[tensors[name].dtype], tensors[name].shape) for name in names}
            with ShardWriter(path.parent / file, layout) as writer:
                for name in names:
                    values = tensors[name].read().contiguous()
                    if values.is_floating_point() and not bool(torch.isfinite(values).all()):
                        raise InputError("holds NaN or infinite values", where=f"tensor {name}")
                    writer.write(name, values.flatten().view(torch.uint8).numpy())
                    progress.advance()
    if many:
        index = {
            "metadata": {"total_size": sum(tensor.bytes for tensor in tensors.values())},
            "weight_map": {name: file for file, names in files.items() for name in names},
        }
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        path.with_name(path.name + ".index.json").write_text(text, encoding="utf-8")
