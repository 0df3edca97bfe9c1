"""LION's objective: batches in which every sample has its task type and the Q-Former its questions."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from priorkit.architectures.lion.augmentation import SampleAugmentation
from priorkit.architectures.lion.build import LionMultimodal
from priorkit.architectures.lion.modeling.adapters import decoder_layers
from priorkit.architectures.lion.modeling.configuration import TASK_TYPES
from priorkit.architectures.lion.modeling.model import parameter_part
from priorkit.architectures.lion.modeling.processing import pad_questions
from priorkit.architectures.lion.samples import LionSample, LionSamples
from priorkit.core.process import distributed
from priorkit.core.process.runtime import Runtime
from priorkit.data.shuffling import sample_ids
from priorkit.models.kernels.cross_entropy import token_loss
from priorkit.training.engine.activation_checkpointing import Activations
from priorkit.training.finetuning.objective import InstructionObjective
from priorkit.training.finetuning.vision_features import VisionFeatures
from priorkit.training.objectives.base import Loss


class LionObjective(InstructionObjective):
    """Loss of the supervised tokens, each sample routed by its own task type, also where samples share a row.

    Args:
        lion: what to train; which parameters train is set by the caller.
        samples: the conversations.
        features: gives the encoder's hidden states.
        scales: learning-rate multiplier of parts.
        packing: whether samples share rows.
        alternating: batch size where batches of the task types alternate; 0 for mixed batches. The rarer
            type is repeated, so that there are as many batches of each; samples of one type only do not
            alternate.
        augmentation: draws a view each time an image is encoded; None for the images as they are.
        seed: the order of each type's samples in alternating batches.
        router_decays: whether weight decay acts on the router.
    """

    def __init__(
        self,
        lion: LionMultimodal,
        samples: LionSamples,
        features: VisionFeatures,
        scales: Mapping[str, float],
        packing: bool,
        alternating: int = 0,
        augmentation: SampleAugmentation | None = None,
        seed: int = 0,
        router_decays: bool = False,
    ) -> None:
        super().__init__(lion, cast("Any", samples), samples.tokenizer.chat, features, scales, packing)
        self._lion, self._lion_samples, self._augmentation, self._seed = lion, samples, augmentation, seed
        self._indices_of_task = [
            array("q", (index for index, task in enumerate(samples.tasks) if task == number))
            for number in range(len(TASK_TYPES))
        ]
        self._router_decays = router_decays
        self._alternating = alternating if all(self._indices_of_task) else 0

    def save_memory(self, activations: Activations, shard: bool, runtime: Runtime) -> None:
        """Checkpoint activations, and shard the frozen decoder's layers.

        LION's parts, the encoder and the embeddings are small and stay whole in every process, so that no process
        waits for another's images.

        Args:
            activations: what is recomputed in the backward pass.
            shard: whether the layers are sharded across processes.
            runtime: device and precision.
        """
        super().save_memory(activations, False, runtime)
        if shard:
            decoder = self._lion.decoder
            layers = decoder_layers(decoder)
            sharded = {id(parameter) for layer in layers for parameter in layer.parameters()}
            whole = [parameter for parameter in decoder.parameters() if id(parameter) not in sharded]
            distributed.shard(decoder, layers, runtime, whole)

    def gather(self) -> None:
        """Nothing that LION saves is sharded."""

    def decays_vector(self, name: str) -> bool:
        """Whether weight decay acts on a parameter that is a vector."""
        return self._router_decays and parameter_part(name) == "router"

    def sample(self, index: int, position: int) -> LionSample:
        """A tokenized conversation; with alternating batches, one of the batch's task type.

        Each type then has its own order, a keyed permutation per round, so that none of its samples
        is repeated before all have been drawn.
        """
        if self._alternating:
            batch, offset = divmod(position, self._alternating)
            task = batch % 2
            indices, drawn = self._indices_of_task[task], batch // 2 * self._alternating + offset
            index = indices[int(sample_ids(self._seed << 1 | task, drawn, drawn + 1, len(indices))[0])]
        sample = self._lion_samples[index]
        if self._augmentation is None or not sample.images:
            return sample
        return self._augmentation.augment(sample, self._lion_samples.conversation(index), position)

    def collate_images(self, samples: Sequence[Any]) -> dict[str, Any]:
        """As :class:`InstructionObjective`; with augmentation, the pixels of the views."""
        numbers = [number for sample in samples for number in sample.images]
        if self._augmentation is None or not numbers:
            return super().collate_images(samples)
        views = [view for sample in samples for view in sample.views]
        return {"pixels": self._augmentation.views_of(numbers, views)}

    def collate(self, samples: Sequence[Any]) -> dict[str, Any]:
        """As :class:`InstructionObjective`, with ``task_types`` and the ``questions`` to the images.

        ``task_types`` are int64 ``[rows]``, or ``[rows, time]`` where samples share rows.
        """
        batch = super().collate(samples)
        rows, length = self.arrange(samples)
        if "document_ids" in batch:
            tasks = torch.zeros(len(rows), length, dtype=torch.long)
            for row, places in enumerate(rows):
                start = 0
                for index in places:
                    stop = start + len(samples[index].encoded.input_ids)
                    tasks[row, start:stop] = samples[index].task
                    start = stop
        else:
            tasks = torch.tensor([samples[index].task for places in rows for index in places])
        batch["task_types"] = tasks
        questions = [question for places in rows for index in places for question in samples[index].questions]
        if questions:
            batch["questions"], batch["questions_mask"] = pad_questions(questions, self._pad)
        return batch

    def row_options(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Task types, and the questions for the Q-Former."""
        return {
            "task_types": batch["task_types"],
            "qformer_input_ids": batch.get("questions"),
            "qformer_attention_mask": batch.get("questions_mask"),
        }

    def loss(self, batch: Mapping[str, Any]) -> Loss:
        """Summed cross-entropy of the supervised tokens, over the tokens that can be generated."""
        model = self._lion.model
        if model.config.soft_token_id >= model.lm_head.weight.shape[0]:
            return super().loss(batch)

        def head(hidden: Tensor) -> Tensor:
            return model.never_soft(model.lm_head(hidden))

        return Loss(token_loss(self.last_hidden(batch), batch["labels"], cast("Any", head), batch["labeled"]))
