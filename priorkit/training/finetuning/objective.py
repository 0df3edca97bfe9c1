"""Objective of align, tune and blind-tune: the assistant's tokens, given images and the rest of the conversation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from priorkit.core.process import distributed
from priorkit.core.process.runtime import Runtime
from priorkit.data.conversations.sample_packing import FINE, into_rows
from priorkit.models.blocks import transformer_blocks
from priorkit.models.kernels.cross_entropy import (
    count_targets,
    labeled_positions,
    output_head,
    token_loss,
)
from priorkit.models.kernels.documents import (
    boundary_options,
    document_boundaries,
    document_options,
    document_positions,
)
from priorkit.models.language.chat_template import ChatTokenizer, TokenizedConversation
from priorkit.models.multimodal.base import TrainableModel
from priorkit.training.engine.activation_checkpointing import Activations, checkpoint_activations
from priorkit.training.engine.compilation import compile_decoder
from priorkit.training.engine.resource_estimates import TuningCounts
from priorkit.training.finetuning.batches import (
    ConversationSamples,
    TrainingSample,
    collate_rows,
    padding_id,
    tokenize_conversation,
)
from priorkit.training.finetuning.packing_support import packing_obstacle
from priorkit.training.finetuning.vision_features import VisionFeatures
from priorkit.training.objectives.base import Loss

logger = logging.getLogger(__name__)

TOKEN_CACHE = 32 << 20
"""Tokenized conversations are kept in each process up to this many tokens; the others are tokenized again each time."""


class ShardRoot(nn.Module):
    """The root of sharded parameters: during its forward pass the parameters outside the blocks are gathered.

    The objective calls the model's parts separately, and FSDP2 gathers the parameters of called modules only.

    Args:
        inner: holds the parameters.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, function: Callable[[Mapping[str, Any]], Tensor], batch: Mapping[str, Any]) -> Tensor:
        """The function's result for a batch."""
        return function(batch)


