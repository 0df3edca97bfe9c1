"""Tokenization of LION's conversations: tags before the question, boxes never truncated."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from priorkit.architectures.lion.modeling.processing import question_ids
from priorkit.core.boxes import BoxWriter
from priorkit.core.errors import InputError
from priorkit.data.conversations.conversation import Turn
from priorkit.data.conversations.tag_prompt import SOFT_TOKEN, clean_tag, tag_sentence, with_sentence
from priorkit.data.conversations.task_conversations import TaskConversation, questions_of
from priorkit.models.kernels.cross_entropy import IGNORE
from priorkit.models.language.chat_template import ChatTokenizer, TokenizedConversation


@dataclass(frozen=True, slots=True)
class TokenizedSample:
    """What the model reads of a conversation.

    Attributes:
        encoded: its tokens.
        questions: token ids of the bare question to each image, for the Q-Former.
        shortened: whether its list of tags was shortened.
    """

    encoded: TokenizedConversation
    questions: tuple[tuple[int, ...], ...]
    shortened: bool


@dataclass(frozen=True)
class ConversationTokenizer:
    """Tokenizes conversations with their tags.

    A list of tags is shortened from its end until the conversation fits; the soft token is never truncated.
    Answers may be; see ``TokenizedConversation.truncated``.

    Attributes:
        chat: applies the chat template.
        tags: ``off``, ``hard`` or ``soft``.
        question_length: maximum number of tokens of a question for the Q-Former.
        boxes: the format of boxes in texts.
    """

    chat: ChatTokenizer
    tags: str
    question_length: int
    boxes: BoxWriter

    def tokenize(self, sample: TaskConversation) -> TokenizedSample:
        """Tokenize a conversation.

        Raises:
            InputError: an image, the soft token, a box or the first answer would be truncated.
        """
        encoded, shortened = self._fit_tags(sample)
        if encoded.truncated and self.boxes.boxes_in(turn.text for turn in sample.turns):
            self._refuse_truncated_box(sample, encoded)
        questions = tuple(
            tuple(question_ids(self.chat.tokenizer, question, self.question_length))
            for question in questions_of(sample.turns)
        )
        return TokenizedSample(encoded, questions, shortened)

    def _fit_tags(self, sample: TaskConversation) -> tuple[TokenizedConversation, bool]:
        """The tokens with as many tags as fit, and whether tags were left out."""
        if self.tags == "off" or sample.tags is None:
            return _encode(self.chat, sample.turns), False
        tags = [tag for tag in sample.tags if clean_tag(tag)]
        soft_id = self.chat.tokenizer.convert_tokens_to_ids(SOFT_TOKEN)
        count = len(tags)
        while True:
            encoded, problem = None, None
            try:
                encoded = _encode(
                    self.chat, with_sentence(sample.turns, tag_sentence(tags[:count], self.tags))
                )
            except InputError as error:
                problem = error
            if encoded is not None and (not encoded.truncated or count == 0):
                if self.tags == "soft" and encoded.input_ids.count(soft_id) != 1:
                    raise InputError(f"the soft token would be cut at {self.chat.max_length} tokens")
                return encoded, count < len(tags)
            if count == 0:
                raise problem or InputError("the conversation does not fit")
            count = count * 3 // 4

    def _refuse_truncated_box(self, sample: TaskConversation, truncated: TokenizedConversation) -> None:
        """Half a box must not be trained on; an answer that is left out or keeps all its boxes is fine."""
        chat = self.chat
        unlimited = ChatTokenizer(chat.tokenizer, chat.image_tokens, sys.maxsize, chat.image_token)
        turns = sample.turns
        if self.tags != "off" and sample.tags is not None:
            # A truncated conversation has lost all its tags.
            turns = with_sentence(turns, tag_sentence((), self.tags))
        complete = _encode(unlimited, turns)
        stop = end = len(truncated.labels)
        start = stop
        while start and complete.labels[start - 1] != IGNORE:
            start -= 1
        while end < len(complete.labels) and complete.labels[end] != IGNORE:
            end += 1
        shown, answer = (chat.tokenizer.decode(complete.input_ids[start:index]) for index in (stop, end))
        if start < stop and len(self.boxes.boxes_in([shown])) < len(self.boxes.boxes_in([answer])):
            raise InputError(f"a box would be cut at {chat.max_length} tokens")


def _encode(chat: ChatTokenizer, turns: Sequence[Turn]) -> TokenizedConversation:
    return chat.encode([(turn.role, turn.text) for turn in turns])
