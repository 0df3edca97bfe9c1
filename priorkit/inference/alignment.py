"""Features of image-text pairs by a language model and image encoders, and how well they align.

Hidden states of all layers need not fit in memory: they are written to files and read layer by layer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.core.interval import Interval
from priorkit.core.process import runtime
from priorkit.core.process.progress import track
from priorkit.data.images.decoding import ImageRef
from priorkit.inference.images.batches import encode_batches
from priorkit.inference.images.features import LayerFeatures
from priorkit.models.language.causal_lm import load_llm
from priorkit.models.language.hidden_states import TextPooling, pooled_hidden_states
from priorkit.models.language.tokenizer import load_tokenizer
from priorkit.models.vision.loading import load_encoder
from priorkit.scoring.representations.cka import cka_interval
from priorkit.scoring.representations.layer_selection import (
    SelectedMaximum,
    layer_overlaps,
    permuted_maxima,
    resampled_maxima,
    selected_maximum,
)
from priorkit.scoring.representations.neighbors import magnitude_quantile, nearest_neighbors

logger = logging.getLogger(__name__)


EncoderPooling = Literal["auto", "class", "mean", "pooled"]
"""How an image's tokens become one vector; ``pooled`` is the encoder's pooled feature, which has no layers."""


@dataclass(frozen=True)
class Representation:
    """Features of one model, layer by layer.

    Attributes:
        features: ``[layers, pairs, width]`` fp32, mapped from a file.
        layers: their numbers; -1 for the pooled feature.
        bound: features are clamped to ``[-bound, bound]``; 0 for no clamp.
        neighbours: int64 ``[pairs, k]`` of each layer.
    """

    features: Tensor
    layers: tuple[int, ...]
    bound: float
    neighbours: list[Tensor]

    def layer(self, index: int) -> Tensor:
        """One layer ``[pairs, width]``, clamped."""
        return _clamped(self.features[index], self.bound)


@dataclass(frozen=True)
class RepresentationReader:
    """Computes the features of models into files and finds each pair's nearest neighbours.

    Attributes:
        folder: folder of the files.
        started: the run's device and precision; the precision is that of the models only.
        batch_size: images or texts per forward pass.
        neighbours: k, the number of nearest neighbours.
        clamp: quantile of absolute values, over all layers, that features are clamped to as in platonic-rep;
            1 for no clamp.
    """

    folder: Path
    started: runtime.Runtime
    batch_size: int
    neighbours: int
    clamp: float

    def texts(
        self,
        llm_folder: Path,
        texts: Sequence[str],
        words: Sequence[str],
        pooling: TextPooling,
        max_length: int,
    ) -> Representation:
        """Hidden states of a language model, pooled over each text's tokens.

        Args:
            llm_folder: of the language model.
            texts: one per pair.
            words: numbers of hidden states as given; all if empty.
            pooling: how a text's tokens become one vector.
            max_length: tokens beyond are cut off.
        """
        llm, tokenizer = load_llm(llm_folder).to(self.started.device).eval(), load_tokenizer(llm_folder)
        layers = _layers(words, int(llm.config.num_hidden_layers) + 1)
        limit = min(max_length, int(getattr(llm.config, "max_position_embeddings", max_length)))
        batches = pooled_hidden_states(llm, tokenizer, texts, layers, pooling, self.batch_size, limit)
        return self._representation("texts", "language model", batches, len(texts), layers)

    def images(
        self,
        encoder_folder: Path,
        number: int,
        name: str,
        images: Sequence[ImageRef],
        words: Sequence[str],
        pooling: EncoderPooling,
        threads: int,
    ) -> Representation:
        """Hidden states of an encoder, pooled over each image's tokens.

        Args:
            encoder_folder: of the encoder.
            number: of the encoder, from 0.
            name: the encoder as given, for messages.
            images: one per pair.
            words: numbers of hidden states as given; all if empty.
            pooling: how an image's tokens become one vector.
            threads: number of threads that decode.

        Raises:
            InputError: no class token where one is required, or images can no longer be read.
        """
        encoder = load_encoder(encoder_folder, text=False)
        encoder.model.to(self.started.device)
        shape = encoder.shape
        # Stages of convolutional and hierarchical nets differ in width: only the pooled feature is comparable.
        uneven = len(set(shape.widths)) != 1
        if uneven and pooling != "pooled":
            logger.warning(f"{name}: its layers differ in width; its pooled feature is taken")
        if pooling == "class" and not shape.prefix:
            raise InputError("has no class token", where=name, hint="use --encoder-pooling mean or auto")
        if uneven or pooling == "pooled":
            layers, transform = [-1], LayerFeatures((), "auto")
        else:
            layers = _layers(words, len(shape.widths))
            transform = LayerFeatures(layers, pooling)
        batches = encode_batches(
            images, encoder, transform, batch_size=self.batch_size, threads=threads, skip_broken=True
        )
        features = (batch.features for batch in batches if batch.features is not None)
        title = f"encoder {number + 1}"
        return self._representation(f"images-{number}", title, features, len(images), layers)

    def _representation(
        self, name: str, title: str, batches: Iterable[Tensor], items: int, layers: Sequence[int]
    ) -> Representation:
        with self.started.autocast():
            features = self._written(name, batches, items, len(layers))
        bound = 0.0
        if self.clamp != 1:
            parts = [part for layer in features for part in layer.split(1 << 14)]
            bound = magnitude_quantile(parts, self.clamp)
        neighbours = [
            nearest_neighbors(_clamped(layer, bound).to(self.started.device), self.neighbours).cpu()
            for layer in track(features.unbind(), title, len(layers), "layers")
        ]
        return Representation(features, tuple(layers), bound, neighbours)

    def _written(self, name: str, batches: Iterable[Tensor], items: int, layers: int) -> Tensor:
        """Features ``[layers, pairs, width]`` mapped from a file that holds the batches."""
        file: Any = None
        done = 0
        path = self.folder / f"{name}-{runtime.rank()}.f32"
        for batch in track(batches, name, -(-items // self.batch_size), "batches"):
            if file is None:
                file = np.memmap(path, np.float32, "w+", shape=(layers, items, batch.shape[2]))
            file[:, done : done + len(batch)] = batch.transpose(0, 1).numpy()
            done += len(batch)
        if done != items:
            raise InputError(f"{items - done} images can no longer be read", where="PAIRS")
        return torch.from_numpy(file)


@dataclass(frozen=True)
class Alignment:
    """Mutual k-nearest neighbours of two representations.

    Attributes:
        scores: float64 ``[layers of the first, layers of the second]``, mean overlap of every pair of layers.
        overlap: float64 ``[pairs]``, share of common neighbours of each pair at the best pair of layers.
        best: indices of the best pair of layers.
        resampled: float64 ``[resamples]``, the maximum over pairs of layers in bootstrap samples of the pairs.
    """

    scores: Tensor
    overlap: Tensor
    best: tuple[int, int]
    resampled: NDArray[np.float64]

    @property
    def value(self) -> float:
        """The score of the best pair of layers."""
        return float(self.scores[self.best])


def align(first: Representation, second: Representation, seed: int, resamples: int) -> Alignment:
    """Compare the nearest neighbours of every pair of layers.

    Args:
        first, second: of the same pairs.
        seed: of the resampling.
        resamples: bootstrap samples of the pairs.
    """
    k = first.neighbours[0].shape[1]
    overlaps = layer_overlaps(first.neighbours, second.neighbours)
    scores = overlaps.double().mean(0) / k
    row, column = divmod(int(scores.flatten().argmax()), len(second.layers))
    maxima = resampled_maxima(overlaps, k, seed=seed, resamples=resamples)
    return Alignment(scores, overlaps[:, row, column].double() / k, (row, column), maxima)


def judge_alignments(
    texts: Representation,
    images: Sequence[Representation],
    alignments: Sequence[Alignment],
    seed: int,
    permutations: int,
) -> tuple[list[SelectedMaximum], SelectedMaximum]:
    """Intervals and null distributions of mutual k-NN that choose the layers as the measurement does.

    Args:
        texts: of the language model.
        images: of the encoders.
        alignments: of each encoder.
        seed: of the permutations.
        permutations: of the pairs.

    Returns:
        Those of each encoder, and of their mean.
    """
    permuted = permuted_maxima(
        texts.neighbours, [one.neighbours for one in images], seed=seed, permutations=permutations
    )  # [permutations, encoders]
    each = [
        selected_maximum(alignment.value, alignment.resampled, permuted[:, number])
        for number, alignment in enumerate(alignments)
    ]
    value = float(np.mean([alignment.value for alignment in alignments]))
    resampled = np.mean([alignment.resampled for alignment in alignments], axis=0)
    return each, selected_maximum(value, resampled, permuted.mean(1))


def table_columns(
    alignment: Alignment, texts: Representation, images: Representation, judged: SelectedMaximum, cka: bool
) -> dict[str, int | float]:
    """An encoder's columns of ``table.parquet``.

    Args:
        alignment: of the two representations.
        texts: of the language model.
        images: of the encoder.
        judged: mutual k-NN at the best pair of layers, with its interval and null.
        cka: whether to add linear CKA of these layers, plain and unbiased.
    """
    row, column = alignment.best
    columns: dict[str, int | float] = {"llm_layer": texts.layers[row], "encoder_layer": images.layers[column]}
    columns |= _interval_columns("mutual_knn", judged.interval) | selection_columns(judged)
    if cka:
        first, second = texts.layer(row), images.layer(column)
        columns |= _interval_columns("cka", cka_interval(first, second, unbiased=False))
        columns |= _interval_columns("cka_unbiased", cka_interval(first, second, unbiased=True))
    return columns


def log_alignment(name: str, judged: SelectedMaximum) -> None:
    """Print mutual k-NN next to what unrelated representations reach."""
    value = judged.interval
    logger.info(
        f"  {name}: mutual k-NN {value.value:.4f} [{value.low:.4f}, {value.high:.4f}], unrelated ones up to "
        f"{judged.null_high:.4f} (p = {judged.p_value:.3g})"
    )


def selection_columns(judged: SelectedMaximum) -> dict[str, float]:
    """What choosing the layers adds, and the null distribution."""
    return {
        "selection_bias": judged.selection_bias,
        "null_mean": judged.null_mean,
        "null_high": judged.null_high,
        "p_value": judged.p_value,
    }


def _interval_columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _clamped(values: Tensor, bound: float) -> Tensor:
    return values.clamp(-bound, bound) if bound else values.clone()


def _layers(words: Sequence[str], count: int) -> list[int]:
    """Numbers of hidden states from 0; all of them if none is chosen."""
    return [int(word) % count for word in words] or list(range(count))
