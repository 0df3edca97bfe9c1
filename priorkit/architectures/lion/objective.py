"""LION's objective: batches in which every sample has its task type and the Q-Former its questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from priorkit.architectures.lion.augmentation import Variation
from priorkit.architectures.lion.build import LionMultimodal
from priorkit.architectures.lion.modeling.processing import pad_questions
from priorkit.architectures.lion.samples import LionSample
from priorkit.data.images.augmentation import View
from priorkit.data.shuffling import sample_ids
from priorkit.models.kernels.cross_entropy import token_loss
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.training.finetuning.batches import TrainingSample
from priorkit.training.finetuning.objective import InstructionObjective
from priorkit.training.finetuning.vision_features import VisionFeatures
from priorkit.training.objectives.base import Loss


@dataclass(frozen=True)
class RoutedSample(TrainingSample):
    """A tokenised conversation with its task type and the token ids of the question to each image.

    Where images vary, ``views`` tells how each is seen.
    """

    task: int
    questions: tuple[tuple[int, ...], ...]
    views: tuple[View, ...] = ()


class LionSamples:
    """Conversations as :class:`InstructionObjective` asks for them; they are tokenised already."""

    def __init__(self, samples: Sequence[LionSample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        return self._samples[index]

    def images_of(self, index: int) -> Sequence[int]:
        """The numbers of a sample's images."""
        return self._samples[index].numbers


class LionObjective(InstructionObjective):
    """The assistant's words, each sample routed by its own task type, also where samples share a row.

    Args:
        lion: what to train; which parameters train is set by the caller.
        samples: tokenised.
        chat: the tokenizer they were encoded by.
        views: gives the encoder's hidden states.
        scales: learning-rate multiplier of parts.
        packing: whether samples share rows.
        alternating: batch size where batches of one task type follow each other in turn; 0 for mixed
            batches. The rarer type is repeated, so that batches come one to one; with samples of one type
            alone there is nothing to alternate.
        variation: draws a view each time an image is seen; None for the images as they are.
        seed: the order of each type's samples in alternating batches.
    """

    def __init__(
        self,
        lion: LionMultimodal,
        samples: Sequence[LionSample],
        chat: ChatTokenizer,
        views: VisionFeatures,
        scales: Mapping[str, float],
        packing: bool,
        alternating: int = 0,
        variation: Variation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(lion, LionSamples(samples), chat, views, scales, packing)
        self._lion, self._encoded, self._variation, self._seed = lion, samples, variation, seed
        self._of_type = [
            [place for place, sample in enumerate(samples) if sample.task == task] for task in (0, 1)
        ]
        self._alternating = alternating if all(self._of_type) else 0

    def sample(self, index: int, position: int) -> Any:
        """A tokenised conversation; with alternating batches, one of the batch's task type.

        Each type then has an order of its own, a keyed permutation per round, so that none of its samples
        comes again before all have come.
        """
        if self._alternating:
            batch, place = divmod(position, self._alternating)
            task = batch % 2
            own, turn = self._of_type[task], batch // 2 * self._alternating + place
            index = own[int(sample_ids(self._seed << 1 | task, turn, turn + 1, len(own))[0])]
        found, seen = self._encoded[index], ()
        if self._variation is not None and found.numbers:
            found, seen = self._variation.seen(found, position)
        return RoutedSample(found.encoded, found.numbers, found.task, found.questions, seen)

    def collate_images(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """As :class:`InstructionObjective`; where images vary, the pixels of their views."""
        numbers = [number for sample in samples for number in sample.images]
        if self._variation is None or not numbers:
            return super().collate_images(samples)
        return {"pixels": self._variation.look(numbers, [own for sample in samples for own in sample.views])}

    def collate(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """As :class:`InstructionObjective`, with ``task_types`` and the ``questions`` to the images.

        ``task_types`` are int64 ``[rows]``, or ``[rows, time]`` where samples share rows.
        """
        batch = super().collate(samples)
        rows, length = self.arrange(samples)
        if "document_ids" in batch:
            tasks = torch.zeros(len(rows), length, dtype=torch.long)
            for row, places in enumerate(rows):
                start = 0
                for place in places:
                    stop = start + len(samples[place].encoded.input_ids)
                    tasks[row, start:stop] = samples[place].task
                    start = stop
        else:
            tasks = torch.tensor([samples[place].task for places in rows for place in places])
        batch["task_types"] = tasks
        questions = [own for places in rows for place in places for own in samples[place].questions]
        if questions:
            batch["questions"], batch["questions_mask"] = pad_questions(questions, self._pad)
        return batch

    def row_options(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """Task types, and the questions for the Q-Former."""
        return {
            "task_types": batch["task_types"],
            "qformer_input_ids": batch.get("questions"),
            "qformer_attention_mask": batch.get("questions_mask"),
        }

    def loss(self, batch: Mapping[str, Tensor]) -> Loss:
        """Summed cross-entropy of the assistant's tokens, over the words that can be generated."""
        model = self._lion.model
        if model.config.soft_token_id >= model.lm_head.weight.shape[0]:
            return super().loss(batch)

        def head(hidden: Tensor) -> Tensor:
            return model.never_soft(model.lm_head(hidden))

        return Loss(token_loss(self.last_hidden(batch), batch["labels"], cast("Any", head)))
