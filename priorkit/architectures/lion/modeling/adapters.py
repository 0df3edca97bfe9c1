"""The mixture of adapters: bottleneck adapters parallel to every MLP, gated by task type.

    out = h + MLP(norm(h)) + sum_k G_k^t * H_k(h),      H_k(h) = s_k (W_u,k ReLU(W_d,k h + b_d,k) + b_u,k)

``h`` is the residual stream before the MLP's norm, ``G_k^t`` a free vector of model width for each layer,
adapter *k* and task type *t*, without softmax or normalisation (LION's released code).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from priorkit.architectures.lion.modeling.configuration import ADAPTERS, TASK_TYPES
from priorkit.core.errors import InputError


class BottleneckAdapter(nn.Module):
    """One bottleneck adapter; zero at its start, as ``W_u`` and the biases are.

    Args:
        width: the model's.
        bottleneck: the adapter's.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.scale = nn.Parameter(torch.ones(()))

    def reset(self) -> None:
        """``W_d`` Kaiming-uniform, ``W_u`` and the biases zero, the scale one."""
        init.kaiming_uniform_(self.down.weight, a=5**0.5)
        init.zeros_(self.down.bias)
        init.zeros_(self.up.weight)
        init.zeros_(self.up.bias)
        init.ones_(self.scale)

    def forward(self, hidden_BTC: Tensor) -> Tensor:
        """``H(h)``, of the shape of ``h``."""
        return self.scale * self.up(torch.relu(self.down(hidden_BTC)))


class Router(nn.Module):
    """The gates of one layer: a vector of model width for each adapter and task type.

    Vectors, not a matrix, so that weight decay does not apply to them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        for adapter in ADAPTERS:
            for task in TASK_TYPES:
                self.register_parameter(_gate(adapter, task), nn.Parameter(torch.ones(width)))

    def reset(self) -> None:
        """Hard routing: one where adapter and task type belong together, zero elsewhere."""
        for adapter, task_type in zip(ADAPTERS, TASK_TYPES, strict=True):
            for task in TASK_TYPES:
                gate = getattr(self, _gate(adapter, task))
                if task == task_type:
                    init.ones_(gate)
                else:
                    init.zeros_(gate)

    def gates(self, adapter: str) -> Tensor:
        """``[task types, width]``."""
        return torch.stack([getattr(self, _gate(adapter, task)) for task in TASK_TYPES])


def _gate(adapter: str, task: str) -> str:
    return f"{adapter}_on_{task.removesuffix('-level')}"


class Routing:
    """The task types of the rows of the current forward pass; shared by all layers.

    It stays as it is until the next forward pass, so that layers that are recomputed in the backward
    pass (gradient checkpointing) see the same.
    """

    tasks: Tensor | None = None


class LayerAdapters(nn.Module):
    """The adapters parallel to one MLP, and their router.

    Args:
        names: which adapters; see :class:`~priorkit.architectures.lion.modeling.configuration.LionConfig`.
        width: the model's.
        bottleneck: the adapters'.
        router: whether gates are trained.
        routing: holds the task types.
    """

    def __init__(
        self, names: Sequence[str], width: int, bottleneck: int, router: bool, routing: Routing
    ) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict({name: BottleneckAdapter(width, bottleneck) for name in names})
        self.router = Router(width) if router else None
        self._routing = routing
        self._read: Tensor | None = None

    def forward(self, hidden_BTC: Tensor, tasks: Tensor | None) -> Tensor:
        """The sum over adapters.

        Args:
            hidden_BTC: ``h``, ``[batch, time, width]``.
            tasks: int64 ``[batch]``, or ``[batch, time]`` where samples share a row; needed by two
                adapters only.

        Raises:
            ValueError: two adapters and no task types.
        """
        if len(self.adapters) == 1:
            return next(iter(self.adapters.values()))(hidden_BTC)
        if tasks is None:
            raise ValueError("two adapters need the task type of every row: pass task_types")
        total: Tensor | None = None
        for index, (name, adapter) in enumerate(self.adapters.items()):
            output = adapter(hidden_BTC)
            if self.router is not None:
                gate = self.router.gates(name).to(output.dtype)[tasks]
                gated = output * (gate if tasks.ndim == 2 else gate[:, None])
            else:
                chosen = tasks == index
                gated = (
                    output * chosen.to(output.dtype)[(..., None) if tasks.ndim == 2 else (..., None, None)]
                )
            total = gated if total is None else total + gated
        return total if total is not None else torch.zeros_like(hidden_BTC)

    # Hooks are bound methods, so that a deep copy of the model gets its own.

    def read_input(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Remember what the MLP's norm (or the MLP) is given."""
        self._read = arguments[0]

    def read_output(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        """Remember what the MLP's norm gives."""
        self._read = output

    def add(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        """Add the adapters to the layer's output, which is ``h + MLP(norm(h))``."""
        hidden, self._read = self._read, None
        if hidden is None:
            raise RuntimeError("the layer's MLP was not run")
        tasks = self._routing.tasks
        if isinstance(output, tuple):
            return (output[0] + self(hidden, tasks), *output[1:])
        return output + self(hidden, tasks)


def decoder_layers(language_model: nn.Module) -> Sequence[nn.Module]:
    """The layers of a decoder.

    Raises:
        InputError: they are not found.
    """
    for owner in (language_model, getattr(language_model, "decoder", None)):
        for name in ("layers", "h"):
            layers = getattr(owner, name, None)
            if isinstance(layers, nn.ModuleList) and len(layers):
                return list(layers)
    raise InputError(f"no decoder layers found in {type(language_model).__name__}")


_NORMS = ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "final_layer_norm", "ffn_norm")
"""Names of the norm before the MLP, in the order in which they are tried."""


def attach(language_model: nn.Module, layers: Sequence[LayerAdapters], adapter_input: str) -> None:
    """Add adapters parallel to every MLP of a decoder by hooks; its own modules and names stay as they are.

    In a pre-norm layer the MLP comes last, so the layer's output is ``h + MLP(norm(h))`` and the adapters
    are added to that.

    Raises:
        InputError: a layer in which the MLP's input is not found.
    """
    for layer, adapters in zip(decoder_layers(language_model), layers, strict=True):
        post_norm = hasattr(layer, "post_feedforward_layernorm") and not hasattr(layer, _NORMS[0])
        norm = next((module for name in _NORMS if (module := getattr(layer, name, None)) is not None), None)
        mlp = getattr(layer, "mlp", None)
        if post_norm and mlp is not None:
            mlp.register_forward_pre_hook(adapters.read_input)
        elif norm is not None and adapter_input == "residual":
            norm.register_forward_pre_hook(adapters.read_input)
        elif norm is not None:
            norm.register_forward_hook(adapters.read_output)
        else:
            raise InputError(
                f"{type(layer).__name__} has no norm before its MLP that is known "
                f"({', '.join(_NORMS)}), so adapters cannot be attached"
            )
        layer.register_forward_hook(adapters.add)
