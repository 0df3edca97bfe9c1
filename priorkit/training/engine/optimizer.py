"""AdamW, and Muon for the matrices between embedding and head."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from priorkit.core.process.runtime import has_fast_bf16
from priorkit.training.engine.settings import TrainingSettings
from priorkit.training.objectives.base import Objective

MOMENTUM = 0.95
QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of X, X X^T X and (X X^T)^2 X in an iteration towards an orthogonal matrix (Jordan et al. 2024)."""
ITERATIONS = 5
STACKED_NUMBERS = 2**24
"""Numbers in a stack of matrices that are orthogonalized together, at most."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose matrices are orthogonalized (Jordan et al. 2024, "Muon").

    Updates have the size of AdamW's, 0.2 sqrt(max(rows, columns)) times an orthogonal matrix (Liu et al. 2025), so that
    one learning rate fits both. As ``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"``, which orthogonalizes
    in bf16 everywhere, one matrix after the other. Here it is fp32 where bf16 is emulated (18 to 60 times as fast), and
    matrices of one shape go through together.

    Args:
        groups: matrices with their ``weight_decay``.
        learning_rate: of all groups, until it is set.
    """

    def __init__(self, groups: list[dict[str, Any]], learning_rate: float) -> None:
        super().__init__(groups, {"lr": learning_rate, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update the parameters that have a gradient."""
        for group in self.param_groups:
            for parameters in _stackable(group["params"]):
                update = orthogonalized(torch.stack([self._momentum(each) for each in parameters]))
                size = 0.2 * math.sqrt(max(parameters[0].shape))
                for parameter, one in zip(parameters, update.unbind(), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(one, alpha=-group["lr"] * size)

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(buffer, MOMENTUM)


def _stackable(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Those with a gradient, by shape, not too many at a time."""
    by_shape: dict[torch.Size, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_shape.setdefault(parameter.shape, []).append(parameter)
    for shape, same in by_shape.items():
        most = max(1, STACKED_NUMBERS // shape.numel())
        for start in range(0, len(same), most):
            yield same[start : start + most]


def orthogonalized(matrices: Tensor) -> Tensor:
    """Matrices with all singular values near 1 (0.7 to 1.2), and the singular vectors that they had.

    Args:
        matrices: ``[matrices, rows, columns]``.

    Returns:
        The same shape, in bf16 where the device multiplies it in hardware, else in fp32.
    """
    dtype = torch.bfloat16 if has_fast_bf16(matrices.device) else torch.float32
    x = matrices.to(dtype)
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Optimizer:
    """One or two of torch's optimizers over disjoint parameters, stepped together.

    Args:
        parts: the optimizers.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self._parts = parts
        self._owner = {
            parameter: part for part in parts for group in part.param_groups for parameter in group["params"]
        }

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts, each with its ``learning_rate_scale``."""
        return [group for part in self._parts for group in part.param_groups]

    def set_learning_rate(self, rate: float) -> None:
        """Set every group's learning rate to its multiple of the given one."""
        for group in self.param_groups:
            group["lr"] = rate * group["learning_rate_scale"]

    def step(self) -> None:
        """Update the parameters, then clear the gradients."""
        for part in self._parts:
            part.step()
            part.zero_grad(set_to_none=True)

    def states(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """The state of each parameter: moments, step counts."""
        for part in self._parts:
            yield from part.state.items()

    def state_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        """The state of one parameter, filled in on resume."""
        return self._owner[parameter].state[parameter]


def build_optimizer(objective: Objective, settings: TrainingSettings) -> Optimizer:
    """The optimizer of an objective's trainable parameters.

    Matrices decay, and vectors whose names an objective's ``decays_vector`` accepts; one group per learning rate. With
    ``muon``, matrices that are neither embedding nor output head go to :class:`Muon`.
    """
    by_muon = _hidden_matrices(objective.module) if settings.optimizer == "muon" else set[int]()
    also: Callable[[str], bool] = getattr(objective, "decays_vector", lambda _: False)
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in objective.module.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim >= 2 or also(name)
            key = (id(parameter) in by_muon, objective.learning_rate_scale(name), decays)
            groups.setdefault(key, []).append(parameter)

    def groups_of(muon: bool) -> list[dict[str, Any]]:
        return [
            {
                "params": parameters,
                "weight_decay": settings.weight_decay if decays else 0.0,
                "learning_rate_scale": scale,
            }
            for (part, scale, decays), parameters in groups.items()
            if part is muon
        ]

    parts: list[torch.optim.Optimizer] = []
    if rest := groups_of(False):
        betas = (settings.adam_beta1, settings.adam_beta2)
        parts.append(torch.optim.AdamW(rest, lr=settings.learning_rate, betas=betas, fused=True))
    if matrices := groups_of(True):
        parts.append(Muon(matrices, settings.learning_rate))
    return Optimizer(*parts)


def _hidden_matrices(module: nn.Module) -> set[int]:
    """Ids of the two-dimensional parameters that are neither an embedding's nor the output head's."""
    excluded: set[int] = set()
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            excluded.add(id(part.weight))
        head = getattr(part, "get_output_embeddings", lambda: None)()
        if head is not None:
            excluded.add(id(head.weight))
    return {id(p) for p in module.parameters() if p.ndim == 2 and id(p) not in excluded}
