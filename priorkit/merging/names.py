"""Names of tensors: PEFT's, transformers' in memory and on disk, and which of them mean the same.

transformers 5 keeps a LLaVA's language model at ``model.language_model.layers...`` in memory, which is what
PEFT sees, and at ``language_model.model.layers...`` on disk; a LoRA trained on the bare language model says
``model.layers...``. All three are brought to one form by leaving out the wrappers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

PEFT_PREFIX = "base_model.model."

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block|resblocks)\.(\d+)(?:\.|$)")

_WRAPPERS: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"model"}),
    frozenset({"model", "vision_model"}),
    frozenset({"model", "vision_model", "language_model"}),
    frozenset({"model", "vision_model", "language_model", "text_model"}),
)
"""Parts of a name left out in turn, the fewest first, until a name is found and is unique."""


class NameMap:
    """Finds the stored tensor that a name of other origin means."""

    def __init__(self, stored: Iterable[str]) -> None:
        names = list(stored)
        self._rounds: list[dict[str, str | None]] = []
        for dropped in _WRAPPERS:
            by_short_name: dict[str, str | None] = {}
            for name in names:
                short = _without(name, dropped)
                by_short_name[short] = None if short in by_short_name else name
            self._rounds.append(by_short_name)

    def find(self, name: str) -> str | None:
        """The stored name, or None where there is none or several fit."""
        for dropped, by_short_name in zip(_WRAPPERS, self._rounds, strict=True):
            if stored := by_short_name.get(_without(name, dropped)):
                return stored
        return None


def _without(name: str, dropped: frozenset[str]) -> str:
    return ".".join(part for part in name.split(".") if part not in dropped) if dropped else name


def in_memory(name: str, stored: Mapping[str, object]) -> str:
    """A stored name as transformers names the module in memory, which is what PEFT matches against."""
    if not any(other.startswith("language_model.model.") for other in stored):
        return name
    if name.startswith("language_model.lm_head."):
        return name.removeprefix("language_model.")
    if name.startswith("language_model.model."):
        return "model.language_model." + name.removeprefix("language_model.model.")
    return "model." + name


def layer_of(name: str) -> int | None:
    """The number of the transformer layer of a tensor; None for embeddings, heads and last norms."""
    match = _LAYER.search(name)
    return int(match[1]) if match else None


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern names a tensor.

    ``layers.4-11`` is a range of layers, a pattern with ``*``, ``?`` or ``[`` is a shell pattern for the
    full name, and anything else is a part of the name.
    """
    if span := re.fullmatch(r"layers\.(\d+)-(\d+)", pattern):
        layer = layer_of(name)
        return layer is not None and int(span[1]) <= layer <= int(span[2])
    if any(sign in pattern for sign in "*?["):
        return fnmatchcase(name, pattern)
    return pattern in name
