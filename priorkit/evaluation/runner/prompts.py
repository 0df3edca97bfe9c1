"""Prompts: the question with its instruction, as a chat turn or as plain text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Literal

import tomli

from priorkit.core.boxes import DECIMAL_BOXES
from priorkit.data.conversations.tag_prompt import tag_sentence
from priorkit.evaluation.tasks.base import AnswerMode, ChoiceForm, Task
from priorkit.evaluation.tasks.choice import lettered_options
from priorkit.evaluation.tasks.item import Item
from priorkit.inference.chat_prompts import chat_prompt, remove_special_text
from priorkit.models.language.tokenizer import IMAGE

PromptKind = Literal["chat", "plain"]


@cache
def instructions() -> dict[str, dict[str, str]]:
    """The instructions of ``prompts.toml`` by kind of prompt and task."""
    return tomli.loads(
        resources.files("priorkit.evaluation.runner").joinpath("prompts.toml").read_text("utf-8")
    )


@dataclass(frozen=True)
class ItemPrompt:
    """One item as a model meets it.

    Attributes:
        text: what the model reads, one placeholder per image.
        options: the texts whose likelihood is compared, as they follow on ``text``; each is a group of
            spellings whose probabilities are added. Empty for generation.
        contexts: what each option follows on, where that differs from option to option.
        user_text: only the user's words, without image placeholder and tags.
    """

    text: str
    options: tuple[tuple[str, ...], ...] = ()
    contexts: tuple[str, ...] = ()
    user_text: str = ""


@dataclass(frozen=True)
class PromptWording:
    """A benchmark's own wording; empty texts leave it to ``prompts.toml``.

    Attributes:
        chat: the user's turn.
        plain: the text that is gone on with.
        joiner: what separates plain text and answer.
    """

    chat: str = ""
    plain: str = ""
    joiner: str = " "


@dataclass(frozen=True)
class PromptBuilder:
    """Makes prompts.

    Attributes:
        tokenizer: gives the chat template.
        kind: ``chat`` or ``plain``.
        choices: whether options are lettered and letters compared, or the options' texts.
        tags: what becomes of an item's tags: ``off``, ``hard`` or ``soft``; see :data:`priorkit.models.multimodal.base.TagUse`.
        wording: the benchmark's wording.
        image_token: the model's token for an image.
        box_request: the sentence that asks for a box; empty for the usual one.
        parts: give the chat template lists of text and images in any case.
    """

    tokenizer: Any
    kind: PromptKind
    choices: ChoiceForm
    tags: str = "off"
    wording: PromptWording = PromptWording()
    image_token: str = IMAGE
    box_request: str = ""
    parts: bool = False

    def __call__(self, item: Item, task: Task, mode: AnswerMode) -> ItemPrompt:
        """The prompt of an item."""
        placeholder = (IMAGE + "\n") * len(item.images)
        if self.kind == "chat":
            text = self.user_text(item, task, mode)
            sentence = "" if item.tags is None else tag_sentence(item.tags, self.tags)
            prompt = self._chat(placeholder + sentence + text, self.options(item, task, mode))
            return replace(prompt, user_text=text)
        options = "\n".join(lettered_options(item))
        form = self._form(self.wording.plain, item, task, mode)
        joiner = self.wording.joiner
        spelled = tuple(tuple(joiner + text for text in group) for group in self.options(item, task, mode))
        if item.contexts and mode == "likelihood":
            ending = (joiner + remove_special_text(item.text, self.image_token),)
            contexts = tuple(
                placeholder + remove_special_text(text, self.image_token) for text in item.contexts
            )
            return ItemPrompt(contexts[0], (ending,) * len(contexts), contexts)
        # lm-evaluation-harness scores a blank at the end of the context with the option, so that here the
        # question is not stripped.
        bare = form == "{question}"
        question = item.question if bare else item.question.strip()
        question_text = remove_special_text(form.format(question=question, options=options), self.image_token)
        return ItemPrompt(placeholder + (question_text if bare else question_text.lstrip("\n")), spelled)

    def user_text(self, item: Item, task: Task, mode: AnswerMode) -> str:
        """The user's words in a chat: question, options and instruction, without images and tags."""
        form = self._form(self.wording.chat, item, task, mode)
        options = "\n".join(lettered_options(item))
        text = form.format(question=item.question.strip(), options=options)
        return remove_special_text(text.strip("\n"), self.image_token)

    def _form(self, worded: str, item: Item, task: Task, mode: AnswerMode) -> str:
        form = worded or instructions()[self.kind][self._key(item, task, mode)]
        return form.replace("{box_request}", self.box_request or DECIMAL_BOXES.request)

    def _key(self, item: Item, task: Task, mode: AnswerMode) -> str:
        """Which instruction of ``prompts.toml`` asks an item."""
        return task.instruction(item, "letter" if mode == "generation" else self.choices)

    def options(self, item: Item, task: Task, mode: AnswerMode) -> tuple[tuple[str, ...], ...]:
        """What is compared: letters, the options' own texts, or both spellings of yes and of no."""
        if mode != "likelihood":
            return ()
        return tuple(
            tuple(remove_special_text(text, self.image_token) for text in spellings)
            for spellings in task.options(item, self.choices)
        )

    def _chat(self, text: str, options: tuple[tuple[str, ...], ...]) -> ItemPrompt:
        flat = [option for group in options for option in group]
        before, continuations = chat_prompt(self.tokenizer, text, flat, self.image_token, parts=self.parts)
        remaining = iter(continuations)
        return ItemPrompt(before, tuple(tuple(next(remaining) for _ in group) for group in options))
