"""A labelling prompt as text: plain, or rendered with the tokenizer's chat template."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError

from priorkit.core.errors import InputError
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.labelling.language_models.prompts import Form
from priorkit.models.language.content_parts import renders_strings

_TEXT_MARK = "\ue000"
"""Placeholder for the text while a chat template is rendered, from Unicode's private use area."""


def render(
    tokenizer: Any, form: Form, system: str, before: str, after: str, images: int = 0, image_token: str = ""
) -> tuple[str, str]:
    """The prompt before and after the text, up to the answer.

    Args:
        tokenizer: gives the chat template.
        form: whether it is used.
        system: system message; may be empty.
        before, after: the user's words around the text.
        images: number of images, which come before everything else.
        image_token: the model's token for an image.

    Raises:
        InputError: the chat template cannot be rendered, or drops the text.
    """
    if form == "plain":
        return f"{image_token}\n" * images + before, after
    user = f"{before}{_TEXT_MARK}{after}"
    rendered = _render_chat(tokenizer, system, user, images, image_token)
    head, mark, tail = rendered.partition(_TEXT_MARK)
    if not mark:
        raise InputError("the chat template drops the question", hint="use --form plain")
    return head, tail


def _render_chat(tokenizer: Any, system: str, user: str, images: int, image_token: str) -> str:
    """Render a chat up to the answer; where the template has no system message, the user's begins with it."""
    in_parts = not renders_strings(tokenizer)

    def turn(role: str, text: str, shown: int = 0) -> dict[str, Any]:
        if not in_parts:
            return {"role": role, "content": f"{image_token}\n" * shown + text}
        return {"role": role, "content": [*[{"type": "image"}] * shown, {"type": "text", "text": text}]}

    asked = turn("user", user, images)
    joined = [turn("user", f"{system}\n\n{user}" if system else user, images)]
    variants = [[turn("system", system), asked], joined] if system else [[asked]]
    for messages in variants:
        try:
            # Templates of reasoning models know enable_thinking; others ignore it.
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except TemplateError:
            continue
        if not system or system.strip() in text:
            return str(text)
    raise InputError("the tokenizer's chat template cannot be rendered", hint="use --form plain")


def ids_before_text(model: ModelAdapter, before: str) -> list[int]:
    """Tokens before the text; they begin as every prompt does (:mod:`priorkit.inference.bos`)."""
    return model.prepend_bos(model.encode(before)) or [model.prefix]


def ids_of_text(model: ModelAdapter, text: str, room: int) -> tuple[list[int], bool]:
    """Tokens of a segment, in which names of special tokens are text.

    Args:
        model: whose tokenizer encodes it.
        text: the segment.
        room: most tokens.

    Returns:
        The ids, and whether the middle was left out because there are more.
    """
    (ids,) = model.document_encoder.ids([text])
    if len(ids) <= room:
        return ids, False
    head = (room + 1) // 2
    return [*ids[:head], *ids[len(ids) - (room - head) :]], True
