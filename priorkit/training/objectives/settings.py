"""The option that contrastive training steps share."""

from __future__ import annotations

from priorkit.core.settings import Settings, option
from priorkit.core.values import Count


class GradientCacheSettings(Settings):
    """How large batches fit in memory."""

    gradient_cache: Count = option(
        0,
        "Images or pairs whose activations are in memory at once, for batches that do not fit; 0 for the "
        "whole batch. The gradient is the same; a step takes about a third longer.",
        advanced=True,
    )
