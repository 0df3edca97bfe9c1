"""The process: rank, device, precision, seeds, allocator. torch is imported where it is used, not before."""

from __future__ import annotations

import ctypes
import os
import platform
import random
import sys
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from priorkit.core.errors import ResourceError
from priorkit.core.process.processors import limit_loaded_threads, prepare_threads

if TYPE_CHECKING:
    import torch

PRECISIONS = Literal["auto", "fp32", "bf16"]


def rank() -> int:
    """This process's number under torchrun, 0 otherwise."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """The number of processes under torchrun, 1 otherwise."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and how to compute.

    Attributes:
        device: the torch device.
        precision: compute dtype, ``fp32`` or ``bf16``; weights stay fp32.
        seed: the run's seed.
    """

    device: torch.device
    precision: Literal["fp32", "bf16"]
    seed: int

    def autocast(self) -> torch.autocast:
        """The context that runs matrix products in the chosen precision."""
        import torch

        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=True
        )


def start(seed: int, device: str = "auto", precision: PRECISIONS = "auto") -> Runtime:
    """Set up the process for computing: device, threads, determinism, seeds, allocator.

    Raises:
        ResourceError: a GPU is asked for and there is none, or it cannot do bf16.
    """
    keep_freed_memory()
    keep_few_kernels()
    prepare_threads()
    # Libraries warn each other of deprecated names; a user can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
    import numpy as np
    import torch

    limit_loaded_threads()
    chosen = choose_device(device)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Else torch fills every tensor it makes before computing into it. No operation here reads what was not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    if chosen.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = False
    return Runtime(chosen, resolve_precision(precision, chosen), seed)


def start_portable(seed: int, device: str = "auto", precision: PRECISIONS = "auto") -> Runtime:
    """As :func:`start`, but ``auto`` is fp32 on every CPU: a model's answers must not depend on the processor."""
    on_cpu = choose_device(device).type == "cpu"
    return start(seed, device, "fp32" if precision == "auto" and on_cpu else precision)


def may_use_gpu(device: str) -> bool:
    """Whether a step will compute on a GPU, as far as is known without loading torch."""
    return device == "cuda" or (device == "auto" and any(Path("/dev").glob("nvidia[0-9]*")))


def choose_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` is on this machine.

    Raises:
        ResourceError: a GPU is asked for and there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ResourceError(
            "no usable CUDA device", where="--device cuda", hint="use --device cpu, or see nvidia-smi"
        )
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def resolve_precision(name: PRECISIONS, device: torch.device) -> Literal["fp32", "bf16"]:
    """The compute dtype that a setting means on a device.

    Raises:
        ResourceError: the device cannot compute in it.
    """
    able = has_fast_bf16(device)
    if name == "bf16" and device.type == "cuda" and not able:
        raise ResourceError(
            "this GPU has no bf16 arithmetic", where="--precision bf16", hint="use --precision fp32"
        )
    if name == "auto":
        return "bf16" if able else "fp32"
    return name


def has_fast_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 matrices in hardware (on CPUs AMX or AVX512-BF16).

    Products then run 4.4 times as fast as in fp32 with AVX512-BF16 and 7 to 9 times with AMX; without either they are
    emulated and slower.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(probe()) for name in probes if (probe := getattr(torch.cpu, name, None)))


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the system.

    Large activations are freed and allocated at every step; faulting them in again costs 15 to 44 % of
    a step on CPUs. Does nothing where the C library has no ``mallopt``.
    """
    mallopt = _libc("mallopt")
    if mallopt is None:
        return
    m_trim_threshold, m_mmap_max = -1, -4
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)


def return_freed_memory() -> None:
    """Return to the system what is free of the memory that :func:`keep_freed_memory` keeps.

    Batches of many shapes leave holes. In ``tune`` of the recipe ``pocket`` a call after 15 s makes 2.2 GB to 1.5 GB, in
    50 ms.
    """
    malloc_trim = _libc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _libc(function: str) -> Any:
    """A function of glibc; None where the C library has none of this name."""
    return getattr(ctypes.CDLL(None), function, None) if platform.system() == "Linux" else None


KERNELS_KEPT = 64
"""oneDNN's compiled kernels kept per process, each for one shape; its own default is 1,024."""


def keep_few_kernels() -> None:
    """Let oneDNN keep fewer kernels, unless the user set how many; it reads this when it makes the first one.

    Batches of conversations come in hundreds of shapes, and a kernel holds buffers of its shape. With 1,024 of them
    the live memory of ``tune`` grew from 0.2 to 0.84 GB in 130 steps of the recipe ``pocket``, with 16 to 0.5 GB; the
    processor time of 120 steps was 45.4 s with 1,024, 45.5 s with 128, 46.6 s with 48 and 47.1 s with 16.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS_KEPT))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results; nothing is imported."""
    installed = {"python": platform.python_version(), "platform": sys.platform}
    for name in (
        "priorkit",
        "torch",
        "transformers",
        "peft",
        "timm",
        "datasets",
        "tokenizers",
        "safetensors",
    ):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def peak_memory() -> int:
    """The largest resident memory of this process so far, in bytes."""
    import resource

    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def peak_memory_of_children() -> int:
    """The largest resident memory of any process that this one started and that has ended, in bytes."""
    import resource

    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * scale
