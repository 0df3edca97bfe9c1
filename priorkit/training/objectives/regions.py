"""The region term of encoder pretraining: patches are matched with the names of what they show, and find its box.

With the regions *R* of a batch, the patches *P_r* that show region *r*, and the patches' features *f_p*
(:mod:`priorkit.models.vision.patch_features`) of the hidden state that a multimodal model will read::

    L = L_contrastive + w / |R|  sum_r 1/|P_r| sum_p in P_r  L_name(p, r)
                      + b / |R|  sum_r 1/|P_r| sum_p in P_r  L_box(p, r)

    L_name = - 1/2 [log softmax_t (s f_p . g_t) at t_r  +  log softmax_q (s f_q . g_tr) at p]     for CLIP
    L_box  = 5 |b_p - b_r|_1 + 2 (1 - GIoU(b_p, b_r))

*t* runs over the distinct texts of the batch's regions, *q* over the patches of the image, as CLIP's loss runs
over texts and images; *g_t* are the texts' features by the model's text tower, *s* its logit scale. Pairs of a
patch and a text of another region that shows it are true and left out of both sums. For SigLIP, with its bias
*c*, each softmax becomes the sum of ``- log sigmoid(z (s f . g + c))`` over the same pairs, z = 1 for the true one
and -1 for the others. ``b_p`` is the sigmoid of a linear map of the token after the final layer norm, center,
width and height of the box in the view; loss and weights are DETR's (Carion et al. 2020, section 3.1 and appendix
A.4). Matching regions with names follows RegionCLIP (Zhong et al. 2022), with patches instead of pooled boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from priorkit.core.boxes import FULL_IMAGE, Corners
from priorkit.core.process import distributed
from priorkit.data.images.augmentation import View
from priorkit.data.images.decoding import ImageRef, upright_size
from priorkit.data.images.region_views import PatchGrid, VisibleRegion, visible_regions
from priorkit.data.images.regions import ImageRegion
from priorkit.models.vision.encoder import Encoder, l2_normalize
from priorkit.models.vision.patch_features import check_patch_features, normed_tokens, project_tokens
from priorkit.models.vision.towers import depth, patch_size
from priorkit.training.objectives.base import Loss
from priorkit.training.objectives.captions import Captions
from priorkit.training.objectives.contrastive_losses import MAX_LOGIT_SCALE, similarity_logits
from priorkit.training.objectives.gradient_cache import gradient_cached_features, gradient_cached_forward
from priorkit.training.objectives.region_losses import box_loss, gathered_texts, name_loss

PATCHES = 16384
"""Patches whose similarities with all texts are in memory at a time."""


@dataclass(frozen=True)
class RegionWeights:
    """What of the regions is trained.

    Attributes:
        names: weight of matching patches with names; 0 for none.
        boxes: weight of the boxes; 0 for none.
        layer: number of the hidden state whose patches are trained.
    """

    names: float
    boxes: float
    layer: int


class EncoderWithBoxHead(nn.Module):
    """An encoder and the head that predicts boxes; the head exists in training only.

    Args:
        encoder: the model.
        width: of its image tower.
    """

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.box_head = nn.Linear(width, 4)
        # All boxes start in the middle, half as wide and high as the image, whatever the seed.
        nn.init.zeros_(self.box_head.weight)
        nn.init.zeros_(self.box_head.bias)

    def get_output_embeddings(self) -> nn.Module:
        """The head, so that Muon leaves it to AdamW."""
        return self.box_head


class RegionTerm:
    """Losses on the regions of image-text pairs.

    Args:
        encoder: CLIP or SigLIP, on its device.
        images: the images of all pairs.
        regions: the regions of each.
        weights: what is trained.
        sigmoid: whether names are matched by SigLIP's sigmoid instead of a softmax.

    Raises:
        InputError: the encoder's patches have no features, or where it puts a box is not known.
    """

    def __init__(
        self,
        encoder: Encoder,
        images: Sequence[ImageRef],
        regions: Sequence[tuple[ImageRegion, ...]],
        weights: RegionWeights,
        *,
        sigmoid: bool,
    ) -> None:
        check_patch_features(encoder.model)
        self.weights, self._sigmoid = weights, sigmoid
        self._encoder, self._images, self._regions = encoder, images, regions
        self._grid = PatchGrid(*encoder.prepared_size(), patch_size(encoder.model))
        self._number = {text: place for place, text in enumerate(region_texts(regions))}
        self._texts = Captions(encoder, list(self._number))
        self._box_head: nn.Linear | None = None
        self.module: nn.Module = encoder.model
        if weights.boxes:
            width = int(encoder.model.config.vision_config.hidden_size)
            self.module = EncoderWithBoxHead(encoder.model, width).to(encoder.device)
            self._box_head = self.module.box_head
        self._prepared = lru_cache(maxsize=1 << 16)(self._window)

    @property
    def reads_last_layer(self) -> bool:
        """Whether the trained hidden state is the last block's output."""
        return self.weights.layer in (-1, depth(self._encoder.model.config))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the term's metrics."""
        parts = {"region": self.weights.names, "region_box": self.weights.boxes}
        return ("contrastive", "regions_per_image", *(name for name, weight in parts.items() if weight))

    def sample(self, index: int, view: View) -> list[VisibleRegion]:
        """The regions of an image in a view."""
        regions = self._regions[index]
        return visible_regions(regions, view, self._prepared(index), self._grid) if regions else []

    def collate(self, indices: Sequence[int], visible: Sequence[list[VisibleRegion]]) -> dict[str, Any]:
        """The patches of each region of a batch, image by image.

        Args:
            indices: the images.
            visible: the regions of each in its view.

        Returns:
            ``image`` int64 ``[images]``: those that show a region. For each of them, padded to the most
            patches: ``patch`` and ``text`` int64 ``[images, most]``, the latter rows of ``keys``; ``weight``
            fp32 ``[images, most]``, one over the region's patches, 0 for padding; ``box`` fp32
            ``[images, most, 4]``, center, width and height. ``keys``: numbers of the distinct texts, the same in
            all processes; ``tokens`` of these texts; ``regions``, their number.
        """
        shown: list[list[tuple[int, int, float, Corners]]] = []
        for index, regions in zip(indices, visible, strict=True):
            own = self._regions[index] if regions else ()
            texts = [self._number[own[region.number].text] for region in regions]
            shown.append(
                [
                    (patch, text, 1 / len(region.patches), region.box)
                    for region, text in zip(regions, texts, strict=True)
                    for patch in region.patches
                ]
            )
        images = [number for number, patches in enumerate(shown) if patches]
        numbers = sorted({text for patches in shown for _, text, *_ in patches})
        column = {number: row for row, number in enumerate(numbers)}
        most = max(map(len, shown))
        shape = len(images), most
        # NumPy's: filling tensors row by row took 10 to 13 ms of a step of 96 images, profiled.
        patch, text = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        weight = np.zeros(shape, dtype=np.float32)
        corners = np.tile(np.array(FULL_IMAGE, dtype=np.float32), (*shape, 1))
        for row, number in enumerate(images):
            patches, names, weights, boxes = zip(*shown[number], strict=True)
            length = len(patches)
            patch[row, :length] = patches
            text[row, :length] = [column[name] for name in names]
            # Padding repeats a true pair, so that it is left out where pairs are.
            patch[row, length:], text[row, length:] = patch[row, 0], text[row, 0]
            weight[row, :length] = weights
            corners[row, :length] = boxes
        return {
            "image": torch.tensor(images, dtype=torch.long),
            "patch": torch.from_numpy(patch),
            "text": torch.from_numpy(text),
            "weight": torch.from_numpy(weight),
            "box": box_convert(torch.from_numpy(corners), "xyxy", "cxcywh"),
            "keys": numbers,
            "tokens": self._texts.batch(numbers) if numbers and self.weights.names else {},
            "regions": sum(map(len, visible)),
        }

    def add_to(
        self,
        contrastive: Tensor,
        images: int,
        batch: dict[str, Any],
        tokens: Tensor,
        captions: Tensor,
        chunk: int,
    ) -> Loss:
        """A loss with the term added, and its parts as metrics.

        The term is a mean over the regions of all processes. The training loop divides by the number of
        images, so each region is weighted by images over regions.

        Args:
            contrastive: summed over this process's images.
            images: their number.
            batch: from :meth:`collate`, on the device.
            tokens: the patches of the layer, ``[images, patches, width]``.
            captions: features of the pairs' texts ``[images, dim]``; they connect a process without regions
                to the gradients of the others.
            chunk: texts whose activations are in memory at a time, 0 for all.
        """
        regions = int(batch["regions"])
        counts = torch.tensor([images, regions], dtype=torch.float64)
        all_images, all_regions = distributed.total(counts).tolist()
        share = all_images / max(all_regions, 1)
        normed = normed_tokens(self._encoder.model, tokens[batch["image"]])
        total = contrastive
        number = torch.full((), float(regions), device=tokens.device)
        metrics = {"contrastive": contrastive, "regions_per_image": number}
        if self.weights.names:
            metrics["region"] = share * self._name_loss(batch, normed, captions, chunk)
            total = total + self.weights.names * metrics["region"]
        if self._box_head is not None:
            places = batch["patch"][..., None].expand(-1, -1, normed.shape[-1])
            predicted = self._box_head(normed.gather(1, places)).float().sigmoid()
            metrics["region_box"] = share * (batch["weight"] * box_loss(predicted, batch["box"])).sum()
            total = total + self.weights.boxes * metrics["region_box"]
        return Loss(total, metrics)

    def _name_loss(self, batch: dict[str, Any], normed: Tensor, captions: Tensor, chunk: int) -> Tensor:
        model = self._encoder.model
        own = captions[:0]
        if batch["tokens"]:
            own = gradient_cached_features(self._encoder.text_features, batch["tokens"], chunk)
        texts, column = gathered_texts(l2_normalize(own), batch["keys"])
        if not len(normed):
            return texts.sum() * 0.0
        scale, bias = model.logit_scale.exp(), model.logit_bias if self._sigmoid else None
        if not self._sigmoid:
            scale = scale.clamp(max=MAX_LOGIT_SCALE)

        def image_losses(images: dict[str, Tensor]) -> tuple[Tensor]:
            features = l2_normalize(project_tokens(model, images["normed"].flatten(0, 1)))
            logits = similarity_logits(features, texts, scale).unflatten(0, images["normed"].shape[:2])
            losses = name_loss(logits, images["patch"], column[images["text"]], bias)
            return ((images["weight"] * losses).sum(dim=1),)

        rows = {"normed": normed, **{name: batch[name] for name in ("patch", "text", "weight")}}
        at_a_time = max(1, PATCHES // normed.shape[1])
        return gradient_cached_forward(image_losses, rows, at_a_time)[0].sum()

    def _window(self, index: int) -> Corners:
        """The part of an image that is prepared; its size is read from its header."""
        return self._encoder.preprocessing.window(*upright_size(self._images[index]))


def region_texts(regions: Sequence[tuple[ImageRegion, ...]]) -> list[str]:
    """The distinct texts of all regions, in their order."""
    return list(dict.fromkeys(region.text for row in regions for region in row))
