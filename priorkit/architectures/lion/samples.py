"""LION's samples: tokenized conversations with task types and numbered images."""

from __future__ import annotations

import logging
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from priorkit.architectures.lion.conversations import TaskConversations
from priorkit.architectures.lion.modeling.configuration import task_index
from priorkit.architectures.lion.tokenization import ConversationTokenizer, TokenizedSample
from priorkit.core.errors import InputError
from priorkit.data.conversations.task_conversations import (
    REGION,
    TaskConversation,
)
from priorkit.data.images.augmentation import View
from priorkit.data.images.decoding import ImageRef, image_digest, upright_size
from priorkit.data.io.rejects import Rejects
from priorkit.models.multimodal.box_alignment import misaligned_images, misalignment_warning
from priorkit.training.finetuning.batches import TrainingSample, use_fast_encoding
from priorkit.training.finetuning.objective import TOKEN_CACHE

logger = logging.getLogger(__name__)

_DIGEST = np.dtype("S16")
"""Of :func:`image_digest`, as bytes that numpy sorts."""


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
    """The images of samples, each numbered once however many samples show it; read on demand.

    Args:
        samples: whose images these are.
        shown: int64 ``[images]``, the position of each among the images of all samples where it is first shown.
    """

    def __init__(self, samples: LionSamples, shown: NDArray[np.int64]) -> None:
        self._samples, self._shown = samples, shown

    def __len__(self) -> int:
        return len(self._shown)

    @overload
    def __getitem__(self, number: int) -> ImageRef: ...
    @overload
    def __getitem__(self, number: slice) -> list[ImageRef]: ...
    def __getitem__(self, number: int | slice) -> ImageRef | list[ImageRef]:
        if isinstance(number, slice):
            return [self[index] for index in range(len(self))[number]]
        return self._samples.shown_image(int(self._shown[number]))


@dataclass
class LionSamples:
    """Conversations that fit, by number; tokens are cached up to ``TOKEN_CACHE``, beyond that tokenized again.

    Attributes:
        conversations: where they are read from.
        tokenizer: tokenizes them.
        indices: the index in ``conversations`` of each sample.
        tasks: index of each sample's task type.
        first_image: where each sample's images begin among those of all, and where the last one's end.
        image_numbers: numbers of the images of all samples, one sample after another, once :meth:`seal` is called.
        tokens: of all samples.
        truncated: how many samples lost the end of an answer.
        shortened: how many lists of tags were shortened.
    """

    conversations: TaskConversations
    tokenizer: ConversationTokenizer
    indices: array[int] = field(default_factory=lambda: array("q"))
    tasks: array[int] = field(default_factory=lambda: array("b"))
    first_image: array[int] = field(default_factory=lambda: array("q", [0]))
    image_numbers: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    tokens: int = 0
    truncated: int = 0
    shortened: int = 0
    _cache: dict[int, TokenizedSample] = field(default_factory=dict[int, TokenizedSample])
    _digests: bytearray = field(default_factory=bytearray)
    _images: DistinctImages | None = None

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
        return tuple(self.image_numbers[self.first_image[index] : self.first_image[index + 1]].tolist())

    @property
    def images(self) -> DistinctImages:
        """Their images by number."""
        if self._images is None:
            raise ValueError("the samples are not sealed yet")
        return self._images

    def shown_image(self, position: int) -> ImageRef:
        """The image at a position among the images of all samples."""
        sample = bisect_right(self.first_image, position) - 1
        return self.conversation(sample).conversation.images[position - self.first_image[sample]]

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
        for image in sample.conversation.images:
            self._digests += image_digest(image)
        self.first_image.append(len(self._digests) // _DIGEST.itemsize)
        self.tasks.append(task_index(sample.task_type))
        self.indices.append(index)

    def seal(self) -> None:
        """Finish adding, and number the images in the order in which they are first shown."""
        digests = np.frombuffer(self._digests, _DIGEST)
        _, shown, numbers = np.unique(digests, return_index=True, return_inverse=True)
        order = np.argsort(shown)
        ranks = np.empty_like(order)
        ranks[order] = np.arange(len(order))
        self.image_numbers = ranks[numbers]
        self._images = DistinctImages(self, shown[order])
        self._digests = bytearray()


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
    samples = LionSamples(conversations, tokenizer)
    for number, index in enumerate(indices, start=1):
        try:
            samples.add(index)
        except InputError as error:
            rejects.add(conversations[index].conversation.id, number, error.what)
    samples.seal()
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
    with_boxes = np.repeat(np.asarray(samples.tasks) == region, np.diff(samples.first_image))
    numbers = np.unique(samples.image_numbers[with_boxes])
    if text := misalignment_warning(misaligned, (upright_size(samples.images[int(n)]) for n in numbers)):
        logger.warning(text)
