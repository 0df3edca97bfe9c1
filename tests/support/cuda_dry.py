"""CUDA without a GPU: tensors that have a device, a shape and a dtype but no values, and a record of what is done to them.

torch's FakeTensorMode takes ``device="cuda"`` on any machine and raises where tensors of different devices meet. On
top of it :class:`DeviceRecord` counts what a real GPU would execute, and what would make the process wait for it.
Operations whose result depends on values that only the device has get a plausible one, so that a pass runs to its
end: checks succeed, nothing that is looked for as wrong is found. What is in main memory keeps its values.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import priorkit
from priorkit.core.process.runtime import Runtime

aten = torch.ops.aten
ROOT = Path(priorkit.__file__).parent

CUDA = torch.device("cuda", 0)
BF16 = Runtime(CUDA, "bf16", 0)
FP32 = Runtime(CUDA, "fp32", 0)

_NO_KERNEL = {
    "empty",
    "empty_like",
    "empty_strided",
    "detach",
    "_unsafe_view",
    "_reshape_alias",
    "lift_fresh",
    "new_empty",
}
_BY_VALUE = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}
_PRODUCTS = (
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "_scaled_dot_product",
    "_varlen_attn",
    "convolution",
    "scaled_dot_product",
)


@dataclass
class DeviceRecord(TorchDispatchMode):
    """What is done on the device.

    Attributes:
        waits: where the process waits for the device, and for what: reads of values, and copies from main memory
            that are not asynchronous.
        kernels: number of launched operations by name.
        products: dtypes of the operands of matrix products and attention.
    """

    waits: list[str] = field(default_factory=list)
    kernels: Counter[str] = field(default_factory=Counter)
    products: set[torch.dtype] = field(default_factory=set)

    def clear(self) -> None:
        """Forget what was done so far."""
        self.waits.clear()
        self.kernels.clear()
        self.products.clear()

    def __post_init__(self) -> None:
        super().__init__()

    def __hash__(self) -> int:
        return id(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        on_cuda = _on_cuda((args, kwargs))
        if func.namespace == "prim":
            return func(*args, **kwargs)
        if not on_cuda and not _any_fake((args, kwargs)):
            with unset_fake_temporarily():  # what is in main memory keeps its values
                return func(*args, **kwargs)
        if name == "_local_scalar_dense":
            if on_cuda:
                self._wait("read of a value")
            return _scalar(args[0])
        if not on_cuda and name not in _BY_VALUE and name != "index":
            return func(*args, **kwargs)
        if name == "equal":
            self._wait("comparison of values")
            return True
        if name in _BY_VALUE:
            if on_cuda:
                self._wait(name)
            return _sized(name, args)
        if name == "index" and any(
            part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1]
        ):
            if on_cuda:
                self._wait("index by a mask")
            return _indexed(func, args)
        result = func(*args, **kwargs)
        if name in ("_to_copy", "copy_", "_copy_from", "_pin_memory"):
            self._copied(args, kwargs, result)
        if name.startswith(_PRODUCTS):
            self.products |= {part.dtype for part in args[:3] if isinstance(part, Tensor) and part.ndim >= 2}
        if name not in _NO_KERNEL and not _is_view(func) and _on_cuda(result):
            self.kernels[name] += 1
        return result

    def _copied(self, args: Any, kwargs: Any, result: Tensor) -> None:
        source = args[1] if len(args) > 1 and isinstance(args[1], Tensor) else args[0]
        if source.device.type == result.device.type:
            return
        if result.device.type == "cpu":
            self._wait("copy to main memory")
        elif not (kwargs.get("non_blocking") or (len(args) > 2 and args[2] is True)):
            self._wait("copy from main memory")

    def _wait(self, what: str) -> None:
        frame: Any = sys._getframe(2)
        while frame is not None and not Path(frame.f_code.co_filename).is_relative_to(ROOT):
            frame = frame.f_back
        place = "elsewhere"
        if frame is not None:
            place = f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_code.co_name}"
        self.waits.append(f"{what} in {place}")


def _any_fake(values: Any) -> bool:
    return any(isinstance(leaf, FakeTensor) for leaf in torch.utils._pytree.tree_leaves(values))


def _on_cuda(values: Any) -> bool:
    return any(
        isinstance(leaf, Tensor) and leaf.device.type == "cuda"
        for leaf in torch.utils._pytree.tree_leaves(values)
    ) or (
        isinstance(values, tuple)
        and len(values) == 2
        and isinstance(values[1], dict)
        and _device_of(values[1]) == "cuda"
    )


def _device_of(kwargs: dict[str, Any]) -> str:
    device = kwargs.get("device")
    return "" if device is None else torch.device(device).type


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and returns[0].alias_info is not None and not returns[0].alias_info.is_write


def _scalar(value: Tensor) -> Any:
    if value.dtype == torch.bool:
        return True
    return 1.0 if value.dtype.is_floating_point else 0


def _sized(name: str, args: Any) -> Any:
    value = args[0]
    if name == "nonzero":
        return value.new_empty((0, value.ndim), dtype=torch.int64)
    if name == "masked_select":
        return value.new_empty((1,))
    numbers = value.new_empty(value.shape, dtype=torch.int64)
    return value.new_empty((value.shape[0],)), numbers, numbers


def _indexed(func: Any, args: Any) -> Tensor:
    """As if a mask had one entry: the other indices stay."""
    value, indices = args
    places: list[Any] = []
    for part in indices:
        if part is not None and part.dtype in (torch.bool, torch.uint8):
            places += [part.new_zeros(1, dtype=torch.int64)] * part.ndim
        else:
            places.append(part)
    return func(value, places)


class _FusedAttention(TorchFunctionMode):
    """torch's choice of a fused kernel, by its documented rules: without a driver it would take plain attention.

    FlashAttention in half precision without a mask, else memory-efficient attention, which has no grouped heads.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is not torch.nn.functional.scaled_dot_product_attention or args[0].device.type != "cuda":
            return func(*args, **kwargs)
        query, key, value = args[:3]
        if torch.is_autocast_enabled("cuda"):
            query, key, value = (part.to(torch.bfloat16) for part in (query, key, value))
        mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
        dropout, causal, scale = (
            kwargs.get("dropout_p", 0.0),
            kwargs.get("is_causal", False),
            kwargs.get("scale"),
        )
        if mask is None and query.dtype != torch.float32:
            return aten._scaled_dot_product_flash_attention(query, key, value, dropout, causal, scale=scale)[
                0
            ]
        if kwargs.get("enable_gqa") and query.shape[1] != key.shape[1]:
            return func(*args, **kwargs)
        if mask is not None:
            mask = mask.to(query.dtype).expand(*query.shape[:3], key.shape[2])
        return aten._scaled_dot_product_efficient_attention(
            query, key, value, mask, torch.is_grad_enabled(), dropout, causal, scale=scale
        )[0]


