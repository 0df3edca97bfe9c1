"""What teachers say of the entity images, computed once per fixed view and cached for later runs.

Their features are those of the student's views at the teachers' own resolution; patch tokens are resampled to the
student's grid and stored in half precision; distributions over names follow from features and the names' features by
the teacher's text tower, which are few.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.data.images.augmentation import View
from priorkit.data.images.pixels import Pixels
from priorkit.inference.images.batches import PreparedImage
from priorkit.inference.images.encode import EncodedImages, encode
from priorkit.inference.images.feature_cache import FeatureCache, cache_folder
from priorkit.inference.images.features import pooled_features
from priorkit.models.vision.encoder import Encoder
from priorkit.training.remediation.views import ViewSchedule

logger = logging.getLogger(__name__)

BATCH = 64
"""Images per forward pass of a teacher."""


@dataclass(frozen=True)
class TeacherTargets:
    """What is distilled from a teacher.

    Attributes:
        features: L2-normalized fp32 ``[views, images, width]``.
        patches: of each view fp16 ``[images, patches, width]``; empty where no term needs them.
        names: L2-normalized fp32 ``[names, width]`` by its text tower; None where no term needs them.
        scale: its inverse temperature.
    """

    features: Tensor
    patches: Sequence[Tensor] = ()
    names: Tensor | None = None
    scale: float = 1.0

    def logits(self, view: Tensor, index: Tensor) -> Tensor | None:
        """Logits over the names fp32 ``[batch, names]`` of images ``index`` in views ``view``; None without names."""
        if self.names is None:
            return None
        return self.scale * self.features[view, index] @ self.names.T

    def patches_of(self, view: Tensor, index: Tensor) -> Tensor:
        """Patch tokens fp16 ``[batch, patches, width]`` of images ``index`` in views ``view``."""
        pairs = zip(view.tolist(), index.tolist(), strict=True)
        return torch.stack([self.patches[number][image] for number, image in pairs])


@dataclass(frozen=True)
class PatchTokens:
    """A transform: the patch tokens of a hidden state on a square grid.

    Attributes:
        layer: number of the hidden state.
        patches: tokens of the grid, a square number; those of another grid are interpolated (bilinear).
    """

    layer: int
    patches: int

    def __call__(self, encoder: Encoder, prepared: list[Tensor]) -> Tensor:
        """fp16 ``[batch, patches, width]`` on the CPU.

        Raises:
            InputError: the teacher's patches form no square grid.
        """
        with torch.no_grad():
            pixels = encoder.on_device(encoder.batch(prepared))
            output = encoder.forward_vision(pixels, hidden_states=True)
        tokens = output.layer(self.layer).float()
        return resampled(tokens, self.patches).half().cpu()


def resampled(tokens: Tensor, patches: int) -> Tensor:
    """Tokens ``[batch, tokens, width]`` of a square grid on another: ``[batch, patches, width]``.

    Raises:
        InputError: one of the two is no square number.
    """
    old, new = math.isqrt(tokens.shape[1]), math.isqrt(patches)
    if old * old != tokens.shape[1] or new * new != patches:
        raise InputError(
            f"patch tokens are compared on square grids, got {tokens.shape[1]} and {patches}",
            where="--teacher-patch-weight",
            hint="use encoders with square images, or leave it out",
        )
    if old == new:
        return tokens
    grid = tokens.transpose(1, 2).unflatten(2, (old, old))
    grid = torch.nn.functional.interpolate(
        grid, (new, new), mode="bilinear", align_corners=False, antialias=new < old
    )
    return grid.flatten(2).transpose(1, 2)


def teacher_features(
    encoder: Encoder,
    pixels: Pixels,
    views: ViewSchedule,
    title: str,
    key: dict[str, Any],
    threads: int = 0,
    patches: PatchTokens | None = None,
) -> list[Tensor]:
    """A teacher's features of every fixed view of every image, from the cache where possible.

    Args:
        encoder: the teacher, on its device; it needs no text tower.
        pixels: the images at the teacher's own resolution.
        views: the student's views; the teacher gets the same ones.
        title: of the progress bar.
        key: JSON-compatible values that decide the features, see :class:`FeatureCache`.
        threads: number of threads that decode.
        patches: patch tokens to take instead of the pooled features.

    Returns:
        Of each view L2-normalized fp32 ``[images, width]``, or what ``patches`` gives.
    """
    what = {"of": "teacher features"} if patches is None else {"of": "teacher patches", **vars(patches)}

    def of_view(number: int) -> EncodedImages:
        def load(_: Encoder, index: int) -> PreparedImage:
            view = views.fixed_view(index, number) if views.fixed else View()
            return PreparedImage(pixels.view(index, view))

        cache = FeatureCache(cache_folder(), {**what, **key, "view": number})
        return encode(
            range(len(pixels)), lambda: encoder, patches or pooled_features, cache, load=load, batch_size=BATCH,
            threads=threads, device=encoder.device, title=title,
        )  # fmt: skip

    encoded = [of_view(number) for number in range(max(1, views.fixed))]
    if all(view.cached for view in encoded):
        logger.info(f"  {title}: features from the cache ({cache_folder()})")
    return [view.features for view in encoded]
