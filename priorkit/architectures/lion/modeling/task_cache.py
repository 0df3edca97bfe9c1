"""A cache of keys and values that knows the task type of each of its rows."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache


class RoutedCache(DynamicCache):
    """A cache whose rows keep their task types when they are selected, repeated or reordered.

    Code that continues from it need not know about task types.

    Args:
        tasks: int64 ``[batch]``.
        **options: of ``DynamicCache``.
    """

    def __init__(self, tasks: Tensor, **options: Any) -> None:
        super().__init__(**options)
        self.tasks = tasks

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        super().batch_select_indices(indices)
        self.tasks = self.tasks[indices.to(self.tasks.device)]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        super().batch_repeat_interleave(repeats)
        self.tasks = torch.repeat_interleave(self.tasks, repeats, dim=0)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder rows, as beam search does."""
        super().reorder_cache(cast("Any", beam_idx))
        self.tasks = self.tasks[beam_idx.to(self.tasks.device)]
