"""PyTorch's files of tensors: read by torch's restricted unpickler, mapped into memory, never executed.

``torch.load(..., weights_only=True)`` builds tensors and plain containers and refuses every other object before
it is made. Files written since PyTorch 1.6 are archives, whose tensors are mapped and read when they are used.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from priorkit.core.errors import InputError, is_out_of_memory

SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
"""Of PyTorch's files."""

_ARCHIVE = b"PK\x03\x04"

_INNER = ("state_dict", "model_state_dict", "model", "module", "net")
"""Keys under which training scripts save a state dict, together with an optimizer's and counters."""

_WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, those of an archive mapped into memory.

    Raises:
        InputError: the file is truncated or damaged, holds other objects than tensors and plain containers, or
            no state dict.
    """
    found = _state_dict(load_plain(path))
    if found is None:
        raise InputError("no state dict in this file: tensors by name are expected", where=str(path))
    while found and (lead := next((w for w in _WRAPPERS if all(name.startswith(w) for name in found)), "")):
        found = {name.removeprefix(lead): value for name, value in found.items()}
    return found


def load_plain(path: Path) -> Any:
    """What a file holds: tensors and plain containers of them.

    Raises:
        InputError: as :func:`read_state_dict`.
    """
    with path.open("rb") as stream:
        archive = stream.read(len(_ARCHIVE)) == _ARCHIVE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that it may not read, which it then says
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from None
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if "TorchScript" in str(error):
            raise InputError(
                "a TorchScript archive holds code, which is not loaded here",
                where=str(path),
                hint="where you trust it: torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)",
            ) from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"truncated, damaged or no PyTorch file: {reason}", where=str(path)) from None


def _refused(path: Path, message: str) -> InputError:
    """The error of a file that holds more than tensors and plain containers, or is damaged."""
    named = re.search(r"GLOBAL ([\w.]+)", message) or re.search(
        r"[Uu]nsupported (?:class|global):? ([\w.]+)", message
    )
    if named is None:
        return InputError(
            "damaged, or holds other objects than tensors and plain containers", where=str(path)
        )
    return InputError(
        f"holds an object of {named[1]}; only tensors and plain containers are read, as anything else could run code",
        where=str(path),
        hint="where you trust it, load it in Python and save its state dict: torch.save(model.state_dict(), NEW_FILE)",
    )


def _state_dict(value: Any) -> dict[str, Tensor] | None:
    """The state dict in a value: itself, or under one of the common keys."""
    if not isinstance(value, Mapping):
        return None
    table = cast("Mapping[Any, Any]", value)
    tensors = {
        name: item for name, item in table.items() if isinstance(name, str) and isinstance(item, Tensor)
    }
    inner = next((found for key in _INNER if (found := _state_dict(table.get(key)))), None)
    # Checkpoints may hold single tensors, such as a step, next to the state dict.
    return inner if inner is not None and len(inner) >= len(tensors) else tensors or None
