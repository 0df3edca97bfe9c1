"""Taggers: an encoder with a text tower and a vocabulary, or an image classifier with its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from priorkit.core.errors import InputError, nearest
from priorkit.models.folder import read_json, tensor_files
from priorkit.models.pretrained import load_preprocessor, load_pretrained, refuse_missing_tensors
from priorkit.models.vision.encoder import zero_shot_head
from priorkit.models.vision.equal_names import warn_of_equal_names
from priorkit.models.vision.loading import check_encoder, load_encoder

if TYPE_CHECKING:
    from PIL import Image

TaggerKind = Literal["encoder", "classifier"]


def check_tagger(folder: Path, vocabulary: Sequence[str] = ()) -> TaggerKind:
    """The kind of a tagger, from headers.

    Args:
        folder: of the model.
        vocabulary: the tags, which must be among a classifier's labels.

    Raises:
        InputError: neither an encoder with a text tower nor an image-classification model, or it does not know a tag.
    """
    config = read_json(folder / "config.json")
    if "text_config" in config and "vision_config" in config:
        check_encoder(folder)
        return "encoder"
    architectures = " ".join(config.get("architectures") or [])
    if "ForImageClassification" in architectures or "architecture" in config:  # the latter in timm's layout
        tensor_files(folder)
        # timm's layout has its labels in another form, which only loading the model reads.
        if labels := config.get("id2label"):
            _refuse_unknown_tags(vocabulary, [str(label) for label in labels.values()], folder)
        return "classifier"
    raise InputError(
        f"'{config.get('model_type', '?')}' cannot tag images; expected an encoder with a text tower, or an "
        "image-classification model",
        where=str(folder),
    )


@dataclass
class Tagger:
    """Scores images for tags.

    Attributes:
        tags: the tags, in the order of the scores.
        prepare: prepares one image for ``score``.
        score: prepared images to fp32 scores ``[images, tags]`` on the CPU: cosine similarities of an
            encoder, probabilities of a classifier.
    """

    tags: tuple[str, ...]
    prepare: Callable[[Image.Image], Any]
    score: Callable[[list[Any]], Tensor]


def load_tagger(
    folder: Path, kind: TaggerKind, vocabulary: Sequence[str], templates: Sequence[str], device: torch.device
) -> Tagger:
    """Load a tagger.

    Args:
        folder: of the model.
        kind: from :func:`check_tagger`.
        vocabulary: the tags; for a classifier empty (all labels) or a subset of its labels.
        templates: an encoder's prompt templates; ``{}`` is replaced by the tag.
        device: of the model.

    Raises:
        InputError: it cannot be loaded, or a tag is not one of its labels.
    """
    return (
        _encoder_tagger(folder, vocabulary, templates, device)
        if kind == "encoder"
        else _classifier_tagger(folder, vocabulary, device)
    )


def _encoder_tagger(
    folder: Path, vocabulary: Sequence[str], templates: Sequence[str], device: torch.device
) -> Tagger:
    encoder = load_encoder(folder)
    encoder.model.to(device)
    warn_of_equal_names(encoder, vocabulary, templates)
    with torch.no_grad():
        head = zero_shot_head(encoder, vocabulary, templates)

    def score(prepared: list[Tensor]) -> Tensor:
        return encoder.encode_images(encoder.batch(prepared)) @ head.T

    return Tagger(tuple(vocabulary), encoder.prepare, score)


def _refuse_unknown_tags(vocabulary: Sequence[str], labels: Sequence[str], folder: Path) -> None:
    known = set(labels)
    unknown = [tag for tag in vocabulary if tag not in known]
    if unknown:
        raise InputError(
            f"{len(unknown)} tags are not among the model's {len(labels)} labels, such as '{unknown[0]}'",
            where=str(folder),
            hint=nearest(unknown[0], labels, only_close=True),
        )


def _classifier_tagger(folder: Path, vocabulary: Sequence[str], device: torch.device) -> Tagger:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    loaded, info = load_pretrained(AutoModelForImageClassification, folder, dtype=torch.float32)
    model: Any = loaded
    refuse_missing_tensors(info, folder)
    processor = load_preprocessor(AutoImageProcessor, folder)
    model.to(device).eval()
    labels = [str(model.config.id2label[number]) for number in range(model.config.num_labels)]
    _refuse_unknown_tags(vocabulary, labels, folder)
    columns = [labels.index(tag) for tag in vocabulary] if vocabulary else list(range(len(labels)))
    multi_label = model.config.problem_type == "multi_label_classification"

    @torch.no_grad()
    def score(images: list[Image.Image]) -> Tensor:
        pixels = processor(images=images, return_tensors="pt")["pixel_values"].to(device)
        logits = model(pixel_values=pixels).logits.float()
        return (logits.sigmoid() if multi_label else logits.softmax(-1))[:, columns].cpu()

    return Tagger(tuple(labels[column] for column in columns), lambda image: image, score)
