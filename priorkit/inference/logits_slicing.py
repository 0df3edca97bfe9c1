"""The last layer's MLP at the positions whose output is read.

An MLP computes each position separately. Of a prompt only the last position is read, so that the last
layer's MLP at all others is computed for nothing: two thirds of a layer's products in a Llama. Written
answers about images, six layers, one processor: 9 % less time.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def slice_last_mlp(decoder: Any, keep: int) -> Generator[None]:
    """Within the context, the decoder's last hidden state is correct only at the last ``keep`` positions.

    Keys and values of all layers stay as they are. Decoders whose layers are not called ``layers`` or
    ``h``, or have no ``mlp``, are left as they are.

    Args:
        decoder: transformers' decoder of a causal language model.
        keep: at least 1.
    """
    layers = getattr(decoder, "layers", None) or getattr(decoder, "h", None)
    mlp = getattr(layers[-1], "mlp", None) if isinstance(layers, nn.ModuleList) and len(layers) else None
    if not isinstance(mlp, nn.Module) or "forward" in vars(mlp):
        yield
        return
    full_forward = mlp.forward

    def forward(hidden_states: Any, *others: Any, **named: Any) -> Any:
        if not isinstance(hidden_states, Tensor) or hidden_states.dim() != 3 or others or named:
            return full_forward(hidden_states, *others, **named)
        last = full_forward(hidden_states[:, -keep:].contiguous())
        if not isinstance(last, Tensor):  # A mixture of experts may return its router's choices too.
            return full_forward(hidden_states)
        return nn.functional.pad(last, (0, 0, hidden_states.shape[1] - last.shape[1], 0))

    mlp.forward = forward
    try:
        yield
    finally:
        del mlp.forward
