"""What accompanies a prompt's text: its images and, for models that need them, the bare question and task type."""

from __future__ import annotations

from dataclasses import dataclass

from priorkit.data.images.decoding import ImageRef, image_key


@dataclass(frozen=True, slots=True)
class PromptInputs:
    """The inputs of a prompt in addition to its token ids.

    Attributes:
        images: in the order of their placeholders.
        question: the user's words without image placeholder and tags, for a model whose visual tokens depend
            on them (``Capabilities.questions``); empty for any other.
        task_type: ``image-level`` or ``region-level`` for such a model; empty for any other.
    """

    images: tuple[ImageRef, ...] = ()
    question: str = ""
    task_type: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for prompts whose images contribute the same; empty without images."""
        condition = f"|{self.task_type}|{self.question}" if self.question or self.task_type else ""
        return tuple(image_key(image) + condition for image in self.images)
