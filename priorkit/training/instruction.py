"""Objective of align, tune and blind-tune: the assistant's words, given images and questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from priorkit.core.errors import InputError
from priorkit.data.conversations import Conversation
from priorkit.data.pixels import KEEP_BYTES, Pixels
from priorkit.data.rejects import Rejects
from priorkit.models.chat import ChatTokenizer, Encoded
from priorkit.models.loss import IGNORE, count_targets, token_loss
from priorkit.training.objective import Loss


@dataclass(frozen=True)
class Sample:
    """A tokenised conversation with the indices of its images."""

    encoded: Encoded
    images: tuple[int, ...]


def pad(samples: Sequence[Sample], pad_token_id: int) -> dict[str, Tensor]:
    """Token ids, labels and mask ``[batch, time]``, padded on the right to the longest sample."""
    length = max(len(sample.encoded.input_ids) for sample in samples)
    shape = (len(samples), length)
    batch = {
        "input_ids": torch.full(shape, pad_token_id),
        "labels": torch.full(shape, IGNORE),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
    }
    for row, sample in enumerate(samples):
        count = len(sample.encoded.input_ids)
        batch["input_ids"][row, :count] = torch.tensor(sample.encoded.input_ids)
        batch["labels"][row, :count] = torch.tensor(sample.encoded.labels)
        batch["attention_mask"][row, :count] = 1
    return batch


class TextInstructionObjective:
    """Instruction tuning of a language model on conversations without images.

    Args:
        model: a causal LM.
        conversations: without image placeholders.
        chat: applies the chat template.
    """

    unit = "tokens"

    def __init__(self, model: Any, conversations: Sequence[Conversation], chat: ChatTokenizer) -> None:
        self.module: nn.Module = model
        self._model, self._chat = model, chat
        self._encoded: list[Encoded] = [encode(chat, conversation) for conversation in conversations]
        self._pad = padding_id(chat.tokenizer)

    def __len__(self) -> int:
        return len(self._encoded)

    def sample(self, index: int, position: int) -> Sample:
        """A tokenised conversation."""
        return Sample(self._encoded[index], ())

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Token ids, labels and mask."""
        return pad(samples, self._pad)

    def weight(self, batch: dict[str, Tensor]) -> int:
        """The number of tokens the assistant speaks."""
        return count_targets(batch["labels"])

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """Summed cross-entropy of the assistant's tokens."""
        decoder = self._model.get_decoder()
        output = decoder(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        )
        head = self._model.get_output_embeddings()
        return Loss(token_loss(output.last_hidden_state, batch["labels"], head))

    def learning_rate_scale(self, name: str) -> float:
        """All parameters learn at the same rate."""
        return 1.0


class MultimodalObjective:
    """Instruction tuning of a multimodal model, with and without images in a batch.

    Args:
        multimodal: what to train, a :class:`priorkit.models.multimodal.Multimodal`; which parameters
            train is set by the caller.
        conversations: the samples.
        chat: applies the chat template and expands image placeholders.
        pixels: the images of all conversations in order.
        scales: learning-rate multiplier of each part (``projector``, ``llm``, ``encoder``).
        train_encoder: whether gradients flow into the encoder; if not, patch features of each image are
            computed once and kept.
        module: what holds the parameters, where that is a wrapper (PEFT) around the model.
    """

    unit = "tokens"

    def __init__(
        self,
        multimodal: Any,
        conversations: Sequence[Conversation],
        chat: ChatTokenizer,
        pixels: Pixels,
        scales: Mapping[str, float],
        train_encoder: bool,
        module: nn.Module | None = None,
    ) -> None:
        self.module: nn.Module = module if module is not None else multimodal.model
        self._multimodal = multimodal
        self._encoded = [encode(chat, conversation) for conversation in conversations]
        first = 0
        self._images: list[tuple[int, ...]] = []
        for conversation in conversations:
            self._images.append(tuple(range(first, first + len(conversation.images))))
            first += len(conversation.images)
        self._pixels, self._scales, self._train_encoder = pixels, scales, train_encoder
        self._pad = padding_id(chat.tokenizer)
        self._features: dict[int, Tensor] = {}
        self._features_bytes = 0

    def __len__(self) -> int:
        return len(self._encoded)

    def sample(self, index: int, position: int) -> Sample:
        """A tokenised conversation with its images' indices."""
        return Sample(self._encoded[index], self._images[index])

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Token ids, labels, mask, and the images: pixels, or features where they are known."""
        batch: dict[str, Any] = pad(samples, self._pad)
        images = [image for sample in samples for image in sample.images]
        if images and self._train_encoder:
            batch["pixels"] = torch.stack([self._pixels[image] for image in images])
        elif images:
            # Only their numbers: batches may be put together in another process than the model's.
            batch["images"] = torch.tensor(images)
        return batch

    @torch.no_grad()
    def _known_features(self, images: Sequence[int]) -> Tensor:
        """Patch features of a frozen encoder, computed the first time an image is seen.

        They are kept in fp32 as computed in fp32, whatever the step's precision and batch.
        """
        device = self._multimodal.device
        found: list[Tensor] = []
        for image in images:
            features = self._features.get(image)
            if features is None:
                pixels = self._pixels[image][None].to(device)
                with torch.autocast(device.type, enabled=False):
                    features = self._multimodal.patch_features(pixels)[0].cpu()
                if self._features_bytes < KEEP_BYTES:
                    self._features[image] = features
                    self._features_bytes += features.nbytes
            found.append(features)
        return torch.stack(found).to(device)

    def weight(self, batch: dict[str, Any]) -> int:
        """The number of tokens the assistant speaks."""
        return count_targets(batch["labels"])

    def loss(self, batch: dict[str, Any]) -> Loss:
        """Summed cross-entropy of the assistant's tokens."""
        features = None
        if "pixels" in batch:
            features = self._multimodal.patch_features(batch["pixels"])
        elif "images" in batch:
            features = self._known_features(batch["images"].tolist())
        output = self._multimodal.hidden(
            batch["input_ids"], batch["attention_mask"], features, use_cache=False
        )
        return Loss(token_loss(output.last_hidden_state, batch["labels"], self._multimodal.model.lm_head))

    def learning_rate_scale(self, name: str) -> float:
        """The multiplier of the part a parameter belongs to."""
        return self._scales.get(self._multimodal.part_of(name), 1.0)


def encode(chat: ChatTokenizer, conversation: Conversation) -> Encoded:
    """Tokenise a conversation by the chat template; an error names the conversation."""
    try:
        return chat.encode([(turn.role, turn.text) for turn in conversation.turns])
    except InputError as error:
        raise InputError(
            error.problems[0].what, where=f"conversation {conversation.id}", hint=error.problems[0].hint
        ) from None


def fitting(
    chat: ChatTokenizer, conversations: Sequence[Conversation], rejects: Rejects, source: str
) -> list[Conversation]:
    """The conversations whose images lie within the maximum length; the others go to ``rejects``."""
    kept: list[Conversation] = []
    for number, conversation in enumerate(conversations, start=1):
        characters = sum(len(turn.text) for turn in conversation.turns)
        # A token is at least a character, so only long ones need a closer look.
        if (
            conversation.images
            and characters + len(conversation.images) * chat.image_tokens > chat.max_length // 2
        ):
            try:
                encode(chat, conversation)
            except InputError as error:
                rejects.add(source, number, str(error))
                continue
        kept.append(conversation)
    rejects.judge()
    return kept


def padding_id(tokenizer: Any) -> int:
    """The id that fills short rows; masked everywhere, so any will do where there is none."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
