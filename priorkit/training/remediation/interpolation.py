"""Interpolation between the weights of the original encoder and the tuned one (WiSE-FT)."""

from __future__ import annotations

from typing import Any

import torch


class InterpolationPath:
    """The models between an original and a tuned one (Wortsman et al. 2022, WiSE-FT).

    Args:
        model: the tuned model; :meth:`move_to` changes it in place.
        original: the original model, of the same architecture.
    """

    def __init__(self, model: Any, original: Any) -> None:
        self._model = model
        self._original = dict(original.named_parameters())
        # Unchanged weights need no copy.
        self._tuned = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if not torch.equal(parameter, self._original[name])
        }

    @torch.no_grad()
    def move_to(self, share: float) -> None:
        """Set the weights to ``(1 - share) original + share tuned``; exactly the original at 0, the tuned at 1."""
        parameters = dict(self._model.named_parameters())
        for name, tuned in self._tuned.items():
            original = self._original[name]
            parameters[name].copy_(tuned if share == 1.0 else torch.lerp(original, tuned, share))
