"""What a model's layers hold against what it answers: readout gap, and the arbitration between image and prior.

Sources: probes of hidden states against answers, as in Fu et al., "Hidden in plain sight: VLMs overlook their visual
representations" (arXiv 2506.08008); margins by logit lens and the layer where they cross, as in Nooralahzadeh et al.,
"Arbitration Failure, Not Perceptual Blindness" (arXiv 2604.09364), and Golovanevsky et al. (arXiv 2505.17127).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorkit.core.errors import InputError
from priorkit.core.interval import Interval
from priorkit.scoring.statistics.intervals import bootstrap_difference, bootstrap_mean

Floats = NDArray[np.float64]


def readout_gap(
    probes: Mapping[str, ArrayLike],
    answered: ArrayLike,
    clusters: Sequence[str],
    *,
    seed: int,
    resamples: int = 1000,
) -> dict[str, Interval]:
    """Probe accuracy at each place minus the accuracy of the answer, on the same images.

        gap(place) = mean(probe_right(place) - answer_right)

    Positive where the place separates entities that the answer confuses: the information is there and not read out.
    Images without a probe (NaN, an entity with a single image) are left out at all places.

    Args:
        probes: place (encoder, projector, each layer) -> [images], 1 where the probe is right.
        answered: [images], 1 where the answer is right.
        clusters: a key per image; clusters are resampled.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        The gap of each place with its 95 % interval; NaN where no image has a probe.

    Raises:
        InputError: the lengths differ.
    """
    answers = np.asarray(answered, dtype=np.float64).ravel()
    values = {place: np.asarray(probe, dtype=np.float64).ravel() for place, probe in probes.items()}
    for place, probe in values.items():
        if not len(probe) == len(answers) == len(clusters):
            raise InputError(f"{place}: {len(probe)} probes for {len(answers)} answers")
    kept = np.isfinite(answers)
    for probe in values.values():
        kept &= np.isfinite(probe)
    if not kept.any():
        return {place: Interval(math.nan, math.nan, math.nan) for place in values}
    keys = [cluster for cluster, keep in zip(clusters, kept, strict=True) if keep]
    return {
        place: bootstrap_difference(probe[kept], answers[kept], seed=seed, clusters=keys, resamples=resamples)
        for place, probe in values.items()
    }


def arbitration_margin(visual: ArrayLike, prior: ArrayLike) -> Floats:
    """Logit of the visual answer minus that of the prior's answer, by layer.

        margin(image, layer) = logit_layer(visual answer) - logit_layer(prior's answer)

    The visual answer is what the image shows, the prior's answer what the model says without it; the logits are
    those that the model's final norm and head give to the hidden state of each layer (logit lens).

    Args:
        visual: [images, layers].
        prior: [images, layers].

    Returns:
        [images, layers] float64; NaN where either is.

    Raises:
        InputError: the shapes differ.
    """
    first, second = np.asarray(visual, dtype=np.float64), np.asarray(prior, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 2:
        raise InputError(f"expected two arrays [images, layers], got {first.shape} and {second.shape}")
    return first - second


def crossing_layer(margin: ArrayLike) -> NDArray[np.int64]:
    """The first layer from which on the visual answer stays ahead of the prior's: [images].

    The number of layers where it is not ahead at the last one; -1 where a margin is not finite.

    Args:
        margin: [images, layers], from :func:`arbitration_margin`.
    """
    values = np.asarray(margin, dtype=np.float64)
    behind = values <= 0
    layers = values.shape[1]
    last_behind = np.where(behind.any(1), layers - 1 - behind[:, ::-1].argmax(1), -1)
    crossing = last_behind.astype(np.int64) + 1
    crossing[~np.isfinite(values).all(1)] = -1
    return crossing


def mean_margin(
    margin: Floats, clusters: Sequence[str], *, seed: int, resamples: int = 1000
) -> list[Interval]:
    """Mean margin of each layer with its 95 % interval; images with a margin that is not finite are left out.

    Args:
        margin: [images, layers].
        clusters: a key per image; clusters are resampled.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    kept = np.array([bool(np.isfinite(row).all()) for row in margin], dtype=np.bool_)
    if not kept.any():
        return [Interval(math.nan, math.nan, math.nan)] * margin.shape[1]
    keys = [cluster for cluster, keep in zip(clusters, kept.tolist(), strict=True) if keep]
    return [
        bootstrap_mean(margin[kept, layer], seed=seed, clusters=keys, resamples=resamples)
        for layer in range(margin.shape[1])
    ]
