"""Why two evaluations of the same items differ: item by item, the first of a list of reasons that applies.

The list goes from what certainly changes a score to what may: an item whose written answers are the same differs by
its parser, whatever else differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Sample = Mapping[str, Any]
Conditions = Mapping[str, Any]

UNEXPLAINED = "unexplained"
"""The reason where prompts, images and conditions are the same as far as they are known."""


@dataclass(frozen=True)
class Disagreement:
    """An item whose scores differ.

    Attributes:
        id: the item's.
        reason: a key of :data:`REASONS`, or :data:`UNEXPLAINED`.
        first: one evaluation's sample.
        second: the other's.
    """

    id: str
    reason: str
    first: Sample
    second: Sample

    def to_json(self) -> dict[str, Any]:
        """A line of ``comparison.jsonl``."""
        keys = ("score", "prediction", "parsed")
        return {
            "id": self.id,
            "reason": self.reason,
            **{f"{key}_{which}": row.get(key) for key in keys for which, row in self._both()},
            **(
                {f"prompt_{which}": row.get("prompt") for which, row in self._both()}
                if self.reason == "prompt"
                else {}
            ),
        }

    def _both(self) -> tuple[tuple[str, Sample], tuple[str, Sample]]:
        return ("first", self.first), ("second", self.second)


def changed_conditions(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What two ``results.json`` say differently of the model and of how it was asked.

    Args:
        first: the content of one.
        second: that of the other.

    Returns:
        By name the two values, of those that both files have.
    """
    ours, theirs = _conditions(first), _conditions(second)
    return {
        name: [ours[name], theirs[name]] for name in ours if name in theirs and ours[name] != theirs[name]
    }


def _conditions(document: Mapping[str, Any]) -> dict[str, Any]:
    model: Mapping[str, Any] = document.get("model") or {}
    named = {
        "model": "digest",
        "bos_token": "bos_token",
        "blind": "blind",
        "shuffled_images": "shuffled_images",
    }
    conditions = {name: model.get(key) for name, key in named.items()} if model else {}
    return {**conditions, **(document.get("asked") or {})}


def reason_of(first: Sample, second: Sample, changed: Conditions) -> str:
    """Why an item's scores differ.

    Args:
        first: its sample in one evaluation.
        second: in the other.
        changed: from :func:`changed_conditions`.
    """
    return next(
        (name for name, (_, applies) in REASONS.items() if applies(first, second, changed)), UNEXPLAINED
    )


def _differ(key: str) -> Callable[[Sample, Sample, Conditions], bool]:
    """Both samples have it, and not the same."""
    return lambda a, b, changed: bool(a.get(key)) and bool(b.get(key)) and a[key] != b[key]


def _changed(*names: str) -> Callable[[Sample, Sample, Conditions], bool]:
    return lambda a, b, changed: any(name in changed for name in names)


def _cut(a: Sample, b: Sample, changed: Conditions) -> bool:
    """One written answer begins with the other."""
    texts = sorted((_text(a), _text(b)), key=len)
    return bool(texts[0]) and texts[1].startswith(texts[0])


def _text(sample: Sample) -> str:
    return str(sample.get("prediction") or "").strip()


def _other_prompt(a: Sample, b: Sample, changed: Conditions) -> bool:
    """Prompts differ in more than white space."""
    ours, theirs = str(a.get("prompt") or "").split(), str(b.get("prompt") or "").split()
    return bool(ours) and bool(theirs) and ours != theirs


Applies = Callable[[Sample, Sample, Conditions], bool]

REASONS: dict[str, tuple[str, Applies]] = {
    "withheld": (
        "only one saw the images",
        lambda a, b, changed: bool(a.get("withheld")) != bool(b.get("withheld")),
    ),
    "parser": ("the same answer was read differently", lambda a, b, changed: _text(a) == _text(b) != ""),
    "length": ("one answer was cut where the other goes on", _cut),
    "prompt": ("the prompts differ: chat template or wording", _other_prompt),
    "images": (
        "the images take another number of positions",
        _differ("image_tokens"),
    ),
    "preparation": ("the images are prepared differently", _changed("images", "max_image_pixels")),
    "model": ("the models differ", _changed("model")),
    "template": ("the chat templates differ", _changed("prompt", "template", "bos_token")),
    "precision": ("the precision differs", _changed("precision")),
    "backend": ("another back end ran the model", _changed("backend")),
}
"""By name, in the order in which they are tried: what it says, and whether it applies."""


def sentences(reasons: Sequence[str]) -> list[str]:
    """What reasons say, for people."""
    return [REASONS[name][0] if name in REASONS else "nothing that was recorded differs" for name in reasons]
