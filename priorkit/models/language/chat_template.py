"""Conversations to token ids with the tokenizer's chat template; labels on the assistant's tokens only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from priorkit.core.errors import InputError
from priorkit.models.kernels.cross_entropy import IGNORE
from priorkit.models.language.content_parts import renders_strings
from priorkit.models.language.tokenizer import CHAT_TEMPLATE, IMAGE, bos_ids, prepend_bos


@dataclass(frozen=True, slots=True)
class TokenizedConversation:
    """A tokenized conversation.

    Attributes:
        input_ids: token ids, an image token repeated for each position of its image.
        labels: the ids of supervised tokens, :data:`IGNORE` elsewhere.
        truncated: whether it was truncated to the maximum length.
    """

    input_ids: list[int]
    labels: list[int]
    truncated: bool

    @property
    def supervised(self) -> int:
        """How many tokens the loss is computed on."""
        return sum(label != IGNORE for label in self.labels)


Turns = Sequence[tuple[str, str]]
"""Role and text of each turn."""


TextEncoding = tuple[Sequence[int], Sequence[tuple[int, int]]]
"""Token ids of a text, and first and last character (exclusive) of each."""


class TooLongError(InputError):
    """A conversation without a supervised token, or with an image cut, within the maximum length."""


class ChatTokenizer:
    """Applies a tokenizer's chat template.

    Attributes:
        encode_text: tokens of a rendered text; may be replaced by a faster function that gives the same.

    Args:
        tokenizer: a fast tokenizer; if it has no chat template, priorkit's default is set on it, so that the
            artifact includes it.
        image_tokens: number of positions of an image.
        max_length: longer conversations are truncated, but not before the end of an image.
        image_token: the model's token for an image; conversations write ``<image>``.
        parts: give the template lists of parts also where it takes strings: a multimodal model's template writes
            more around an image than its token.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_tokens: int,
        max_length: int,
        image_token: str = IMAGE,
        *,
        parts: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            tokenizer.chat_template = CHAT_TEMPLATE
        self.image_tokens = image_tokens
        self.max_length = max_length
        self.image_token = image_token
        self.encode_text: Callable[[str], TextEncoding] = self.tokenizer_encoding
        self._content_as_parts = parts or not renders_strings(tokenizer)
        self._bos_ids = bos_ids(tokenizer)
        self._problems: dict[tuple[tuple[str, int], ...], str] = {}

    def render(self, turns: Turns, add_generation_prompt: bool) -> str:
        """The conversation as text, with the prompt for the next answer at its end if asked for.

        Raises:
            InputError: the template refuses the conversation, as some do with a system turn.
        """
        messages = [{"role": role, "content": self._content(content)} for role, content in turns]
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise InputError(
                f"the chat template refuses the conversation: {error}",
                where=str(self.tokenizer.name_or_path),
                hint="change its turns, or give the tokenizer another template",
            ) from None

    def template_problem(self, turns: Turns) -> str:
        """Why the template cannot be used for conversations with these roles and images; empty if it can."""
        shape = tuple((role, content.count(IMAGE)) for role, content in turns)
        if shape not in self._problems:
            texts = [f"{IMAGE}\n" * images + f"text {turn}" for turn, (_, images) in enumerate(shape)]
            try:
                self._spans([(role, content) for (role, _), content in zip(shape, texts, strict=True)])
                self._problems[shape] = ""
            except InputError as error:
                self._problems[shape] = error.what
        return self._problems[shape]

    def _content(self, content: str) -> str | list[dict[str, str]]:
        """A turn's content for the template: text with the model's image token, or a list of parts."""
        if not self._content_as_parts:
            return content.replace(IMAGE, self.image_token)
        parts: list[dict[str, str]] = []
        for number, text in enumerate(content.split(IMAGE)):
            if number:
                parts.append({"type": "image"})
                # Such templates write the line break after an image themselves.
                text = text.removeprefix("\n")
            if text:
                parts.append({"type": "text", "text": text})
        return parts

    def _expand(self, text: str) -> str:
        """The text with the image token repeated for each position of an image."""
        return text.replace(self.image_token, self.image_token * self.image_tokens)

    def prompt(self, turns: Turns) -> list[int]:
        """Token ids of a conversation with the prompt for the assistant's next answer."""
        text = self._expand(self.render(turns, add_generation_prompt=True))
        return prepend_bos(self.tokenizer(text, add_special_tokens=False)["input_ids"], self._bos_ids)

    def encode(self, turns: Turns) -> TokenizedConversation:
        """Token ids of a conversation, with labels on the assistant's answers and their end tokens.

        The answers' spans are found by rendering the conversation up to each answer with and without it,
        which works with any chat template; if a template renders earlier turns differently once others follow
        (Qwen3 shows thoughts in the last turn only), by marks at the ends of turns. White space after an end
        token (ChatML's line break) belongs to the template, not to the answer, and is not supervised. Ids that
        the tokenizer puts before every text (Llama's BOS) come first, once.

        Raises:
            InputError: the template refuses the conversation, changes the turns so that answers cannot be
                found, or changes the number of images.
            TooLongError: the maximum length would cut an image or leaves no supervised token.
        """
        text, spans = self._spans(turns)
        tokens, offsets = self.encode_text(text)
        tokens, labels = self._repeat_images(tokens, _labels(tokens, offsets, spans))
        ids = prepend_bos(tokens, self._bos_ids)
        return self._truncate(ids, [IGNORE] * (len(ids) - len(labels)) + labels)

    def tokenizer_encoding(self, text: str) -> TextEncoding:
        """Token ids of a rendered text and the characters of each, by the tokenizer itself."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return encoded["input_ids"], encoded["offset_mapping"]

    def _repeat_images(self, tokens: Sequence[int], labels: Sequence[int]) -> tuple[list[int], list[int]]:
        """Tokens and labels with each image token repeated for the positions of its image."""
        if self.image_tokens == 1:
            return list(tokens), list(labels)
        image = self.tokenizer.convert_tokens_to_ids(self.image_token)
        counts = [self.image_tokens if token == image else 1 for token in tokens]
        repeated = [value for value, count in zip(tokens, counts, strict=True) for _ in range(count)]
        targets = [value for value, count in zip(labels, counts, strict=True) for _ in range(count)]
        return repeated, targets

    def _spans(self, turns: Turns) -> tuple[str, list[tuple[int, int]]]:
        """The conversation as text, and the character spans of answers with their end tokens."""
        text = self.render(turns, add_generation_prompt=False)
        images = sum(content.count(IMAGE) for _, content in turns)
        if (image_tokens := text.count(self.image_token)) != images:
            raise InputError(f"the chat template renders {images} images as {image_tokens} image tokens")
        spans: list[tuple[int, int]] = []
        for turn, (role, content) in enumerate(turns):
            if role == "assistant":
                before = self.render(turns[:turn], add_generation_prompt=True)
                last = turn + 1 == len(turns)
                after = text if last else self.render(turns[: turn + 1], add_generation_prompt=False)
                if not text.startswith(before) or not text.startswith(after):
                    return text, self._marked_spans(turns, text)
                spans.append((len(before), _end_of_answer(after, len(before), content)))
        return text, spans

    def _marked_spans(self, turns: Turns, text: str) -> list[tuple[int, int]]:
        """The spans of :meth:`_spans`, found by marks after the content of every turn.

        An answer begins after the turn before it and the generation prompt, or at the first difference if the
        template renders that prompt differently in a conversation (thoughts, for example). It ends with
        what the template writes after it both as the last turn and at its position.

        Raises:
            InputError: the marked text without its marks differs from the text.
        """
        unused = next(chr(code) for code in range(0xF0000, 0xFFFFE) if chr(code) not in text)
        marks = [f"{unused}{turn}{unused}" for turn in range(len(turns))]
        for trims in product((str, str.rstrip), repeat=2):  # many templates strip one role's turns or both
            marked = [
                (role, trims[role == "assistant"](content) + mark)
                for (role, content), mark in zip(turns, marks, strict=True)
            ]
            rendered = self.render(marked, add_generation_prompt=False)
            ends, plain = _remove_marks(rendered, marks)
            if plain == text and len(ends) == len(turns):
                break
        else:
            raise InputError(
                "the chat template changes the text of turns, so answers cannot be found",
                hint="use a template that writes the text of every turn unchanged",
            )
        spans: list[tuple[int, int]] = []
        for turn, (role, _) in enumerate(turns):
            if role != "assistant":
                continue
            previous_end = ends[turn - 1] if turn else 0
            prompt = self.render(marked[:turn], add_generation_prompt=True)
            header = prompt.rpartition(marks[turn - 1])[2] if turn else prompt
            start = previous_end + _common_prefix_length(header, text[previous_end : ends[turn]])
            as_last = self.render(marked[: turn + 1], add_generation_prompt=False)
            closing = as_last.rpartition(marks[turn])[2]
            tail = closing[: _common_prefix_length(closing, text[ends[turn] :])]
            spans.append((start, ends[turn] + len(tail.rstrip() or tail)))
        return spans

    def _truncate(self, ids: list[int], labels: list[int]) -> TokenizedConversation:
        if len(ids) <= self.max_length:
            return TokenizedConversation(ids, labels, truncated=False)
        image_id = self.tokenizer.convert_tokens_to_ids(self.image_token)
        if image_id in ids[self.max_length :]:
            raise TooLongError(f"an image is beyond the maximum length of {self.max_length} tokens")
        kept_labels = labels[: self.max_length]
        if all(label == IGNORE for label in kept_labels):
            raise TooLongError(f"no answer begins within the maximum length of {self.max_length} tokens")
        return TokenizedConversation(ids[: self.max_length], kept_labels, truncated=True)


def check_chat_template(tokenizer: Any, folder: Path, image_token: str = "") -> None:
    """Check that answers can be found in a conversation of two rounds rendered with a chat template.

    Args:
        tokenizer: the tokenizer; without a chat template it passes, as it will get priorkit's default.
        folder: where it is, for messages.
        image_token: of a multimodal model; the first question then has an image.

    Raises:
        InputError: they cannot, the template fails, or none of several is the default.
    """
    if not tokenizer.chat_template:
        return
    if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
        names = ", ".join(sorted(tokenizer.chat_template))
        raise InputError(
            f"none of the chat templates ({names}) is named 'default'",
            where=str(folder),
            hint="name the one to use so, or give its tokenizer a single chat template",
        )
    rounds = [("user", IMAGE if image_token else ""), ("assistant", ""), ("user", ""), ("assistant", "")]
    problem = ChatTokenizer(tokenizer, 1, 0, image_token or IMAGE).template_problem(rounds)
    if problem:
        raise InputError(problem, where=str(folder), hint="give its tokenizer another chat template")


def _common_prefix_length(left: str, right: str) -> int:
    pairs = zip(left, right, strict=False)
    shorter = min(len(left), len(right))
    return next((index for index, (a, b) in enumerate(pairs) if a != b), shorter)


def _remove_marks(text: str, marks: Sequence[str]) -> tuple[list[int], str]:
    """Positions of marks, which come in order, in the text without them, and that text."""
    positions: list[int] = []
    plain = ""
    for mark in marks:
        before, separator, text = text.partition(mark)
        plain += before
        if separator:
            positions.append(len(plain))
    return positions, plain + text


def _end_of_answer(text: str, start: int, answer: str) -> int:
    """The end of an answer with its end token, without the white space after that."""
    answer = answer.strip()
    position = text.find(answer, start)
    tail = text[position + len(answer) :] if position >= 0 else text[start:]
    return len(text.rstrip()) if tail.strip() else len(text)


def _labels(
    ids: Sequence[int], offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]
) -> list[int]:
    """The ids of tokens that are within a span of characters, :data:`IGNORE` for the others."""
    labels = [IGNORE] * len(ids)
    span = 0
    for position, (start, end) in enumerate(offsets):
        while span < len(spans) and start >= spans[span][1]:
            span += 1
        if span == len(spans):
            break
        if start < end and start >= spans[span][0] and end <= spans[span][1]:
            labels[position] = ids[position]
    return labels
