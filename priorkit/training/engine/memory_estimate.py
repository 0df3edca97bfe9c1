"""What a run of tuning takes of memory and disk, told from the headers of its model's weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from priorkit.core.safetensors_header import TensorInfo
from priorkit.models.multimodal.llava import PARTS, part_of

FP32 = 4
"""Bytes of a value; weights, gradients and moments are fp32 whatever the products run in."""


@dataclass(frozen=True)
class Footprint:
    """Numbers of values.

    Attributes:
        held: weights in memory.
        trained: weights with a gradient and two moments.
        written: weights of the artifact.
    """

    held: int
    trained: int
    written: int

    @property
    def memory_bytes(self) -> int:
        """Weights, gradients and AdamW's moments; activations and kept features come on top."""
        return FP32 * (self.held + 3 * self.trained)

    @property
    def disk_bytes(self) -> int:
        """The artifact, and a training state of trained weights and moments."""
        return FP32 * (self.written + 3 * self.trained)


def footprint(
    tensors: Mapping[str, TensorInfo], train: Collection[str], rank: int = 0, magnitudes: bool = False
) -> Footprint:
    """The footprint of training parts of a model.

    Args:
        tensors: all of a model's.
        train: parts of a LLaVA model; ``llm`` is all of a language model.
        rank: of LoRA's matrices, which are trained in place of the language model; 0 for none.
        magnitudes: whether DoRA's vectors are trained with them.
    """
    sizes: dict[str, int] = dict.fromkeys(PARTS, 0)
    for name, tensor in tensors.items():
        sizes[part_of(name)] += tensor.count
    held = sum(sizes.values())
    if not rank:
        return Footprint(held, sum(sizes[part] for part in train), held)
    # PEFT keeps a part that is trained whole beside the original.
    whole = sum(sizes[part] for part in train if part != "llm")
    matrices = [
        tensor.shape
        for name, tensor in tensors.items()
        if part_of(name) == "llm" and len(tensor.shape) == 2 and not _is_table(name)
    ]
    beside = whole + sum(rank * (rows + columns) + magnitudes * rows for rows, columns in matrices)
    return Footprint(held + beside, beside, beside)


def _is_table(name: str) -> bool:
    """Whether a tensor is an embedding or the output head, which LoRA leaves alone."""
    return any(part.startswith(("embed", "lm_head", "wte", "wpe")) for part in name.split("."))
