"""Ranking images by names: texts embedded part by part, counted, and let go. A part of ``rank-e``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from priorkit.core import runtime
from priorkit.core.progress import track
from priorkit.data.images.entities import EntityImages, candidate_names, folded_name

if TYPE_CHECKING:
    from torch import Tensor

    from priorkit.models.vision.encoder import Encoder

logger = logging.getLogger(__name__)

PART = 8192
"""Names embedded and counted at once; their features are let go after."""


@dataclass
class Ranked:
    """Ranks ``[images]`` float64 and what belongs to them.

    Attributes:
        ranks: by all templates together, or by centroids; NaN where an image cannot be ranked.
        candidates: number of candidates.
        confused: for each entity the candidates it is confused with; empty where not asked for.
        by_template: template -> ranks; empty where there is only one.
        reverse: ranks among the images of other entities; None where not asked for.
        facts: for the manifest.
    """

    ranks: Tensor
    candidates: int
    confused: list[list[str]]
    by_template: dict[str, Tensor] = field(default_factory=dict[str, Any])
    reverse: Tensor | None = None
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


def wrong_names(rows: list[list[int]], count: int, name: Callable[[int], str]) -> list[list[str]]:
    """The names of the first candidates of each entity that are not its own.

    Args:
        rows: for each entity the candidates by falling similarity; entity ``i`` is candidate ``i``.
        count: how many to keep.
        name: of a candidate.
    """
    return [[name(row) for row in found if row != own][:count] for own, found in enumerate(rows)]


def rank_names(
    encoder: Encoder,
    entities: EntityImages,
    features: Tensor,
    templates: Sequence[str],
    extra: Sequence[str],
    *,
    batch_size: int,
    confusions: int,
    reverse: bool,
) -> Ranked:
    """Ranks of the true names among all candidates: by the averaged templates, and by each of several.

    Args:
        encoder: with a text tower.
        entities: what the images show.
        features: ``[images, dim]`` L2-normalised, on the device.
        templates: texts in which ``{}`` stands for the name.
        extra: candidate names beside the entities'.
        batch_size: texts per forward pass.
        confusions: names to tell per entity that are most similar to its images on average.
        reverse: whether to rank images for names too.
    """
    import torch

    from priorkit.core import distributed
    from priorkit.scoring.representations.centroids import centroids
    from priorkit.scoring.representations.ranks import NearestCandidates, RankCounter

    names, facts = _names(entities, extra)
    device, count = features.device, len(entities.entities)
    truth = torch.tensor(entities.entity_of, device=device)
    own = _own_heads(encoder, names[:count], templates, batch_size, device)
    counters = [RankCounter(features, heads, truth) for heads in own]
    nearest = NearestCandidates(centroids(features, truth, count), confusions + 1)
    parts = _parts(len(names), count)
    mine = parts[runtime.rank() :: runtime.world_size()]
    for first, stop in track(mine, "rank names", len(mine), f"x {PART} names"):
        if stop <= count:
            heads = [head[first:stop] for head in own]
        else:
            heads = heads_of(encoder, names[first:stop], templates, batch_size)
            heads = [head.to(device) for head in heads]
        for counter, head in zip(counters, heads, strict=True):
            counter.add(head, first)
        if confusions:
            nearest.add(heads[0], first)
    for counter in counters:
        distributed.total(counter.counts)
    confused = _merged(nearest, confusions, names) if confusions else []
    return Ranked(
        counters[0].ranks,
        len(names),
        confused,
        {name: counter.ranks for name, counter in zip(templates, counters[1:], strict=False)},
        _reverse(own[0], entities, features) if reverse else None,
        facts,
    )


def _names(entities: EntityImages, extra: Sequence[str]) -> tuple[Sequence[str], dict[str, Any]]:
    """All candidates, the ranked entities first, and what the manifest says of them."""
    # An entity without a usable image has no rank, but its name is a candidate all the same: otherwise a
    # broken file would change the ranks of all others.
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


def _parts(names: int, entities: int) -> list[tuple[int, int]]:
    """Ranges of names; none holds both entities and others, whatever the number of processes."""
    bounds = [(0, entities), (entities, names)]
    return [(first, min(first + PART, stop)) for start, stop in bounds for first in range(start, stop, PART)]


def heads_of(
    encoder: Encoder, names: Sequence[str], templates: Sequence[str], batch_size: int
) -> list[Tensor]:
    """Text features of names: the mean over templates, and after it each template's where there are several.

    The mean of L2-normalised features, normalised again, is CLIP's zero-shot head (Radford et al. 2021,
    section 3.1.4).

    Returns:
        fp32 ``[names, dim]`` each, L2-normalised, in main memory.
    """
    import torch

    from priorkit.models.vision.encoder import l2_normalize

    each = [
        torch.cat(list(encoder.encode_texts([template.replace("{}", name) for name in names], batch_size)))
        + 0.0
        for template in templates
    ]
    return each if len(each) == 1 else [l2_normalize(torch.stack(each).sum(0)), *each]


def _own_heads(
    encoder: Encoder, names: Sequence[str], templates: Sequence[str], batch_size: int, device: Any
) -> list[Tensor]:
    """Heads of the entities' names, on the device; processes share the work."""
    import torch

    from priorkit.core import distributed

    found: list[Tensor] = []
    parts = list(_slices(len(names), batch_size))
    size, number = runtime.world_size(), runtime.rank()
    for index, (start, stop) in enumerate(parts):
        # A process that has no part of its own embeds the first, to learn the width.
        if index % size != number and not (index == 0 and number >= len(parts)):
            continue
        heads = heads_of(encoder, names[start:stop], templates, batch_size)
        if not found:
            found = [torch.zeros(len(names), head.shape[1], device=device) for head in heads]
        if index % size == number:
            for whole, head in zip(found, heads, strict=True):
                whole[start:stop] = head.to(device)
    return [distributed.total(heads) for heads in found]


def _slices(count: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, size):
        yield start, min(start + size, count)


def _merged(nearest: Any, count: int, names: Sequence[str]) -> list[list[str]]:
    """The most confusing names over the parts of all processes."""
    import torch

    from priorkit.core import distributed

    entities = len(nearest.cosines)
    if distributed.joined():
        size, number = runtime.world_size(), runtime.rank()
        # Padded to one width: a process may have seen fewer candidates than are kept.
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
    kept = [[row for row in found if row < len(names)] for found in nearest.rows.tolist()]
    return wrong_names(kept, count, lambda row: names[row])


def _reverse(heads: Tensor, entities: EntityImages, features: Tensor) -> Tensor:
    """For each image its rank for its own entity's name among it and the images of all other entities."""
    import torch

    from priorkit.core import distributed
    from priorkit.scoring.representations.ranks import RankCounter, true_ranks

    group = torch.tensor(entities.entity_of, device=features.device)
    every = torch.arange(len(features), device=features.device)
    counter = RankCounter(heads[group], features, every)
    for index, start in enumerate(range(0, len(features), PART)):
        if index % runtime.world_size() == runtime.rank():
            counter.add(features[start : start + PART], start)
    ranks = 1 + distributed.total(counter.counts).cpu()
    for entity in range(len(heads)):
        rows = (group == entity).nonzero()[:, 0]
        among = true_ranks(heads[group[rows]], features[rows], torch.arange(len(rows), device=rows.device))
        ranks[rows.cpu()] -= among - 1
    return ranks
