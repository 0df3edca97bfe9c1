"""AdamW, and Muon for the matrices between embedding and head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from priorkit.core.errors import ResourceError
from priorkit.training.engine.settings import TrainingSettings
from priorkit.training.objectives.base import Objective


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

    Matrices decay, and vectors whose names an objective's ``decays_vector`` accepts; one group per learning rate. With ``muon``, matrices that are neither
    embedding nor output head go to Muon, whose updates are scaled to the size of AdamW's
    (``match_rms_adamw``: 0.2 sqrt(max(rows, columns)), Liu et al. 2025), so that one learning rate fits both.

    Raises:
        ResourceError: this torch has no Muon.
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
        parts.append(_muon()(matrices, lr=settings.learning_rate, adjust_lr_fn="match_rms_adamw"))
    return Optimizer(*parts)


def _muon() -> Any:
    muon = getattr(torch.optim, "Muon", None)
    if muon is None:
        raise ResourceError(
            f"torch {torch.__version__} has no Muon",
            where="--optimizer muon",
            hint="upgrade torch, or use adamw",
        )
    return muon


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
