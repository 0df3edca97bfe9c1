"""Conversations to tokens: the tokenizer's chat template, loss on answers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from priorkit.core.errors import InputError
from priorkit.models.kernels.cross_entropy import IGNORE
from priorkit.models.language.tokenizer import CHAT_TEMPLATE, IMAGE, opened, opening_ids


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


Turns = Sequence[tuple[str, str]]
"""Role and text of each turn."""


class TooLongError(InputError):
    """A conversation of which nothing can be learnt within the maximum length."""


class ChatTokenizer:
    """Applies a tokenizer's chat template.

    Args:
        tokenizer: a fast tokenizer; where it has no chat template, the kit's default is set on it and
            so travels with the artifact.
        image_tokens: how many tokens stand for one image.
        max_length: longer conversations are cut at the end of their answer, never in an image.
        image_token: the token that stands for an image in the model; conversations write ``<image>``.
    """

    def __init__(self, tokenizer: Any, image_tokens: int, max_length: int, image_token: str = IMAGE) -> None:
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            tokenizer.chat_template = CHAT_TEMPLATE
        self.image_tokens = image_tokens
        self.max_length = max_length
        self.image_token = image_token
        self._parts = not _takes_strings(tokenizer)
        self._opening = opening_ids(tokenizer)
        self._shapes: dict[tuple[tuple[str, int], ...], str] = {}

    def text(self, turns: Turns, generate: bool) -> str:
        """The conversation as text, perhaps with the prompt for the next answer at its end.

        Raises:
            InputError: the template refuses the conversation, as some do those with a system turn.
        """
        messages = [{"role": role, "content": self._content(content)} for role, content in turns]
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generate
            )
        except TemplateError as error:
            raise InputError(
                f"the chat template refuses the conversation: {error}",
                hint="change its turns, or give the tokenizer another template",
            ) from None

    def obstacle(self, turns: Turns) -> str:
        """Why no conversation of such roles and numbers of images can be learnt from; empty where one can."""
        shape = tuple((role, words.count(IMAGE)) for role, words in turns)
        if shape not in self._shapes:
            try:
                said = [f"{IMAGE}\n" * images + f"so {place}" for place, (_, images) in enumerate(shape)]
                self._spans([(role, words) for (role, _), words in zip(shape, said, strict=True)])
                self._shapes[shape] = ""
            except InputError as error:
                self._shapes[shape] = error.problems[0].what
        return self._shapes[shape]

    def _content(self, content: str) -> str | list[dict[str, str]]:
        """A turn as the template wants it: words with the model's image token, or a list of parts."""
        if not self._parts:
            return content.replace(IMAGE, self.image_token)
        parts: list[dict[str, str]] = []
        for number, words in enumerate(content.split(IMAGE)):
            if number:
                parts.append({"type": "image"})
                # Such templates set the line break after an image themselves.
                words = words.removeprefix("\n")
            if words:
                parts.append({"type": "text", "text": words})
        return parts

    def _expand(self, text: str) -> str:
        return text.replace(self.image_token, self.image_token * self.image_tokens)

    def prompt(self, turns: Turns) -> list[int]:
        """Token ids of a conversation up to where the assistant is to answer."""
        text = self._expand(self.text(turns, generate=True))
        return opened(self.tokenizer(text, add_special_tokens=False)["input_ids"], self._opening)

    def encode(self, turns: Turns) -> Encoded:
        """Token ids of a conversation, with labels on the assistant's words and end tokens.

        The spans are found in the text, by rendering the conversation up to each answer with and
        without it, so that any chat template works; where a template writes earlier turns otherwise
        once others follow (Qwen3 thinks in the last alone), by marks at the turns' ends. White space after
        an end token (ChatML's line break) is the template's, not the answer's, and carries no loss. What the
        tokenizer puts before a text when it is called (Llama's beginning of text) stands first, once.

        Raises:
            InputError: the template refuses the conversation or rewrites what was said, so that answers
                cannot be told from questions; the number of images is not kept by the template; or an
                image would be cut by the maximum length, or no word of an answer is left by it.
        """
        text, spans = self._spans(turns)
        expanded = [(len(self._expand(text[:start])), len(self._expand(text[:end]))) for start, end in spans]
        encoded = self.tokenizer(self._expand(text), add_special_tokens=False, return_offsets_mapping=True)
        labels = _labels(encoded["input_ids"], encoded["offset_mapping"], expanded)
        ids = opened(encoded["input_ids"], self._opening)
        return self._cut(ids, [IGNORE] * (len(ids) - len(labels)) + labels)

    def _spans(self, turns: Turns) -> tuple[str, list[tuple[int, int]]]:
        """The conversation as text, and where in it the assistant's words and end tokens are."""
        text = self.text(turns, generate=False)
        wanted = sum(words.count(IMAGE) for _, words in turns)
        if (found := text.count(self.image_token)) != wanted:
            raise InputError(f"the chat template makes {found} image tokens of {wanted} images")
        spans: list[tuple[int, int]] = []
        for place, (role, words) in enumerate(turns):
            if role == "assistant":
                before = self.text(turns[:place], generate=True)
                after = self.text(turns[: place + 1], generate=False)
                if not text.startswith(before) or not text.startswith(after):
                    return text, self._marked_spans(turns, text)
                spans.append((len(before), _end_of_answer(after, len(before), words)))
        return text, spans

    def _marked_spans(self, turns: Turns, text: str) -> list[tuple[int, int]]:
        """The spans of :meth:`_spans`, found by marks that are set behind the words of every turn.

        An answer begins where, behind the turn before it, the prompt for an answer ends; where the template
        prompts otherwise than it writes (for thoughts, say), where the two part. It ends with what the
        template writes behind it both as the last turn and in its place.

        Raises:
            InputError: without its marks the marked text is not the text.
        """
        free = next(chr(code) for code in range(0xF0000, 0xFFFFE) if chr(code) not in text)
        marks = [f"{free}{place}{free}" for place in range(len(turns))]
        for trims in product((str, str.rstrip), repeat=2):  # many templates trim what one or both say
            marked = [
                (role, trims[role == "assistant"](words) + mark)
                for (role, words), mark in zip(turns, marks, strict=True)
            ]
            rendered = self.text(marked, generate=False)
            ends, plain = _without(rendered, marks)
            if plain == text and len(ends) == len(turns):
                break
        else:
            raise InputError(
                "the chat template does not keep what was said as it is, so answers cannot be found",
                hint="use a template that writes every turn's words unchanged",
            )
        spans: list[tuple[int, int]] = []
        for place, (role, _) in enumerate(turns):
            if role != "assistant":
                continue
            begun = ends[place - 1] if place else 0
            prompt = self.text(marked[:place], generate=True)
            header = prompt.rpartition(marks[place - 1])[2] if place else prompt
            start = begun + _shared(header, text[begun : ends[place]])
            closing = self.text(marked[: place + 1], generate=False).rpartition(marks[place])[2]
            tail = closing[: _shared(closing, text[ends[place] :])]
            spans.append((start, ends[place] + len(tail.rstrip() or tail)))
        return spans

    def _cut(self, ids: list[int], labels: list[int]) -> Encoded:
        if len(ids) <= self.max_length:
            return Encoded(ids, labels, truncated=False)
        image = self.tokenizer.convert_tokens_to_ids(self.image_token)
        if image in ids[self.max_length :]:
            raise TooLongError(f"an image lies beyond the maximum length of {self.max_length} tokens")
        kept = labels[: self.max_length]
        if all(label == IGNORE for label in kept):
            raise TooLongError(f"no answer begins within the maximum length of {self.max_length} tokens")
        return Encoded(ids[: self.max_length], kept, truncated=True)


