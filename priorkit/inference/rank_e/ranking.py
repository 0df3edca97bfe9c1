"""Ranks of what images show: among candidate names by text features, or among class centroids."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.core.process import distributed, runtime
from priorkit.core.process.progress import track
from priorkit.data.images.entities import EntityImages, candidate_names, folded_name
from priorkit.models.vision.encoder import Encoder, l2_normalize
from priorkit.models.vision.equal_names import first_alike, warn_of_equal_names
from priorkit.scoring.representations.centroids import assign_folds, centroid_ranks, centroids
from priorkit.scoring.representations.ranks import NearestCandidates, RankCounter, most_similar, true_ranks

logger = logging.getLogger(__name__)


CHUNK = 8192
"""Names whose features are in memory at once."""


@dataclass
class Ranking:
    """Ranks of images and what belongs to them.

    Attributes:
        ranks: float64 ``[images]``, by the average of all templates or by centroids; NaN for an image that
            cannot be ranked.
        candidates: number of candidates.
        confused: for each entity the candidates it is confused with; empty if not requested.
        by_template: ranks of each template; empty if there is only one.
        reverse: ranks among the images of other entities; None if not requested.
        counts: further figures for the manifest.
    """

    ranks: Tensor
    candidates: int
    confused: list[list[str]]
    by_template: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    reverse: Tensor | None = None
    counts: dict[str, int] = field(default_factory=dict[str, int])


def rank_by_names(
    encoder: Encoder,
    entities: EntityImages,
    features: Tensor,
    templates: Sequence[str],
    extra: Sequence[str],
    *,
    batch_size: int,
    confusions: int,
    reverse: bool,
) -> Ranking:
    """Ranks of the true names among all candidates, by the average of the templates and by each template.

    Args:
        encoder: one with a text tower.
        entities: what the images show.
        features: ``[images, dim]`` L2-normalized, on the device.
        templates: prompt templates; ``{}`` is replaced by the name.
        extra: candidate names in addition to the entities'.
        batch_size: texts per forward pass.
        confusions: number of confused names per entity, those most similar to its images on average.
        reverse: whether to rank images for names too.
    """
    names, counts = _candidate_names(entities, extra)
    device, count = features.device, len(entities.entities)
    truth = torch.tensor(entities.entity_of, device=device)
    entity_heads = _entity_heads(encoder, names[:count], templates, batch_size, device)
    counters = [RankCounter(features, heads, truth) for heads in entity_heads]
    nearest = NearestCandidates(centroids(features, truth, count), confusions + 1)
    alike = torch.zeros(len(names), dtype=torch.int64, device=device)
    chunks = _chunks(len(names), count)
    chunks = chunks[runtime.rank() :: runtime.world_size()]
    for first, stop in track(chunks, "rank names", len(chunks), f"x {CHUNK} names"):
        if stop <= count:
            heads = [head[first:stop] for head in entity_heads]
        else:
            heads = [
                head.to(device) for head in text_heads(encoder, names[first:stop], templates, batch_size)
            ]
        for counter, head in zip(counters, heads, strict=True):
            counter.add(head, first)
        alike[first:stop] = first_alike(entity_heads[0], heads[0], first)
        if confusions:
            nearest.add(heads[0], first)
    for counter in counters:
        distributed.total(counter.counts)
    firsts: list[int] = distributed.total(alike).tolist()
    pairs = [(names[first - 1], names[row]) for row, first in enumerate(firsts) if first]
    warn_of_equal_names(encoder, names, templates, alike=pairs)
    return Ranking(
        counters[0].ranks,
        len(names),
        _merged_confusions(nearest, confusions, names) if confusions else [],
        {name: counter.ranks for name, counter in zip(templates, counters[1:], strict=False)},
        _reverse_ranks(entity_heads[0], entities, features) if reverse else None,
        counts,
    )


def rank_by_centroids(
    entities: EntityImages, features: Tensor, folds: int, seed: int, confusions: int
) -> Ranking:
    """Ranks of the true entities' centroids among all; no centroid contains images of the ranked image's fold.

    Args:
        entities: what the images show.
        features: ``[images, dim]`` L2-normalized, on the device.
        folds: number of folds that an entity's images are dealt into.
        seed: of the folds.
        confusions: number of confused entities per entity, those with the most similar centroids.

    Raises:
        InputError: every entity has a single image.
    """
    group = torch.tensor(entities.entity_of, device=features.device)
    dealt = assign_folds([ref.name for ref in entities.images], entities.entity_of, folds, seed)
    ranks = centroid_ranks(features, group, dealt.to(features.device))
    single = int(ranks.isnan().sum())
    if single == len(entities.entities):
        raise InputError(
            "every entity has a single image; none can be held out",
            hint="--by centroids needs two images or more per entity",
        )
    if single:
        logger.warning(f"{single} entities have a single image, which cannot be held out; they have no rank")
    heads = centroids(features, group, len(entities.entities))
    confused: list[list[str]] = []
    if confusions:
        rows = most_similar(heads, heads, confusions + 1)[1].tolist()
        confused = confused_names(rows, confusions, lambda row: entities.entities[row])
    return Ranking(ranks, len(heads), confused, counts={"entities_with_one_image": single})


def confused_names(rows: list[list[int]], count: int, name: Callable[[int], str]) -> list[list[str]]:
    """The most similar candidates of each entity without its true name.

    Args:
        rows: for each entity the candidates by decreasing similarity; entity ``i`` is candidate ``i``.
        count: number of names to keep.
        name: the name of a candidate.
    """
    return [[name(row) for row in similar if row != entity][:count] for entity, similar in enumerate(rows)]


def _candidate_names(entities: EntityImages, extra: Sequence[str]) -> tuple[Sequence[str], dict[str, int]]:
    """All candidates, the ranked entities first, and figures on them for the manifest."""
    # An entity without a usable image has no rank but stays a candidate: otherwise a broken file would change
    # the ranks of all others.
    known = entities.named
    names = candidate_names(known, extra)
    if not extra:
        return names, {}
    listed = {folded_name(name) for name in extra}
    added = sum(folded_name(name) not in listed for name in known)
    if added:
        logger.warning(f"the candidate file lacks {added} of the entities' names; they are added")
    repeats = len(extra) - (len(names) - added)
    if repeats:
        logger.info(f"  {repeats} candidate names repeat others but for case or Unicode form; left out")
    return names, {"names_added": added, "candidates_repeated": repeats}


def _chunks(names: int, entities: int) -> list[tuple[int, int]]:
    """Ranges of names; none holds both entities and others, whatever the number of processes."""
    bounds = [(0, entities), (entities, names)]
    return [
        (first, min(first + CHUNK, stop)) for start, stop in bounds for first in range(start, stop, CHUNK)
    ]


def text_heads(
    encoder: Encoder, names: Sequence[str], templates: Sequence[str], batch_size: int
) -> list[Tensor]:
    """Text features of names: the mean over templates, then those of each template if there are several.

    The mean of L2-normalized features, normalized again, is CLIP's zero-shot head (Radford et al. 2021,
    section 3.1.4).

    Returns:
        fp32 ``[names, dim]`` each, L2-normalized, on the CPU.
    """
    # Adding zero makes every zero positive, as the sum over processes does.
    by_template = [
        torch.cat(list(encoder.encode_texts([template.replace("{}", name) for name in names], batch_size)))
        + 0.0
        for template in templates
    ]
    if len(by_template) == 1:
        return by_template
    return [l2_normalize(torch.stack(by_template).sum(0)), *by_template]


def _entity_heads(
    encoder: Encoder, names: Sequence[str], templates: Sequence[str], batch_size: int, device: Any
) -> list[Tensor]:
    """:func:`text_heads` of the entities' names, on the device; processes share the work."""
    totals: list[Tensor] = []
    batches = list(_ranges(len(names), batch_size))
    size, number = runtime.world_size(), runtime.rank()
    for index, (start, stop) in enumerate(batches):
        # A process without a batch encodes the first one to learn the width.
        if index % size != number and not (index == 0 and number >= len(batches)):
            continue
        heads = text_heads(encoder, names[start:stop], templates, batch_size)
        if not totals:
            totals = [torch.zeros(len(names), head.shape[1], device=device) for head in heads]
        if index % size == number:
            for table, head in zip(totals, heads, strict=True):
                table[start:stop] = head.to(device)
    return [distributed.total(heads) for heads in totals]


