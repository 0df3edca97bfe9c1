"""Conversation formats by name: chat templates of Vicuna, LLaVA and Llama 2, and templates from files."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import tomli

from priorkit.core.errors import InputError, UsageError, nearest
from priorkit.core.options.settings import Settings, option
from priorkit.models.language.content_parts import accept_parts

FLAG = "--chat-template"


@cache
def _formats() -> dict[str, dict[str, str]]:
    text = (
        resources.files("priorkit.models.language").joinpath("conversation_formats.toml").read_text("utf-8")
    )
    return tomli.loads(text)


def format_names() -> tuple[str, ...]:
    """The names of the formats."""
    return tuple(_formats())


class ChatTemplateSettings(Settings):
    """How conversations become text."""

    group: ClassVar[str] = "conversations"

    chat_template: str | None = option(
        None,
        f"Chat template: one of {', '.join(format_names())}, or a file with a Jinja template. The artifact keeps it. "
        "Default: the tokenizer's.",
        metavar="NAME|FILE",
        advanced=True,
    )

    def check_template(self, unused: str = "") -> None:
        """Check that the chat template can be read and has an effect.

        Args:
            unused: why it has none; empty where it has.

        Raises:
            UsageError: it has none, or no format and no file has this name.
            InputError: the file is no template.
        """
        if self.chat_template is not None and unused:
            raise UsageError(f"has no effect: {unused}", where=FLAG)
        resolve_template(self.chat_template)

    def template_files(self) -> dict[str, tuple[Path, tuple[str, ...]]]:
        """The file of a chat template, as a step's ``named_files`` gives it; empty for a format's name."""
        path = template_file(self.chat_template)
        return {"chat template": (path.parent, (path.name,))} if path else {}


def chat_template(name: str) -> str:
    """The chat template of a format."""
    return _formats()[name]["template"]


def template_file(given: str | None) -> Path | None:
    """The file that the option names; None where it names a format, or nothing that is there."""
    if given is None or given in _formats():
        return None
    path = Path(given).expanduser()
    return path if path.is_file() else None


def resolve_template(given: str | None) -> str | None:
    """The chat template that the option names; None without one.

    Raises:
        UsageError: neither a format nor a file.
        InputError: the file is no readable Jinja template.
    """
    if given is None or given in _formats():
        return None if given is None else chat_template(given)
    path = template_file(given)
    if path is None:
        raise UsageError(
            f"no conversation format and no file '{given}'", where=FLAG, hint=nearest(given, _formats())
        )
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import _compile_jinja_template  # pyright: ignore

    try:
        text = path.read_text(encoding="utf-8")
        _compile_jinja_template(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"not readable as text: {error}", where=str(path)) from None
    except TemplateSyntaxError as error:
        raise InputError(f"not a Jinja template: {error.message}", where=f"{path}:{error.lineno}") from None
    return text


def use_template(tokenizer: Any, given: str | None, image_token: str = "") -> None:
    """Give a tokenizer the chat template that the option names; without one it keeps its own.

    Args:
        tokenizer: of a model.
        given: the option's value.
        image_token: of a multimodal model; its template takes lists of parts.

    Raises:
        UsageError, InputError: as :func:`resolve_template`.
    """
    template = resolve_template(given)
    if template is not None:
        tokenizer.chat_template = template
        if image_token:
            accept_parts(tokenizer, image_token)
