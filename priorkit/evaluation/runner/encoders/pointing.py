"""Asking an encoder where something is: the patch whose feature is most similar to a name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from priorkit.data.images.augmentation import View
from priorkit.data.images.decoding import ImageRef, image_key, upright_size
from priorkit.data.images.region_views import PatchGrid, visible_regions
from priorkit.data.images.regions import ImageRegion
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.inference.answer_cache import AnswerCache
from priorkit.inference.images.batches import encode_batches
from priorkit.models.vision.encoder import Encoder, l2_normalize
from priorkit.models.vision.patch_features import normed_tokens, project_tokens
from priorkit.models.vision.towers import patch_size
from priorkit.scoring.answers.boxes import Box
from priorkit.scoring.representations.pointing import pointing_hits


@torch.no_grad()
def point(
    encoder: Encoder,
    items: Sequence[Item],
    layer: int,
    batch_size: int,
    name: str,
    answer_cache: AnswerCache,
    workers: int = 0,
) -> list[ModelAnswer]:
    """The most similar patch to each item's text, and whether it is one of those that show its box.

    Which patches show a box is decided as in training (:func:`priorkit.data.images.region_views.visible_regions`);
    none does where preparation crops its center away.

    Args:
        encoder: with patch features, see :mod:`priorkit.models.vision.patch_features`.
        items: all with an image.
        layer: number of the hidden state.
        batch_size: items per forward pass; an image is encoded once in each.
        name: of the benchmark.
        answer_cache: answers of this run.
        workers: threads that decode and prepare images.
    """
    texts = list(dict.fromkeys(item.text for item in items))
    features = torch.cat(list(encoder.encode_texts(texts)))
    row = {text: place for place, text in enumerate(texts)}
    grid = PatchGrid(*encoder.prepared_size(), patch_size(encoder.model))

    def patches_of(encoder: Encoder, prepared: list[Tensor]) -> Tensor:
        output = encoder.forward_vision(encoder.on_device(encoder.batch(prepared)), hidden_states=True)
        tokens = output.layer(layer)
        projected = project_tokens(encoder.model, normed_tokens(encoder.model, tokens.flatten(0, 1)))
        return l2_normalize(projected).unflatten(0, tokens.shape[:2]).cpu()

    def answer(batch: Sequence[int]) -> list[tuple[int, bool, float]]:
        refs = {image_key(image): image for place in batch for image in items[place].images[:1]}
        encoded = encode_batches(
            list(refs.values()), encoder, patches_of, batch_size=len(refs), threads=workers
        )
        found = next(encoded).features
        assert found is not None
        place_of = {key: place for place, key in enumerate(refs)}
        answers: list[tuple[int, bool, float]] = []
        for place in batch:
            item = items[place]
            assert item.image is not None
            assert item.box is not None
            right = torch.from_numpy(_right_patches(item.image, item.box, encoder, grid))
            patches = found[place_of[image_key(item.image)]]
            answers.append(pointing_hits(patches, features[row[item.text]], right))
        return answers

    starts = range(0, len(items), batch_size)
    batches = [list(range(start, min(start + batch_size, len(items)))) for start in starts]
    x, y = grid.centers()
    answers: list[ModelAnswer] = []
    for taken, hit, chance in answer_cache.get_or_compute(batches, answer, name):
        shown = f"[{x[taken]:.3f},{y[taken]:.3f}]"
        answers.append(ModelAnswer(shown, taken=taken, hit=hit, chance=chance))
    return answers


def _right_patches(image: ImageRef, box: Box, encoder: Encoder, grid: PatchGrid) -> np.ndarray:
    """The patches that show a box of an image, bool ``[patches]``."""
    prepared = encoder.preprocessing.window(*upright_size(image))
    corners = box.x1, box.y1, box.x2, box.y2
    right = np.zeros(len(grid), dtype=bool)
    for region in visible_regions([ImageRegion("", corners)], View(), prepared, grid):
        right[list(region.patches)] = True
    return right
