"""What a LION model wants to know of an item beside its prompt: the bare question and the task type."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from priorkit.data.conversations.task_conversations import IMAGE_LEVEL, REGION
from priorkit.data.images.decoding import ImageRef
from priorkit.evaluation.runner.prompts import ItemPrompt
from priorkit.evaluation.tasks.base import Task
from priorkit.evaluation.tasks.item import Item

logger = logging.getLogger(__name__)


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


class Shown(tuple[ImageRef, ...]):
    """The images of a prompt, none perhaps, and the task type under which it is answered.

    Attributes:
        task_type: which gates of the adapters are open; empty where nothing asks for it.
    """

    task_type: str

    def __new__(cls, images: Sequence[ImageRef], task_type: str) -> Self:
        """Images in order, with a task type."""
        made = super().__new__(cls, images)
        made.task_type = task_type
        return made


def shown(item: Item) -> Shown:
    """What a prompt shows, after :func:`looks`."""
    return Shown(item.images, item.task_type)


def looks(subject: Any, items: Sequence[Item], prompts: Sequence[ItemPrompt], task: Task) -> list[Item]:
    """The items with their images as looks, for a model that asks for it; as they are for any other.

    Grounding is region-level, everything else image-level, unless the item says otherwise. An item without
    an image, or whose image is withheld, has a task type all the same.
    """
    if not getattr(subject.multimodal, "asks_for_looks", False):
        return list(items)
    way = subject.multimodal.tags
    open_items = [item for item in items if not item.withheld]
    if way != "off" and open_items and all(item.tags is None for item in open_items):
        logger.warning(f"the model was tuned with {way} tags, and the benchmark has no column 'tags'")
    usual = REGION if task.boxes else IMAGE_LEVEL
    found: list[Item] = []
    for item, prompt in zip(items, prompts, strict=True):
        task_type = item.task_type or usual
        seen = [_look(image, prompt.asked, task_type) for image in item.images]
        first = seen[0] if seen else None
        found.append(replace(item, image=first, more_images=tuple(seen[1:]), task_type=task_type))
    return found


def _look(image: ImageRef, question: str, task_type: str) -> Look:
    held = {field.name: getattr(image, field.name) for field in fields(ImageRef)}
    return Look(**held, question=question, task_type=task_type)
