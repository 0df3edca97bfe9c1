"""What a LION model wants to know of an item beside its prompt: the bare question and the task type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from priorkit.core.console import console
from priorkit.data.images import ImageRef
from priorkit.data.routed import IMAGE_LEVEL, REGION
from priorkit.evals.items import Item
from priorkit.evals.prompts import Prompt
from priorkit.evals.tasks.task import Task


@dataclass(frozen=True, slots=True)
class Look(ImageRef):
    """An image as it is looked at: with a question, for a task type.

    Attributes:
        question: the user's words without image placeholder and tags; the Q-Former reads them.
        task_type: which gates of the adapters are open.
    """

    question: str = ""
    task_type: str = IMAGE_LEVEL

    @property
    def looked_at_as(self) -> str:
        """What makes visual tokens of one image differ, so that nothing computed for one look serves another."""
        return f"|{self.task_type}|{self.question}"


def looks(subject: Any, items: Sequence[Item], prompts: Sequence[Prompt], task: Task) -> list[Item]:
    """The items with their images as looks, for a model that asks for it; as they are for any other.

    Grounding is region-level, everything else image-level, unless the item says otherwise.
    """
    if not getattr(subject.multimodal, "asks_for_looks", False):
        return list(items)
    way = subject.multimodal.tags
    if way != "off" and not any(item.tags is not None for item in items):
        console.warn(f"the model was tuned with {way} tags, and the benchmark has no column 'tags'")
    usual = REGION if task.name == "grounding" else IMAGE_LEVEL
    found: list[Item] = []
    for item, prompt in zip(items, prompts, strict=True):
        seen = [_look(image, prompt.asked, item.task_type or usual) for image in item.images]
        found.append(replace(item, image=seen[0], more_images=tuple(seen[1:])) if seen else item)
    return found


def _look(image: ImageRef, question: str, task_type: str) -> Look:
    held = {field.name: getattr(image, field.name) for field in fields(ImageRef)}
    return Look(**held, question=question, task_type=task_type)
