"""Chat templates that take content as a list of parts, as LLaVA's do: text and images in their places.

Most language models' templates concatenate strings. transformers, vLLM and lmms-eval give a multimodal model lists,
``[{"type": "image"}, {"type": "text", "text": ...}]``. A few lines before such a template turn lists into strings with
image tokens, and leave strings as they are. They iterate over ``message['content']``, which is how vLLM recognizes
templates that take parts.
"""

from __future__ import annotations

import json
from typing import Any

_PARTS_TO_TEXT = """\
{%- set content_parts = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set joined = namespace(text='', after_image=false, complete=message['content'] is defined \
and message['content'] is iterable and message['content'] is not string and message['content'] is not mapping) -%}
{%- if joined.complete -%}
{%- for part in message['content'] -%}
{%- set type = part['type'] if part is mapping and 'type' in part else '' -%}
{%- if type in ('video', 'video_url', 'audio', 'audio_url', 'input_audio') -%}
{{- raise_exception('this model takes text and images, not ' ~ type) -}}
{%- elif type in ('image', 'image_url') or (not type and part is mapping and ('image' in part or 'image_url' in part)) -%}
{%- set piece = IMAGE_TOKEN -%}
{%- elif part is string -%}{%- set piece = part -%}
{%- elif type in ('', 'text') and part is mapping and part['text'] is string -%}{%- set piece = part['text'] -%}
{%- else -%}{%- set piece = '' -%}{%- set joined.complete = false -%}
{%- endif -%}
{%- if joined.after_image and piece and not piece[0].isspace() -%}
{%- set joined.text = joined.text + '\\n' -%}
{%- endif -%}
{%- set joined.text = joined.text + piece -%}
{%- set joined.after_image = piece == IMAGE_TOKEN if piece else joined.after_image -%}
{%- endfor -%}
{%- endif -%}
{%- set message = dict(message, content=joined.text) if joined.complete else message -%}
{%- set content_parts.messages = content_parts.messages + [message] -%}
{%- endfor -%}
{%- set messages = content_parts.messages %}
"""
"""Before a template: list content becomes a string, with a line break between an image and text that has none.

Lists with other parts, as some tools return them, are left to the template. The last line ends without ``-``:
transformers trims one line break after a block, so that the template begins as it would without these lines.
"""


def with_parts(template: str, image_token: str) -> str:
    """A template of strings that also takes lists of parts.

    Args:
        template: renders ``message['content']`` as a string.
        image_token: written in the place of an image.
    """
    # Jinja reads a string of JSON with its escapes, but not surrogate pairs.
    return _PARTS_TO_TEXT.replace("IMAGE_TOKEN", json.dumps(image_token, ensure_ascii=False)) + template


def accept_parts(tokenizer: Any, image_token: str) -> None:
    """Let a tokenizer's chat templates take lists of parts; those that do, or that take nothing else, are kept.

    Args:
        tokenizer: has a chat template, or several by name.
        image_token: the model's token for an image.
    """
    templates = tokenizer.chat_template
    if isinstance(templates, str):
        tokenizer.chat_template = _accepting(tokenizer, templates, image_token)
    else:
        tokenizer.chat_template = {
            name: _accepting(tokenizer, template, image_token) for name, template in templates.items()
        }


def renders_strings(tokenizer: Any, template: str | None = None) -> bool:
    """Whether a chat template renders content given as a string; some multimodal models' need a list of parts.

    Args:
        tokenizer: gives the special tokens, and the template where none is given.
        template: the template.
    """
    return _PROBE in (_rendered(tokenizer, template, [("user", _PROBE)]) or "")


_PROBE = "priorkit"


def _accepting(tokenizer: Any, template: str, image_token: str) -> str:
    takes_parts = _takes_parts(tokenizer, template, image_token)
    return (
        template
        if takes_parts or not renders_strings(tokenizer, template)
        else with_parts(template, image_token)
    )


def _takes_parts(tokenizer: Any, template: str, image_token: str) -> bool:
    """Whether a template renders lists with the image token once per image, and texts in lists as strings."""
    image = [{"type": "image"}, {"type": "text", "text": _PROBE}]
    with_image = _rendered(tokenizer, template, [("user", image)]) or ""
    if with_image.count(image_token) != 1 or with_image.count(_PROBE) != 1:
        return False
    words = [("system", "Be brief."), ("user", _PROBE), ("assistant", "Yes."), ("user", "Why?")]
    return all(
        _rendered(tokenizer, template, turns)
        == _rendered(tokenizer, template, [(role, [{"type": "text", "text": text}]) for role, text in turns])
        for turns in (words, words[1:])
    )


def _rendered(tokenizer: Any, template: str | None, turns: list[tuple[str, Any]]) -> str | None:
    """The turns as text; None where the template fails."""
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    except Exception:  # templates raise errors of many kinds on what they do not expect
        return None
