"""LION's samples: tokenized conversations with task types and numbered images."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from priorkit.architectures.lion.conversations import TaskConversations
from priorkit.architectures.lion.modeling.configuration import task_index
from priorkit.architectures.lion.tokenization import ConversationTokenizer, TokenizedSample
from priorkit.core.errors import InputError
from priorkit.data.conversations.task_conversations import (
    REGION,
    TaskConversation,
)
from priorkit.data.images.augmentation import View
from priorkit.data.images.decoding import ImageRef, upright_size
from priorkit.data.io.rejects import Rejects
from priorkit.models.multimodal.box_alignment import misaligned_images, misalignment_warning
from priorkit.training.finetuning.batches import TrainingSample, use_fast_encoding
from priorkit.training.finetuning.objective import TOKEN_CACHE

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LionSample(TrainingSample):
    """A tokenized conversation with the numbers of its images.

    Attributes:
        task: index of its task type.
        questions: token ids of the bare question to each image.
        views: how each image is augmented; empty for the images as they are.
    """

    task: int
    questions: tuple[tuple[int, ...], ...]
    views: tuple[View, ...] = ()


class DistinctImages(Sequence[ImageRef]):
    """The images of conversations, each numbered once however many conversations show it; read on demand.

    Args:
        conversations: where the images are.
    """

    def __init__(self, conversations: TaskConversations) -> None:
        self._conversations = conversations
        self._numbers: dict[Hashable, int] = {}
        self._places: list[tuple[int, int]] = []

    def number(self, conversation: int, position: int, image: ImageRef) -> int:
        """The number of an image, the next one where it is new.

        Args:
            conversation: index of a conversation that shows it.
            position: its position among the images of that conversation.
            image: the image; identified by its path or its bytes.
        """
        content = image.content
        key = (image.path, image.span) if content is None else hashlib.sha256(content).digest()
        number = self._numbers.setdefault(key, len(self._places))
        if number == len(self._places):
            self._places.append((conversation, position))
        return number

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, number: int) -> ImageRef: ...
    @overload
    def __getitem__(self, number: slice) -> list[ImageRef]: ...
    def __getitem__(self, number: int | slice) -> ImageRef | list[ImageRef]:
        if isinstance(number, slice):
            return [self[index] for index in range(len(self))[number]]
        conversation, position = self._places[number]
        return self._conversations[conversation].conversation.images[position]


@dataclass
class LionSamples:
    """Conversations that fit, by number; tokens are cached up to ``TOKEN_CACHE``, beyond that tokenized again.

    Attributes:
        conversations: where they are read from.
        tokenizer: tokenizes them.
        images: their images by number.
        indices: the index in ``conversations`` of each sample.
        tasks: index of each sample's task type.
        image_numbers: numbers of the images of all samples, one sample after another.
        first_image: where each sample's images begin in ``image_numbers``, and where the last one's end.
        tokens: of all samples.
        truncated: how many samples lost the end of an answer.
        shortened: how many lists of tags were shortened.
    """

    conversations: TaskConversations
    tokenizer: ConversationTokenizer
    images: DistinctImages
    indices: array[int] = field(default_factory=lambda: array("q"))
    tasks: array[int] = field(default_factory=lambda: array("b"))
    image_numbers: array[int] = field(default_factory=lambda: array("q"))
    first_image: array[int] = field(default_factory=lambda: array("q", [0]))
    tokens: int = 0
    truncated: int = 0
    shortened: int = 0
    _cache: dict[int, TokenizedSample] = field(default_factory=dict[int, TokenizedSample])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> LionSample:
        tokenized = self._cache.get(index)
        if tokenized is None:
            tokenized = self.tokenizer.tokenize(self.conversation(index))
        return LionSample(tokenized.encoded, self.images_of(index), self.tasks[index], tokenized.questions)

    def conversation(self, index: int) -> TaskConversation:
        """The conversation of a sample."""
        return self.conversations[self.indices[index]]

    def images_of(self, index: int) -> tuple[int, ...]:
        """The numbers of a sample's images."""
        return tuple(self.image_numbers[self.first_image[index] : self.first_image[index + 1]])

    @property
    def mean_length(self) -> float:
        """Mean number of tokens."""
        return self.tokens / len(self)

    def add(self, index: int) -> None:
        """Tokenize a conversation and add it.

        Raises:
            InputError: it does not fit.
        """
        sample = self.conversations[index]
        tokenized = self.tokenizer.tokenize(sample)
        if self.tokens < TOKEN_CACHE:
            self._cache[len(self)] = tokenized
        self.tokens += len(tokenized.encoded.input_ids)
        self.truncated += tokenized.encoded.truncated
        self.shortened += tokenized.shortened
        images = enumerate(sample.conversation.images)
        self.image_numbers.extend(self.images.number(index, position, image) for position, image in images)
        self.first_image.append(len(self.image_numbers))
        self.tasks.append(task_index(sample.task_type))
        self.indices.append(index)


def tokenize_samples(
    conversations: TaskConversations,
    indices: Sequence[int],
    tokenizer: ConversationTokenizer,
    rejects: Rejects,
) -> LionSamples:
    """Tokenize conversations; those whose image or box would be truncated go to ``rejects``.

    Args:
        conversations: with task types.
        indices: which of them, in order.
        tokenizer: for the model.
        rejects: takes those that do not fit.

    Raises:
        InputError: more than the limit do not fit, or all.
    """
    use_fast_encoding(tokenizer.chat, conversations)
    samples = LionSamples(conversations, tokenizer, DistinctImages(conversations))
    for number, index in enumerate(indices, start=1):
        try:
            samples.add(index)
        except InputError as error:
            rejects.add(conversations[index].conversation.id, number, error.what)
    rejects.raise_if_over_limit()
    chat = tokenizer.chat
    if not len(samples):
        raise InputError(f"no conversation fits into {chat.max_length} tokens")
    if samples.shortened:
        logger.warning(f"{samples.shortened} lists of tags were shortened to fit {chat.max_length} tokens")
    if samples.truncated:
        logger.warning(f"{samples.truncated} answers are cut to fit {chat.max_length} tokens")
    return samples


def warn_of_misaligned_boxes(base: Path, samples: LionSamples) -> None:
    """Warn if images with boxes are cropped or padded: the model would learn shifted boxes, and the loss does not show it."""
    misaligned = misaligned_images(base)
    if misaligned == "none":
        return
    region = task_index(REGION)
    numbers = {
        number
        for index, task in enumerate(samples.tasks)
        if task == region
        for number in samples.images_of(index)
    }
    sizes = {number: upright_size(samples.images[number]) for number in sorted(numbers)}
    if text := misalignment_warning(misaligned, sizes):
        logger.warning(text)
