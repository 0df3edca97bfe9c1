"""What each input changes in one tensor, read block by block, and the merged delta."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from priorkit.core.process import runtime
from priorkit.core.safetensors_header import TensorInfo
from priorkit.merging.inputs import MergeInput
from priorkit.merging.lora_factors import concatenate, dora_change
from priorkit.merging.methods.arrays import Array, inner, is_numpy
from priorkit.merging.plan import MergePlan
from priorkit.merging.tensors import TensorReader

BLOCK = 1 << 16
"""Values merged at a time where a method allows it."""

Values = NDArray[np.floating[Any]]


class Delta(Protocol):
    """The difference of a tensor from the reference, by ranges of the flat tensor."""

    def __call__(self, start: int, count: int, base: Values | None = None) -> Values:
        """Values ``start`` to ``start + count``, full rows; ``base`` is the reference's range, if at hand."""
        ...


class Device:
    """Where selections are computed: numpy on the CPU, torch on a GPU."""

    def __init__(self, device: Any = None) -> None:
        self._device = device

    def put(self, values: Values) -> Array:
        """Move values there."""
        if self._device is None:
            return values
        import torch

        return torch.as_tensor(values).to(self._device)

    def get(self, values: Array) -> Values:
        """Bring values back."""
        return values if is_numpy(values) else values.cpu().numpy()


def device_of(device: Literal["auto", "cpu", "cuda"], seed: int, plan: MergePlan) -> Device:
    """The device of a merge: a GPU where ``cuda`` is given, or ``auto`` finds one and the method selects entries."""
    worthwhile = plan.method.select is not None and Path("/proc/driver/nvidia/version").exists()
    if device == "cuda" or (device == "auto" and worthwhile):
        chosen = runtime.start(seed, device).device
        if chosen.type == "cuda":
            return Device(chosen)
    return Device()


