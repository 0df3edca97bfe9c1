"""Names that a text tower cannot tell apart: they become the same tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from hashlib import blake2b

from priorkit.models.vision.encoder import Encoder

logger = logging.getLogger(__name__)

_SHOWN_GROUPS = 3
_BATCH = 4096


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


def warn_of_equal_names(
    encoder: Encoder, names: Sequence[str], templates: Sequence[str] = ("{}",), source: str = ""
) -> None:
    """Warn of names that the text tower cannot tell apart, with examples.

    Args:
        encoder: one with a text tower.
        names: the names.
        templates: prompt templates.
        source: what the names are of, in front of the message.
    """
    groups = equal_names(encoder, names, templates)
    if not groups:
        return
    count = sum(map(len, groups))
    examples = "; ".join(" and ".join(repr(name) for name in group[:2]) for group in groups[:_SHOWN_GROUPS])
    more = "; ..." if len(groups) > _SHOWN_GROUPS else ""
    logger.warning(
        f"{source + ': ' if source else ''}the text tower cannot tell {count} of {len(names)} names apart: they become "
        f"the same tokens, cut off or unknown ({examples}{more}), so they tie"
    )
