"""The region term of encoder pretraining: patches are matched with the names of what they show, and find its box.

With the regions *R* of a batch, the patches *P_r* that show region *r*, and the patch's feature *f_p*
(:mod:`priorkit.models.vision.patch_features`) of the hidden state that a multimodal model will read::

    L = L_contrastive + w / |R|  sum_r 1/|P_r| sum_p in P_r  L_name(p, r)
                      + b / |R|  sum_r 1/|P_r| sum_p in P_r  L_box(p, r)

    L_name = - log softmax_t (s f_p . g_t) at the text of r          for CLIP
    L_name = - sum_t log sigmoid(z_t (s f_p . g_t + c))              for SigLIP, z_t = 1 at the text of r, else -1
    L_box  = 5 |b_p - b_r|_1 + 2 (1 - GIoU(b_p, b_r))

*t* runs over the distinct texts of the batch's regions, *g_t* are their features by the model's text tower, *s*
and *c* its logit scale and bias. Texts of other regions that hold the patch as well are left out of *t*: they
are true of it. ``b_p`` is the sigmoid of a linear map of the token after the final layer norm, center, width
and height of the box in the view; loss and weights are DETR's (Carion et al. 2020, section 3.1 and appendix A.4).
Name matching follows RegionCLIP's (Zhong et al. 2022), with patches in place of pooled boxes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from priorkit.core.boxes import Corners
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

ROWS = 16384
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
        """A row for each patch of each region of a batch.

        Args:
            indices: the images.
            visible: the regions of each in its view.

        Returns:
            ``image``, ``patch``, ``text`` int64 ``[rows]``: the patch and the row of ``keys`` with the region's
            text; ``others`` int64 ``[rows, most]``: rows of ``keys`` with texts that are true of the patch
            too, padded with its own; ``weight`` fp32 ``[rows]``: one over the region's patches; ``box`` fp32
            ``[rows, 4]``: center, width and height; ``keys`` int64 ``[texts]``: numbers of the distinct texts,
            the same in all processes; ``tokens`` of these texts; ``regions``, their number.
        """
        rows: list[tuple[int, int, int, float, Corners]] = []
        held: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, (index, regions) in enumerate(zip(indices, visible, strict=True)):
            for region in regions:
                text = self._number[self._regions[index][region.number].text]
                for patch in region.patches:
                    rows.append((place, patch, text, 1 / len(region.patches), region.box))
                    held[place, patch].append(text)
        numbers = sorted({row[2] for row in rows})
        column = {number: place for place, number in enumerate(numbers)}
        most = max((len(set(texts)) for texts in held.values()), default=1)
        others = [[column[text] for text in sorted({*held[place, patch]})] for place, patch, *_ in rows]
        texts = [column[row[2]] for row in rows]
        padded = [row + [text] * (most - len(row)) for row, text in zip(others, texts, strict=True)]
        boxes = torch.tensor([row[4] for row in rows]).reshape(-1, 4)
        return {
            "image": torch.tensor([row[0] for row in rows], dtype=torch.long),
            "patch": torch.tensor([row[1] for row in rows], dtype=torch.long),
            "text": torch.tensor(texts, dtype=torch.long),
            "others": torch.tensor(padded, dtype=torch.long).reshape(-1, most),
            "weight": torch.tensor([row[3] for row in rows]),
            "box": box_convert(boxes, "xyxy", "cxcywh"),
            "keys": torch.tensor(numbers, dtype=torch.long),
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
        counts = torch.tensor([images, regions], dtype=torch.float64, device=tokens.device)
        all_images, all_regions = distributed.total(counts).tolist()
        share = all_images / max(all_regions, 1)
        normed = normed_tokens(self._encoder.model, tokens[batch["image"], batch["patch"]])
        total = contrastive
        number = torch.tensor(float(regions), device=tokens.device)
        metrics = {"contrastive": contrastive, "regions_per_image": number}
        if self.weights.names:
            metrics["region"] = share * self._name_loss(batch, normed, captions, chunk)
            total = total + self.weights.names * metrics["region"]
        if self._box_head is not None:
            predicted = self._box_head(normed).float().sigmoid()
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

        def row_losses(rows: dict[str, Tensor]) -> tuple[Tensor]:
            features = l2_normalize(project_tokens(model, rows["normed"]))
            logits = similarity_logits(features, texts, scale)
            return (name_loss(logits, column[rows["text"]], column[rows["others"]], bias),)

        rows = {"normed": normed, "text": batch["text"], "others": batch["others"]}
        return (batch["weight"] * gradient_cached_forward(row_losses, rows, ROWS)[0]).sum()

    def _window(self, index: int) -> Corners:
        """The part of an image that is prepared; its size is read from its header."""
        return self._encoder.preprocessing.window(*upright_size(self._images[index]))


def region_texts(regions: Sequence[tuple[ImageRegion, ...]]) -> list[str]:
    """The distinct texts of all regions, in their order."""
    return list(dict.fromkeys(region.text for row in regions for region in row))
