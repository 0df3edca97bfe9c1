"""From items to what accompanies their prompts: images and, for models that need them, question and task type."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from priorkit.data.conversations.task_conversations import IMAGE_LEVEL, REGION
from priorkit.evaluation.runner.prompts import ItemPrompt
from priorkit.evaluation.tasks.base import Task
from priorkit.evaluation.tasks.item import Item
from priorkit.inference.prompt_inputs import PromptInputs
from priorkit.models.multimodal.base import Capabilities

logger = logging.getLogger(__name__)


def inputs_of(
    capabilities: Capabilities, items: Sequence[Item], prompts: Sequence[ItemPrompt], task: Task
) -> list[PromptInputs]:
    """The inputs of each item's prompt.

    For models that need it, tasks about boxes are region-level and everything else image-level, unless the item says
    otherwise; items without an image, or whose image is withheld, have a task type too.
    """
    if not capabilities.questions:
        return [PromptInputs(item.images) for item in items]
    shown = [item for item in items if not item.withheld]
    if capabilities.tags != "off" and shown and all(item.tags is None for item in shown):
        logger.warning(
            f"the model was tuned with {capabilities.tags} tags, and the benchmark has no column 'tags'"
        )
    usual = REGION if task.boxes else IMAGE_LEVEL
    return [
        PromptInputs(item.images, prompt.user_text, item.task_type or usual)
        for item, prompt in zip(items, prompts, strict=True)
    ]