def check_template(tokenizer: Any, folder: Path, image_token: str = "") -> None:
    """Check that answers can be found in what a chat template makes of a conversation of two rounds.

    Args:
        tokenizer: with a chat template; one without will get the kit's.
        folder: where it is.
        image_token: the model's, where it sees images; the first question then shows one.

    Raises:
        InputError: they cannot, or the template fails.
    """
    if not tokenizer.chat_template:
        return
    rounds = [("user", IMAGE if image_token else ""), ("assistant", ""), ("user", ""), ("assistant", "")]
    obstacle = ChatTokenizer(tokenizer, 1, 0, image_token or IMAGE).obstacle(rounds)
    if obstacle:
        raise InputError(obstacle, where=str(folder), hint="give its tokenizer another chat template")


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _without(text: str, marks: Sequence[str]) -> tuple[list[int], str]:
    """Where marks that come in order stand in a text without them, and that text."""
    ends: list[int] = []
    plain = ""
    for mark in marks:
        before, found, text = text.partition(mark)
        plain += before
        if found:
            ends.append(len(plain))
    return ends, plain + text


def _takes_strings(tokenizer: Any) -> bool:
    """Whether the chat template renders a turn's content given as text; LLaVA's own want lists of parts."""
    probe = "priorkit"
    try:
        text = tokenizer.apply_chat_template([{"role": "user", "content": probe}], tokenize=False)
    except Exception:  # templates raise errors of many kinds on what they do not expect
        return False
    return probe in text


def _end_of_answer(text: str, start: int, words: str) -> int:
    """Where an answer ends, its end token included, without the white space that follows that."""
    said = words.strip()
    place = text.find(said, start)
    tail = text[place + len(said) :] if place >= 0 else text[start:]
    return len(text.rstrip()) if tail.strip() else len(text)


def _labels(
    ids: Sequence[int], offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]
) -> list[int]:
    """The ids of tokens that lie within a span of characters, :data:`IGNORE` for the others."""
    labels = [IGNORE] * len(ids)
    span = 0
    for place, (start, end) in enumerate(offsets):
        while span < len(spans) and start >= spans[span][1]:
            span += 1
        if span == len(spans):
            break
        if start < end and start >= spans[span][0] and end <= spans[span][1]:
            labels[place] = ids[place]
    return labels
