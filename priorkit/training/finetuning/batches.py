"""Samples of finetuning and their batches: several conversations in a row, or one per row with padding."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.data.conversations.conversation import Conversation, Turn
from priorkit.data.text.fast_encoder import COMPARED_DOCUMENTS, FastEncodingDiffers
from priorkit.data.text.rendered_text import RenderedTextEncoder
from priorkit.models.kernels.cross_entropy import IGNORE
from priorkit.models.language.chat_template import ChatTokenizer, TextEncoding, TokenizedConversation

logger = logging.getLogger(__name__)


class ConversationSamples(Protocol):
    """Conversations by sample number, such as :class:`priorkit.data.conversations.conversation_store.ConversationMixture`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Conversation: ...
    def images_of(self, index: int, /) -> Sequence[int]:
        """The numbers of a sample's images."""
        ...


@dataclass(frozen=True)
class TrainingSample:
    """A tokenized conversation with the numbers of its images."""

    encoded: TokenizedConversation
    images: tuple[int, ...]


def tokenize_conversation(chat: ChatTokenizer, conversation: Conversation) -> TokenizedConversation:
    """Tokenize a conversation with the chat template.

    Raises:
        InputError: as :meth:`ChatTokenizer.encode`, with the conversation's id as the place.
    """
    try:
        return chat.encode([(turn.role, turn.text) for turn in conversation.turns])
    except InputError as error:
        raise error.at(f"conversation {conversation.id}") from None


class _WithTurns(Protocol):
    @property
    def turns(self) -> Sequence[Turn]: ...


class Conversations(Protocol):
    """Anything that has conversations by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> _WithTurns: ...


def use_fast_encoding(chat: ChatTokenizer, conversations: Conversations) -> bool:
    """Let gigatoken encode conversations where it gives what the tokenizer gives for one of every 256.

    What a run trains on does not depend on it: the comparison is made before the first step, and a difference that is
    found later ends its use.

    Args:
        chat: the tokenizer of the conversations.
        conversations: those of the run.
    """
    try:
        encoder = RenderedTextEncoder(chat.tokenizer)
    except ValueError as error:
        logger.debug(f"conversations are encoded without gigatoken: {error}")
        return False
    for index in range(0, len(conversations), COMPARED_DOCUMENTS):
        turns = [(turn.role, turn.text) for turn in conversations[index].turns]
        if not encoder.agrees(chat.render(turns, add_generation_prompt=False)):
            logger.info("  gigatoken's tokens are not those of tokenizers: not used")
            return False

    def encode(text: str) -> TextEncoding:
        try:
            return encoder.encode(text)
        except FastEncodingDiffers as difference:
            logger.warning(f"{difference}: not used from here on")
            chat.encode_text = chat.tokenizer_encoding
            return chat.tokenizer_encoding(text)

    chat.encode_text = encode
    return True


def collate_rows(
    samples: Sequence[TrainingSample], rows: Sequence[Sequence[int]], length: int, pad_token_id: int
) -> dict[str, Tensor]:
    """Concatenate samples in rows.

    Args:
        samples: the samples of a micro-batch.
        rows: the indices of each row's samples, in order.
        length: positions of a row.
        pad_token_id: fills the rest of a row.

    Returns:
        ``input_ids``, ``labels`` and ``document_ids`` (the sample's number in its row, -1 for padding), int64
        ``[rows, length]``. A sample's first token has no label: it would be predicted from another sample.
    """
    shape = (len(rows), length)
    batch = {
        "input_ids": torch.full(shape, pad_token_id),
        "labels": torch.full(shape, IGNORE),
        "document_ids": torch.full(shape, -1),
    }
    for row, indices in enumerate(rows):
        start = 0
        for number, index in enumerate(indices):
            encoded = samples[index].encoded
            stop = start + len(encoded.input_ids)
            batch["input_ids"][row, start:stop] = torch.tensor(encoded.input_ids)
            batch["labels"][row, start + 1 : stop] = torch.tensor(encoded.labels[1:])
            batch["document_ids"][row, start:stop] = number
            start = stop
    return batch


def padding_id(tokenizer: Any) -> int:
    """The token id of padding: masked everywhere, so the end-of-text id or 0 will do where there is none."""
    token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return 0 if token_id is None else token_id
