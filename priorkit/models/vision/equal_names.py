"""Names that a text tower cannot tell apart: they become the same tokens, or the same features."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from priorkit.models.vision.encoder import Encoder

logger = logging.getLogger(__name__)

_SHOWN_GROUPS = 3
_BATCH = 4096
_ELEMENTS = 1 << 24
"""Cosines that are in memory at once."""

SAME_COSINE = 1 - 1e-6
"""Cosine of fp32 features above which they differ by no more than rounding."""


def equal_names(
    encoder: Encoder, names: Sequence[str], templates: Sequence[str] = ("{}",)
) -> list[tuple[str, ...]]:
    """Groups of names with the same token ids in every template: cut off alike, or all unknown to the tokenizer.

    Args:
        encoder: one with a text tower.
        names: different names.
        templates: prompt templates; ``{}`` is replaced by the name.

    Returns:
        Groups of two names or more, in the order of their first names.
    """
    groups = [tuple(dict.fromkeys(names))]
    for template in templates:
        groups = [part for group in groups for part in _split(encoder, group, template)]
    order = {name: number for number, name in enumerate(names)}
    return sorted(groups, key=lambda group: order[group[0]])


def _split(encoder: Encoder, names: Sequence[str], template: str) -> list[tuple[str, ...]]:
    first: dict[bytes, int] = {}
    groups: dict[int, list[int]] = {}
    for start in range(0, len(names), _BATCH):
        batch = names[start : start + _BATCH]
        tokens = encoder.tokenize([template.replace("{}", name) for name in batch])
        ids = tokens["input_ids"].numpy()
        used = tokens["attention_mask"].numpy().astype(bool) if "attention_mask" in tokens else ids == ids
        for index, (row, kept) in enumerate(zip(ids, used, strict=True), start=start):
            # Digests, as there may be millions of names.
            known = first.setdefault(blake2b(row[kept].tobytes(), digest_size=16).digest(), index)
            if known != index:
                groups.setdefault(known, [known]).append(index)
    return [tuple(names[index] for index in group) for group in groups.values()]


def first_alike(features: Tensor, others: Tensor, first: int) -> Tensor:
    """For each of several names the first earlier one whose features are the same but for rounding.

    Args:
        features: fp32 ``[names, dim]`` L2-normalized, of names 0 and on.
        others: ``[others, dim]``, likewise, of names ``first`` and on.
        first: number of the first of the others.

    Returns:
        int64 ``[others]``: 1 more than the number of the earlier name; 0 where there is none.
    """
    found = torch.zeros(len(others), dtype=torch.int64, device=others.device)
    numbers = torch.arange(first, first + len(others), device=others.device)
    size = max(1, _ELEMENTS // max(1, len(others)))
    for start in range(0, len(features), size):
        block = features[start : start + size]
        rows = torch.arange(start, start + len(block), device=others.device)
        alike = (block @ others.T > SAME_COSINE) & (rows[:, None] < numbers)
        new = alike.any(0) & (found == 0)
        found[new] = start + 1 + alike.int().argmax(0)[new]
    return found


def warn_of_equal_names(
    encoder: Encoder,
    names: Sequence[str],
    templates: Sequence[str] = ("{}",),
    source: str = "",
    alike: Sequence[tuple[str, str]] = (),
) -> None:
    """Warn of names that the text tower cannot tell apart, with examples.

    Args:
        encoder: one with a text tower.
        names: the names.
        templates: prompt templates.
        source: what the names are of, in front of the message.
        alike: pairs of names with the same features, where features are known.
    """
    groups = equal_names(encoder, names, templates)
    group_of = {name: number for number, group in enumerate(groups) for name in group}
    alike = [pair for pair in alike if group_of.get(pair[0], -1) != group_of.get(pair[1], -2)]
    reasons = [
        f"{reason} ({_examples(found)})"
        for reason, found in (
            ("they become the same tokens, cut off or unknown", groups),
            ("they have the same features but for rounding", alike),
        )
        if found
    ]
    if not reasons:
        return
    count = len(group_of.keys() | {name for pair in alike for name in pair})
    logger.warning(
        f"{source + ': ' if source else ''}the text tower cannot tell {count} of {len(names)} names apart: "
        f"{'; '.join(reasons)}, so they tie"
    )


def _examples(groups: Sequence[tuple[str, ...]]) -> str:
    shown = [" and ".join(repr(name) for name in group[:2]) for group in groups[:_SHOWN_GROUPS]]
    return "; ".join(shown) + ("; ..." if len(groups) > _SHOWN_GROUPS else "")
