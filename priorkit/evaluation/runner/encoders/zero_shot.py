"""Putting a benchmark's items to an encoder: options and texts ranked by cosine similarity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from priorkit.data.images.decoding import image_key
from priorkit.evaluation.runner.encoders.pointing import point
from priorkit.evaluation.tasks.base import Task
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.inference.answer_cache import AnswerCache
from priorkit.inference.images.batches import encode_batches
from priorkit.inference.images.features import pooled_features
from priorkit.models.vision.encoder import Encoder, zero_shot_head
from priorkit.models.vision.equal_names import warn_of_equal_names
from priorkit.models.vision.loading import load_encoder
from priorkit.scoring.representations.ranks import most_similar, true_ranks


def load_for_ranking(folder: Path, device: torch.device) -> Encoder:
    """Load an encoder onto a device.

    Raises:
        InputError: it cannot be loaded.
    """
    encoder = load_encoder(folder)
    encoder.model.to(device)
    return encoder


@torch.no_grad()
def compare(
    encoder: Encoder,
    items: Sequence[Item],
    task: Task,
    templates: Sequence[str],
    batch_size: int,
    name: str,
    answer_cache: AnswerCache,
    workers: int = 0,
    region_layer: int = -2,
) -> list[ModelAnswer]:
    """Answers of an encoder to choices (each option through the templates), retrieval or pointing (texts as they are).

    All items have an image; ``region_layer`` is the hidden state whose patches are compared with texts.
    """
    if task.patches:
        return point(encoder, items, region_layer, batch_size, name, answer_cache, workers)
    images = _embed_images(encoder, items, batch_size, name, answer_cache, workers)
    if not task.multiple_choice:
        return _rank_texts(encoder, images, items, name)
    texts = list(dict.fromkeys(choice for item in items for choice in item.choices))
    warn_of_equal_names(encoder, texts, templates, name)
    head = zero_shot_head(encoder, texts, templates).cpu()
    row = {text: index for index, text in enumerate(texts)}
    answers: list[ModelAnswer] = []
    for item, image in zip(items, images, strict=True):
        cosines = head[[row[choice] for choice in item.choices]] @ image
        taken = int(cosines.argmax())
        answers.append(ModelAnswer(item.choices[taken], templates[0], taken))
    return answers


def _rank_texts(encoder: Encoder, images: Tensor, items: Sequence[Item], name: str) -> list[ModelAnswer]:
    texts = list(dict.fromkeys(item.text for item in items))
    row = {text: index for index, text in enumerate(texts)}
    warn_of_equal_names(encoder, texts, source=name)
    features = torch.cat(list(encoder.encode_texts(texts)))
    truth = torch.tensor([row[item.text] for item in items])
    ranks = true_ranks(images, features, truth)
    nearest = most_similar(images, features, 1)[1][:, 0]
    return [
        ModelAnswer(texts[best], taken=best, rank=rank)
        for best, rank in zip(nearest.tolist(), ranks.tolist(), strict=True)
    ]


def _embed_images(
    encoder: Encoder,
    items: Sequence[Item],
    batch_size: int,
    name: str,
    answer_cache: AnswerCache,
    workers: int,
) -> Tensor:
    """Normalised features of the items' images, ``[items, width]`` fp32; each image is encoded once."""
    refs = {image_key(item.image): item.image for item in items if item.image is not None}
    images = list(refs.values())
    starts = range(0, len(images), batch_size)
    batches = [list(range(start, min(start + batch_size, len(images)))) for start in starts]

    def embed(batch: Sequence[int]) -> list[list[float]]:
        references = [images[index] for index in batch]
        encoded = encode_batches(
            references, encoder, pooled_features, batch_size=len(references), threads=workers
        )
        features = next(encoded).features
        assert features is not None
        return features.tolist()

    features = torch.tensor(answer_cache.get_or_compute(batches, embed, name))
    row = {key: index for index, key in enumerate(refs)}
    return features[[row[image_key(item.image)] for item in items if item.image is not None]]
