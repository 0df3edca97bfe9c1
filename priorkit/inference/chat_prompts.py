"""Text of chat prompts and of the answers that may follow them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from priorkit.core.errors import InputError
from priorkit.data.conversations.tag_prompt import SOFT_TOKEN
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.models.language.tokenizer import IMAGE


def remove_special_text(text: str, image_token: str = IMAGE) -> str:
    """A user's text without the reserved tokens: the image placeholder and the soft prompt's token.

    Args:
        text: the text.
        image_token: the model's token for an image, where it is not the placeholder.
    """
    reserved = (IMAGE, image_token, SOFT_TOKEN)
    while any(token in text for token in reserved):  # Removing one may join another.
        for token in reserved:
            text = text.replace(token, "")
    return text


def chat_prompt(
    tokenizer: Any, text: str, answers: Sequence[str] = (), image_token: str = IMAGE, *, parts: bool = False
) -> tuple[str, list[str]]:
    """A user's turn up to where the assistant answers, and answers as they follow on it.

    Args:
        tokenizer: gives the chat template.
        text: of the user; ``<image>`` for an image.
        answers: the assistant's texts.
        image_token: the model's token for an image.
        parts: give the template lists of parts in any case; see :class:`ChatTokenizer`.

    Raises:
        InputError: the template refuses the turn, or rewrites it when an answer follows.
    """
    chat = ChatTokenizer(tokenizer, 1, 0, image_token, parts=parts)
    turn = ("user", text)
    prompt = chat.render([turn], add_generation_prompt=True)
    return prompt, [_answer_in_chat(chat, turn, prompt, answer) for answer in answers]


def _answer_in_chat(chat: ChatTokenizer, turn: tuple[str, str], prompt: str, answer: str) -> str:
    """An answer as the chat template writes it after the prompt: with a space, a line break or nothing before it.

    Args:
        chat: the chat template.
        turn: the user's role and text.
        prompt: the rendered turn, up to where the assistant answers.
        answer: the assistant's text.

    Raises:
        InputError: the template rewrites the prompt when an answer follows.
    """
    rendered = chat.render([turn, ("assistant", answer)], add_generation_prompt=False)
    start = rendered.find(answer.strip(), len(prompt))
    if not rendered.startswith(prompt) or start < 0:
        raise InputError(
            "the chat template does not keep the question as it is before an answer, so that no option "
            "can be scored",
            where=str(chat.tokenizer.name_or_path),
            hint="use --by generation, --prompt plain, or another chat template",
        )
    return rendered[len(prompt) : start + len(answer.strip())]