class Deltas:
    """Reads the inputs' deltas and merges them, a tensor at a time; used by several threads at once."""

    def __init__(
        self,
        plan: MergePlan,
        reader: TensorReader,
        precision: type[np.floating[Any]],
        seed: int,
        device: Device,
    ) -> None:
        self._plan, self._reader, self._precision, self._seed = plan, reader, precision, seed
        self._device = device

    def base(self, name: str, start: int = 0, count: int | None = None) -> Values:
        """The reference's values."""
        return self._reader.values(self._plan.reference[name], self._precision, start, count)

    def blocks(self, name: str) -> Iterator[tuple[int, int]]:
        """Ranges ``(start, count)`` of full rows that cover a tensor."""
        shape = self._plan.shape_of(name)
        total = math.prod(shape)
        row = total // shape[0] if shape and shape[0] else 1
        step = max(1, BLOCK // max(row, 1)) * max(row, 1)
        for start in range(0, total, step):
            yield start, min(step, total - start)

    def touched(self, name: str) -> bool:
        """Whether any input has something to say about a tensor."""
        return any(name in source.full or name in source.loras for source in self._plan.inputs)

    def of(self, source: MergeInput, name: str) -> Delta | None:
        """One input's delta; None where it has none."""
        info, lora = source.full.get(name), source.loras.get(name)
        if lora is None:
            return (
                None
                if info is None or info == self._plan.reference.get(name)
                else self._difference(info, name)
            )
        left, right = lora.factors(self._reader, self._precision)
        if lora.magnitude is None and info is None:
            return _rows(left, right)
        change = (left @ right).reshape(lora.shape)
        base_values = self.base(name).reshape(lora.shape)
        begun = base_values if info is None else self._reader.shaped(info, self._precision)
        if lora.magnitude is not None:
            magnitude = self._reader.values(lora.magnitude, self._precision)
            change = dora_change(begun, change, magnitude, lora.layout)
        return _slices((change + (begun - base_values)).reshape(-1))

    def _difference(self, info: TensorInfo, name: str) -> Delta:
        def block(start: int, count: int, base: Values | None = None) -> Values:
            # A language model may have fewer tokens than the multimodal one; the others' rows do not change.
            held = max(0, min(count, info.count - start))
            known = self.base(name, start, count) if base is None else base
            values = self._reader.values(info, self._precision, start, held)
            values -= known[:held]
            return values if held == count else np.concatenate([values, np.zeros(count - held, values.dtype)])

        return block

    def _coefficients(self, name: str, parts: Sequence[Delta | None]) -> list[float]:
        """A combination's coefficients for one tensor."""
        combination = self._plan.method.coefficients
        products = self._gram(name, parts) if self._plan.method.needs_gram else None
        if combination is None:
            return []
        return combination(products, self._plan.weights.of(name), self._plan.parameters)

    def _gram(self, name: str, parts: Sequence[Delta | None]) -> NDArray[np.float64]:
        """Inner products of the inputs' deltas, or of the inputs themselves where models are merged."""
        products = np.zeros((len(parts), len(parts)))
        for start, count in self.blocks(name):
            base = self.base(name, start, count) if self._plan.reference else None
            values = [None if part is None else part(start, count, base) for part in parts]
            if self._plan.on_models and base is not None:
                values = [base if value is None else base + value for value in values]
            for row, one in enumerate(values):
                for column in range(row + 1):
                    other = values[column]
                    if one is not None and other is not None:
                        products[row, column] += inner(one, other)
        return np.tril(products) + np.tril(products, -1).T

    def merged(self, name: str) -> Delta:
        """The merged delta of one tensor."""
        plan = self._plan
        if plan.method.select is not None:
            return _slices(self._selected(name))
        joined = self._joined_factors(name)
        if joined is not None:
            return joined
        parts = [self.of(source, name) for source in plan.inputs]
        coefficients = self._coefficients(name, parts)
        used = [(part, self._precision(c)) for part, c in zip(parts, coefficients, strict=True) if part]
        # sum c_i t_i = base + sum c_i (t_i - base) + (sum c_i - 1) base
        surplus = math.fsum(coefficients) - 1 if plan.on_models else 0.0

        def block(start: int, count: int, base: Values | None = None) -> Values:
            terms = [part(start, count, base) * scale for part, scale in used]
            if abs(surplus) > 1e-15:
                base_values = self.base(name, start, count) if base is None else base
                terms.append(base_values * self._precision(surplus))
            return sum(terms[1:], terms[0]) if terms else np.zeros(count, self._precision)

        return block

    def _joined_factors(self, name: str) -> Delta | None:
        """Where all deltas are plain LoRAs with given weights: one product of the joined factors."""
        plan = self._plan
        loras = [source.loras.get(name) for source in plan.inputs]
        if plan.method.needs_gram or any(name in source.full for source in plan.inputs):
            return None
        if any(lora is not None and lora.magnitude is not None for lora in loras):
            return None
        factors = [None if x is None else x.factors(self._reader, self._precision) for x in loras]
        joined = concatenate(factors, self._coefficients(name, []))
        if joined is None:
            return _slices(np.zeros(math.prod(plan.shape_of(name)), self._precision))
        return _rows(*joined)

    def _selected(self, name: str) -> Values:
        """The merged delta by a selection, which needs full tensors."""
        plan = self._plan
        shape, total = plan.shape_of(name), math.prod(plan.shape_of(name))
        deltas: list[Array] = []
        for source in plan.inputs:
            change = self.of(source, name)
            values = np.zeros(total, self._precision)
            if change is not None:
                for start, count in self.blocks(name):
                    values[start : start + count] = change(start, count)
            deltas.append(self._device.put(values.reshape(shape)))
        options: dict[str, Any] = dict(plan.parameters)
        if plan.method.takes_weights:
            options.update(weights=plan.weights.of(name), density=plan.density)
        if plan.method.draws:
            options["draws"] = [generator(self._seed, name, index) for index in range(len(deltas))]
        select = plan.method.select
        return self._device.get(select(deltas, **options)).reshape(-1) if select else np.zeros(0)


def _slices(flat: Values) -> Delta:
    def block(start: int, count: int, base: Values | None = None) -> Values:
        return flat[start : start + count]

    return block


def _rows(left: Values, right: Values) -> Delta:
    columns = right.shape[1]

    def block(start: int, count: int, base: Values | None = None) -> Values:
        return (left[start // columns : (start + count) // columns] @ right).reshape(-1)

    return block


def generator(seed: int, name: str, index: int) -> np.random.Generator:
    """Random numbers for one input's tensor: a function of the seed, its name and the input's number."""
    digest = hashlib.sha256(f"{seed}\0{index}\0{name}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
