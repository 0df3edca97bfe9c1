"""Conversations to tokens: the tokenizer's chat template, loss on answers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from priorkit.core.errors import InputError
from priorkit.models.loss import IGNORE
from priorkit.models.tokenizer import CHAT_TEMPLATE, IMAGE


@dataclass(frozen=True, slots=True)
class Encoded:
    """A tokenised conversation.

    Attributes:
        input_ids: token ids, image placeholders expanded.
        labels: the ids where the assistant speaks, :data:`IGNORE` elsewhere.
        truncated: whether it was cut at the maximum length.
    """

    input_ids: list[int]
    labels: list[int]
    truncated: bool


class ChatTokenizer:
    """Applies a tokenizer's chat template.

    Args:
        tokenizer: a fast tokenizer; where it has no chat template, the kit's default is set on it and
            so travels with the artifact.
        image_tokens: how many tokens stand for one image.
        max_length: longer conversations are cut at the end of their answer, never in an image.
    """

    def __init__(self, tokenizer: Any, image_tokens: int, max_length: int) -> None:
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            tokenizer.chat_template = CHAT_TEMPLATE
        self.image_tokens = image_tokens
        self.max_length = max_length

    def text(self, turns: Sequence[tuple[str, str]], generate: bool) -> str:
        """The conversation as text, perhaps with the prompt for the next answer at its end."""
        messages = [{"role": role, "content": content} for role, content in turns]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate)

    def _expand(self, text: str) -> str:
        return text.replace(IMAGE, IMAGE * self.image_tokens)

    def prompt(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """Token ids of a conversation up to where the assistant is to answer."""
        text = self._expand(self.text(turns, generate=True))
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def encode(self, turns: Sequence[tuple[str, str]]) -> Encoded:
        """Token ids of a conversation, with labels on the assistant's words and end tokens.

        The spans are found in the text, by rendering the conversation up to each answer with and
        without it, so that any chat template works.

        Raises:
            InputError: the template's prompt is not a prefix of the conversation, so that answers cannot
                be told from questions; or an image would be cut by the maximum length.
        """
        text = self.text(turns, generate=False)
        spans: list[tuple[int, int]] = []
        for place, (role, _) in enumerate(turns):
            if role == "assistant":
                before = self.text(turns[:place], generate=True)
                after = self.text(turns[: place + 1], generate=False)
                if not text.startswith(before) or not text.startswith(after):
                    raise InputError(
                        "the chat template does not keep earlier turns as they are, so answers cannot be found",
                        hint="use a template whose generation prompt is a prefix of the conversation",
                    )
                spans.append((len(self._expand(before)), len(self._expand(after))))
        encoded = self.tokenizer(self._expand(text), add_special_tokens=False, return_offsets_mapping=True)
        ids: list[int] = encoded["input_ids"]
        labels = [
            token if any(start < end and start >= first and end <= last for first, last in spans) else IGNORE
            for token, (start, end) in zip(ids, encoded["offset_mapping"], strict=True)
        ]
        return self._cut(ids, labels)

    def _cut(self, ids: list[int], labels: list[int]) -> Encoded:
        if len(ids) <= self.max_length:
            return Encoded(ids, labels, truncated=False)
        image = self.tokenizer.convert_tokens_to_ids(IMAGE)
        if image in ids[self.max_length :]:
            raise InputError(f"an image lies beyond the maximum length of {self.max_length} tokens")
        return Encoded(ids[: self.max_length], labels[: self.max_length], truncated=True)
