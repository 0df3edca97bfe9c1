"""The option shared by steps that train with a contrastive loss."""

from __future__ import annotations

from priorkit.core.options.settings import Settings, option
from priorkit.core.options.values import Count


class GradientCacheSettings(Settings):
    """How large contrastive batches fit in memory."""

    gradient_cache: Count = option(
        0,
        "Gradient caching (GradCache): images or pairs whose activations are in memory at a time; 0 for the "
        "full batch. Same gradient; a step takes about a third longer.",
        advanced=True,
    )