@contextmanager
def dry_cuda() -> Generator[DeviceRecord]:
    """Within the context CUDA devices exist, with tensors that have no values; real tensors in main memory mix with them."""
    properties = mock.Mock(total_memory=140 << 30, major=9, minor=0, multi_processor_count=132)
    patches = (
        mock.patch.object(torch.cuda, "is_bf16_supported", return_value=True),
        mock.patch.object(torch.cuda, "get_device_properties", return_value=properties),
        mock.patch.object(torch.cuda, "get_device_capability", return_value=(9, 0)),
        mock.patch.object(torch.cuda, "current_device", return_value=0),
        mock.patch.object(torch.cuda, "device_count", return_value=1),
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
    )
    for patch in patches:
        patch.start()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), DeviceRecord() as record, _FusedAttention():
            yield record
    finally:
        for patch in patches:
            patch.stop()


COUNTS = Path(__file__).parents[1] / "cuda_dry" / "kernels.json"
"""Kernels launched by the forward pass and loss of each objective of the dry tests."""


BREAKS = COUNTS.with_name("breaks.json")
"""Graph breaks of each compiled part."""


def check_count(name: str, found: int, path: Path = COUNTS) -> None:
    """Compare a number with its table; more is a regression.

    With ``PRIORKIT_WRITE_COUNTS`` set the table is written instead.
    """
    table: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if os.environ.get("PRIORKIT_WRITE_COUNTS"):
        table[name] = found
        path.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert found <= table[name], f"{found} {path.stem} instead of {table[name]}: is that meant?"
