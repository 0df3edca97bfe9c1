"""Augmentation of LION's samples: a view of the image, and the conversation changed to match it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from priorkit.architectures.lion.samples import LionSample
from priorkit.architectures.lion.tokenization import ConversationTokenizer
from priorkit.core.errors import InputError
from priorkit.core.process.seeds import stream_seed
from priorkit.data.conversations.conversation import Turn
from priorkit.data.conversations.region_augmentation import fit_view, seen_text
from priorkit.data.conversations.task_conversations import TaskConversation
from priorkit.data.images.augmentation import AugmentationSettings, View
from priorkit.data.images.pixels import Pixels


@dataclass(frozen=True)
class SampleAugmentation:
    """Draws the views of a run, each a function of the seed and the position in the stream.

    Attributes:
        settings: how far views may deviate from the image.
        pixels: all images by number.
        tokenizer: tokenizes the changed conversations.
        seed: the run's.
    """

    settings: AugmentationSettings
    pixels: Pixels
    tokenizer: ConversationTokenizer
    seed: int

    def augment(self, sample: LionSample, conversation: TaskConversation, position: int) -> LionSample:
        """A sample with the views of its images at a position in the stream.

        Only the colors vary of several images in a conversation, as it is unknown which of them a box or a
        side refers to, and of an image whose changed conversation would no longer fit.
        """
        views = [
            self.pixels.draw(number, self.settings, stream_seed(self.seed, position))
            for number in sample.images
        ]
        if len(views) == 1:
            size, turns, boxes = self.pixels.size, conversation.turns, self.tokenizer.boxes
            view = fit_view(views[0], [turn.text for turn in turns], size, boxes)
            changed = tuple(Turn(turn.role, seen_text(turn.text, view, size, boxes)) for turn in turns)
            try:
                tokenized = self.tokenizer.tokenize(conversation.with_turns(changed))
            except InputError:
                pass
            else:
                return replace(
                    sample, encoded=tokenized.encoded, questions=tokenized.questions, views=(view,)
                )
        return replace(sample, views=tuple(View(colour=view.colour) for view in views))

    def views_of(self, numbers: Sequence[int], views: Sequence[View]) -> Tensor:
        """Pixels of views of images, uint8 ``[images, 3, height, width]``."""
        return torch.stack(
            [self.pixels.view(number, view) for number, view in zip(numbers, views, strict=True)]
        )