class InstructionObjective:
    """Instruction tuning, with and without images in a batch, packed or padded.

    Packed, the samples of a micro-batch share rows with block-diagonal attention; positions start at 0 in each,
    and no token predicts the first of the next, so loss and gradients are those of the padded batch.

    Args:
        subject: the model to train; the caller sets ``requires_grad`` of its parameters.
        samples: the conversations; tokenized on access.
        chat: applies the chat template and expands image placeholders.
        features: gives the features of images; None for text only.
        scales: learning-rate multiplier of each part (``projector``, ``llm``, ``encoder``).
        packing: whether samples share rows, where the model supports it.
        module: holds the parameters, where that is a wrapper around the model (PEFT, a placeholder).
        placeholder: its ``weight`` ``[tokens, width]`` replaces the embeddings of an image.
        lengths_per_octave: number of row lengths per doubling; few where each is compiled.
    """

    unit = "tokens"

    def __init__(
        self,
        subject: TrainableModel,
        samples: ConversationSamples,
        chat: ChatTokenizer,
        features: VisionFeatures | None = None,
        scales: Mapping[str, float] | None = None,
        packing: bool = True,
        module: nn.Module | None = None,
        placeholder: nn.Embedding | None = None,
        lengths_per_octave: int = FINE,
    ) -> None:
        self.module: nn.Module = module if module is not None else subject.model
        self._subject, self._samples, self._chat, self._features = subject, samples, chat, features
        self._scales, self._placeholder = scales or {}, placeholder
        self._pad = padding_id(chat.tokenizer)
        self._per_octave = lengths_per_octave
        obstacle = packing_obstacle(subject.model.config, chat.max_length) if packing else ""
        if obstacle:
            logger.info(f"conversations are padded, not packed: {obstacle}")
        self._packs = packing and not obstacle
        self._tokenized: dict[int, TokenizedConversation] = {}
        self._cached_tokens = 0
        self.counted = TuningCounts()
        self._positions = 0
        self._image_token_id: int | None = None
        if features is not None or placeholder is not None:
            self._image_token_id = chat.tokenizer.convert_tokens_to_ids(chat.image_token)
        self._shard_root: ShardRoot | None = None

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def useful_share(self) -> float:
        """Share of the positions computed so far that are not padding."""
        return self.counted.tokens / max(1, self._positions)

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self._subject.model.config

    def save_memory(self, activations: Activations, shard: bool, runtime: Runtime) -> None:
        """Checkpoint activations, and shard the parameters: the language model's layers one by one.

        The encoder's layers are sharded with the rest: a process whose batch has no images does not call them,
        and the others would wait for it.

        Args:
            activations: what is recomputed in the backward pass.
            shard: whether parameters are sharded across processes.
            runtime: device and precision.
        """
        checkpoint_activations(self._subject.model, activations)
        if shard:
            self.module = self._shard_root = ShardRoot(self.module)
            distributed.shard(self._shard_root, transformer_blocks(self._subject.decoder)[1], runtime)

    def gather(self) -> None:
        """Gather what is sharded, to be saved by the first process."""
        distributed.gather(self.module)

    def compile_decoder(self, by_block: bool) -> None:
        """Compile the language model: one graph per row length, of which there are few.

        Args:
            by_block: see :func:`priorkit.training.engine.compilation.compile_decoder`.
        """
        for name in ("recompile_limit", "cache_size_limit"):
            if hasattr(torch._dynamo.config, name):
                setattr(torch._dynamo.config, name, 64)
        compile_decoder(self._subject.decoder, by_block)

    def sample(self, index: int, position: int) -> TrainingSample:
        """A tokenized conversation with its images' numbers."""
        tokenized = self._tokenized.get(index)
        if tokenized is None:
            tokenized = tokenize_conversation(self._chat, self._samples[index])
            if self._cached_tokens < TOKEN_CACHE:
                self._tokenized[index] = tokenized
                self._cached_tokens += len(tokenized.input_ids)
        return TrainingSample(tokenized, tuple(self._samples.images_of(index)))

    def arrange(self, samples: Sequence[TrainingSample]) -> tuple[list[list[int]], int]:
        """The indices of each row's samples, in order, and the length of all rows."""
        lengths = [len(sample.encoded.input_ids) for sample in samples]
        if self._packs:
            return into_rows(lengths, self._per_octave)
        return [[index] for index in range(len(samples))], max(lengths)

    def collate(self, samples: Sequence[TrainingSample]) -> dict[str, Any]:
        """A micro-batch, with everything that would have to be read from a GPU during the forward pass.

        Returns:
            ``input_ids``, ``labels`` and ``document_ids`` (the sample's number in its row, -1 for padding), int64
            ``[rows, time]``; padded batches have ``attention_mask`` instead of ``document_ids``. ``labeled``,
            ``boundaries`` of the samples, ``image_positions`` int64 ``[positions]`` in the concatenated rows, and
            the ``work`` that a forward pass is. In addition the images in the order of the rows, as
            :meth:`VisionFeatures.collate` gives them.
        """
        rows, length = self.arrange(samples)
        batch: dict[str, Any] = collate_rows(samples, rows, length, self._pad)
        documents = batch["document_ids"]
        batch["labeled"], batch["boundaries"] = (
            labeled_positions(batch["labels"]),
            document_boundaries(documents),
        )
        batch["work"] = _work(documents, batch["labels"])
        if self._image_token_id is not None:
            batch["image_positions"] = (batch["input_ids"].view(-1) == self._image_token_id).nonzero()[:, 0]
        if not self._packs:
            batch["attention_mask"] = (batch.pop("document_ids") >= 0).long()
        return batch | self.collate_images([samples[index] for row in rows for index in row])

    def collate_images(self, samples: Sequence[TrainingSample]) -> dict[str, Any]:
        """The part of a batch that holds its samples' images, in their order."""
        images = [image for sample in samples for image in sample.images]
        return self._features.collate(images) if images and self._features is not None else {}

    def weight(self, batch: Mapping[str, Any]) -> int:
        """The number of supervised tokens."""
        return count_targets(batch["labels"])

    def loss(self, batch: Mapping[str, Any]) -> Loss:
        """Summed cross-entropy of the supervised tokens."""
        if self._shard_root is not None:
            return Loss(self._shard_root(self._sharded_loss, batch))
        return Loss(self._summed_loss(batch))

    def _summed_loss(self, batch: Mapping[str, Any]) -> Tensor:
        head = output_head(self._subject.model)
        return token_loss(self.last_hidden(batch), batch["labels"], head, batch["labeled"])

    def _sharded_loss(self, batch: Mapping[str, Any]) -> Tensor:
        """The loss where parameters are sharded: all processes must have gradients of the same parameters.

        A process without images gets zero gradients for the projector or placeholder if another process has
        images; if none has, these parameters have no gradient, as in a single process.
        """
        total = self._summed_loss(batch)
        placeholders = self._placeholder_embeddings(batch)
        has_images = placeholders is not None or "pixels" in batch or "images" in batch
        if distributed.any_process(has_images) and not has_images:
            if self._placeholder is not None:
                unused = self._placeholder.weight
            elif self._features is not None:
                unused = self._subject.model.model.multi_modal_projector(self._features.example())
            else:
                raise RuntimeError("another process has images, this one has no source of their features")
            total = total + 0.0 * unused.float().sum()
        return total

    def last_hidden(self, batch: Mapping[str, Any]) -> Tensor:
        """Last hidden states ``[rows, time, width]`` of a batch."""
        options: dict[str, Any] = {"use_cache": False}
        implementation = self._subject.model.config.get_text_config()._attn_implementation
        if "document_ids" in batch:
            dtype = self._subject.model.get_input_embeddings().weight.dtype
            options |= document_options(batch["document_ids"], batch["boundaries"], implementation, dtype)
            mask = options.pop("attention_mask")
        else:
            mask = batch["attention_mask"]
            options |= boundary_options(batch["boundaries"], implementation)
        features = self._features.of_batch(batch) if self._features is not None else None
        self._count_work(batch, features)
        if self._image_token_id is not None:
            options["image_positions"] = batch["image_positions"]
        placeholder = self._placeholder_embeddings(batch)
        options |= self.row_options(batch)
        ids = batch["input_ids"]
        return self._subject.hidden(ids, mask, features, placeholder, **options).last_hidden_state

    def _count_work(self, batch: Mapping[str, Any], features: Tensor | None) -> None:
        """Count what a batch computes, for the estimate of FLOP/s."""
        work: dict[str, int] = batch["work"]
        self._positions += work["positions"]
        self.counted.tokens += work["tokens"]
        self.counted.squared_lengths += work["squared_lengths"]
        self.counted.supervised_tokens += work["supervised_tokens"]
        if features is not None:
            images, patches = features.shape[:2]
            self.counted.projected_patches += images * patches
            if "pixels" in batch:
                self.counted.encoded_patches += images * patches
                self.counted.encoded_squared_lengths += images * patches**2

    def row_options(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Further arguments of the model for a batch; none here."""
        return {}

    def _placeholder_embeddings(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The learned placeholder, repeated for every withheld image; None where there is none."""
        if self._placeholder is None:
            return None
        count = len(batch["image_positions"]) // self._placeholder.num_embeddings
        return self._placeholder.weight.repeat(count, 1) if count else None

    def learning_rate_scale(self, name: str) -> float:
        """The multiplier of the part that a parameter belongs to."""
        return self._scales.get(self._subject.parameter_part(name), 1.0)


def _work(document_ids_BT: Tensor, labels_BT: Tensor) -> dict[str, int]:
    """What a forward pass of a batch is: positions, of them tokens, squares of the documents' lengths, targets."""
    used, positions = document_ids_BT >= 0, document_positions(document_ids_BT)
    return {
        "positions": used.numel(),
        "tokens": int(used.sum()),
        # The first T odd numbers sum to T squared.
        "squared_lengths": int(((2 * positions + 1) * used).sum()),
        "supervised_tokens": count_targets(labels_BT),
    }
