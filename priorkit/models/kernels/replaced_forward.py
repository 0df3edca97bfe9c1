"""Modules that compute in another way for a while."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn


@contextmanager
def replaced_forward(
    models: Sequence[nn.Module], chosen: Callable[[nn.Module], bool], forward: Callable[..., Any]
) -> Generator[None]:
    """Within the context, let the chosen modules of these models compute by another function.

    Args:
        models: whose modules are looked at.
        chosen: whether a module is replaced.
        forward: called with the module and the arguments of its ``forward``.
    """
    owners: list[Any] = [module for model in models for module in model.modules() if chosen(module)]
    for owner in owners:
        owner.forward = partial(forward, owner)
    try:
        yield
    finally:
        for owner in owners:
            del owner.forward