def _ranges(count: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, size):
        yield start, min(start + size, count)


def _merged_confusions(nearest: NearestCandidates, count: int, names: Sequence[str]) -> list[list[str]]:
    """The confused names over the chunks of all processes."""
    entities = len(nearest.cosines)
    if distributed.joined():
        size, number = runtime.world_size(), runtime.rank()
        # Padded to one width: a process may have had fewer candidates than are kept.
        cosines = torch.zeros(size, entities, count + 1, device=nearest.cosines.device)
        rows = torch.zeros(size, entities, count + 1, dtype=torch.int64, device=cosines.device)
        filled = nearest.cosines.shape[1]
        cosines[number] = -torch.inf
        cosines[number, :, :filled], rows[number, :, :filled] = nearest.cosines, nearest.rows
        rows[number, :, filled:] = len(names)
        nearest.cosines, nearest.rows = nearest.cosines[:, :0], nearest.rows[:, :0]
        for part, numbers in zip(distributed.total(cosines), distributed.total(rows), strict=True):
            nearest.merge(part, numbers)
    else:
        nearest.merge(nearest.cosines[:, :0], nearest.rows[:, :0])
    similar = [[row for row in rows if row < len(names)] for rows in nearest.rows.tolist()]
    return confused_names(similar, count, lambda row: names[row])


def _reverse_ranks(heads: Tensor, entities: EntityImages, features: Tensor) -> Tensor:
    """For each image its rank for its entity's name, among it and the images of all other entities."""
    group = torch.tensor(entities.entity_of, device=features.device)
    every = torch.arange(len(features), device=features.device)
    counter = RankCounter(heads[group], features, every)
    for index, start in enumerate(range(0, len(features), CHUNK)):
        if index % runtime.world_size() == runtime.rank():
            counter.add(features[start : start + CHUNK], start)
    ranks = 1 + distributed.total(counter.counts).cpu()
    for entity in range(len(heads)):
        rows = (group == entity).nonzero()[:, 0]
        among = true_ranks(heads[group[rows]], features[rows], torch.arange(len(rows), device=rows.device))
        ranks[rows.cpu()] -= among - 1
    return ranks
