"""LION's samples seen anew each time: a view of the image, and what the conversation says of that view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from priorkit.architectures.lion.samples import LionSample, tokenise
from priorkit.core.errors import InputError
from priorkit.core.seeds import stream_seed
from priorkit.data.conversations.conversation import Turn
from priorkit.data.conversations.region_augmentation import fit_view, seen_text
from priorkit.data.images.augmentation import AugmentationSettings, View
from priorkit.data.images.pixels import Pixels
from priorkit.models.language.chat_template import ChatTokenizer


@dataclass(frozen=True)
class Variation:
    """Draws the views of a run, each a function of the seed and the place in the stream.

    Attributes:
        augmentation: how far views may go.
        pixels: all images by number.
        chat: tokenises what is said of a view.
        tags: ``off``, ``hard`` or ``soft``.
        question_length: most tokens of a question for the Q-Former.
        seed: the run's.
    """

    augmentation: AugmentationSettings
    pixels: Pixels
    chat: ChatTokenizer
    tags: str
    question_length: int
    seed: int

    def seen(self, sample: LionSample, position: int) -> tuple[LionSample, tuple[View, ...]]:
        """A sample as it is seen at a place in the stream, and the views of its images.

        A conversation of several images keeps them whole and as they are but for their colours, as nothing
        tells which of them a box or a side is of; so does one that would no longer fit.
        """
        drawn = [
            self.pixels.draw(number, self.augmentation, stream_seed(self.seed, position))
            for number in sample.numbers
        ]
        size = self.pixels.size
        turns = sample.routed.conversation.turns
        if len(drawn) == 1:
            view = fit_view(drawn[0], [turn.text for turn in turns], size)
            said = tuple(Turn(turn.role, seen_text(turn.text, view, size)) for turn in turns)
            routed = replace(sample.routed, conversation=replace(sample.routed.conversation, turns=said))
            try:
                encoded, questions, _ = tokenise(routed, self.chat, self.tags, self.question_length)
            except InputError:
                pass
            else:
                return replace(sample, encoded=encoded, questions=questions), (view,)
        return sample, tuple(View(colour=view.colour) for view in drawn)

    def look(self, numbers: Sequence[int], views: Sequence[View]) -> Tensor:
        """uint8 ``[images, 3, height, width]``."""
        return torch.stack(
            [self.pixels.view(number, view) for number, view in zip(numbers, views, strict=True)]
        )
