"""Processes under torchrun: start, wait for each other, sum numbers and gradients, exchange text.

Everything works in a single process too. torch is imported where it is used, so that importing this costs nothing.

With GPUs the process group has two backends: NCCL for tensors on the device, gloo for tensors in main memory.
Counts, flags and texts that a process knows are exchanged in main memory, so that no process waits for its GPU.
"""

from __future__ import annotations

import atexit
import datetime
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from priorkit.core.process.runtime import Runtime, rank, world_size

if TYPE_CHECKING:
    from torch import Tensor, nn

BUCKET_BYTES = 64 << 20
"""Gradients are summed in buckets of this size: few large messages instead of many small ones."""


def joined() -> bool:
    """Whether this process is in a process group; torch is not imported to find out."""
    module = sys.modules.get("torch.distributed")
    return module is not None and bool(module.is_initialized())


def start(runtime: Runtime) -> None:
    """Join the process group where torchrun started several processes."""
    if world_size() > 1 and not joined():
        import torch.distributed as dist

        backend = "cpu:gloo,cuda:nccl" if runtime.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=datetime.timedelta(minutes=30))
        atexit.register(stop)


def stop() -> None:
    """Leave the process group."""
    if joined():
        import torch.distributed as dist

        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all processes."""
    if joined():
        import torch.distributed as dist

        dist.barrier()


def share(count: int) -> range:
    """This process's contiguous part of ``range(count)``; sizes differ by one at most."""
    size, number = world_size(), rank()
    return range(count * number // size, count * (number + 1) // size)


def total(values: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place; of a tensor in main memory no process waits for its GPU."""
    if joined():
        import torch.distributed as dist

        dist.all_reduce(values)
    return values


def all_texts(text: str) -> list[str]:
    """A text from each process, by rank: each writes its row of a table of bytes, and the rows are summed."""
    if not joined():
        return [text]
    import numpy as np
    import torch

    content = np.frombuffer(text.encode(), dtype=np.uint8)
    lengths = torch.zeros(world_size(), dtype=torch.int64)
    lengths[rank()] = len(content)
    longest = max(1, int(total(lengths).max()))
    table = torch.zeros(world_size(), longest, dtype=torch.uint8)
    table[rank(), : len(content)] = torch.from_numpy(content.copy())  # pyright: ignore[reportUnknownMemberType]
    rows = total(table).numpy()
    sizes = cast("list[int]", lengths.tolist())  # pyright: ignore[reportUnknownMemberType]
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process, so that all of them act alike."""
    if not joined():
        return flag
    import torch

    return bool(total(torch.tensor([int(flag)])).item())


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum gradients over all processes; a parameter that one process has no gradient for counts as zero.

    One that no process used stays without, as in a single process: the optimizer skips it.
    """
    if not joined():
        return
    import torch

    parameters = [parameter for parameter in parameters if not is_sharded(parameter)]
    flags = torch.tensor([int(parameter.grad is not None) for parameter in parameters])
    used = cast("list[int]", total(flags).tolist())  # pyright: ignore[reportUnknownMemberType]
    bucket: list[Tensor] = []
    size = 0
    for parameter, users in zip(parameters, used, strict=True):
        if not users:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        bucket.append(parameter.grad)
        size += parameter.grad.numel() * parameter.grad.element_size()
        if size >= BUCKET_BYTES:
            _sum_bucket(bucket)
            bucket, size = [], 0
    if bucket:
        _sum_bucket(bucket)


def shard(
    module: nn.Module, layers: Iterable[nn.Module], runtime: Runtime, whole: Iterable[nn.Parameter] = ()
) -> None:
    """Shard a module's parameters over the processes (FSDP2): each layer, then the rest.

    Gradients are then summed by torch in the backward pass. Products run in the runtime's precision,
    sums of gradients and the optimizer in fp32.

    Args:
        module: what is called in the forward pass; its own parameters stay gathered until the backward.
        layers: its repeated parts, gathered one at a time.
        runtime: device and precision.
        whole: parameters that every process keeps in full.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    start(runtime)
    mesh = init_device_mesh(runtime.device.type, (world_size(),))
    dtype = torch.bfloat16 if runtime.precision == "bf16" else torch.float32
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=set(whole))


def gather(module: nn.Module) -> None:
    """Gather a module's sharded parameters, in the first process's main memory, to be saved there.

    Every process calls this; the others keep their parts.
    """
    from torch import nn

    reshard(module)
    made: dict[nn.Parameter, nn.Parameter] = {}  # tied parameters stay tied
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
            if not is_sharded(parameter):
                continue
            if parameter not in made:
                full = local(parameter.detach()).cpu()
                made[parameter] = nn.Parameter(full, parameter.requires_grad) if rank() == 0 else parameter
            setattr(part, name, made[parameter])


def reshard(module: nn.Module) -> None:
    """Share parameters again that a forward pass without a backward pass left gathered."""
    for part in module.modules():
        reshard_part = getattr(part, "reshard", None)  # of torch's FSDPModule, whose import costs seconds
        if reshard_part is not None:
            reshard_part()


def is_sharded(value: Tensor) -> bool:
    """Whether a tensor is shared among the processes."""
    return hasattr(value, "full_tensor")


def local(value: Tensor) -> Tensor:
    """The full value of a sharded tensor, in every process; any other as it is."""
    full = getattr(value, "full_tensor", None)
    return value if full is None else full()


def gradient_scale(module: nn.Module) -> int:
    """What to multiply a loss by so that gradients come out as sums over the processes: torch averages sharded ones."""
    averaged = any(parameter.requires_grad and is_sharded(parameter) for parameter in module.parameters())
    return world_size() if averaged else 1


def _sum_bucket(gradients: list[Tensor]) -> None:
    import torch
    import torch.distributed as dist

    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
