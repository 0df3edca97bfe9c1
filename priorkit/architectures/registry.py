"""The architectures that ``tune`` trains and ``evaluate`` loads: a line each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from priorkit.architectures.base import Architecture, TuneOptions
    from priorkit.core.options.settings import Settings
    from priorkit.inference.model_info import ModelInfo


@dataclass(frozen=True)
class Entry:
    """Where an architecture is.

    Attributes:
        package: its folder, as a module; see :class:`priorkit.architectures.base.Architecture`.
        summary: how images enter the language model, for ``--help``.
    """

    package: str
    summary: str


ARCHITECTURES: dict[str, Entry] = {
    "llava": Entry("priorkit.architectures.llava", "patch features through a projector"),
    "lion": Entry("priorkit.architectures.lion", "LION's parts on a frozen LLaVA model"),
}


def architecture(name: str) -> Architecture:
    """An architecture by name."""
    return import_module(f"{ARCHITECTURES[name].package}.architecture").ARCHITECTURE


def tune_options() -> dict[str, TuneOptions]:
    """The options of ``tune`` that each architecture takes, by name; imports no torch."""
    return {name: import_module(f"{entry.package}.settings").OPTIONS for name, entry in ARCHITECTURES.items()}


def option_groups() -> tuple[type[Settings], ...]:
    """The groups of options that only some architectures take, each once."""
    return tuple(dict.fromkeys(group for options in tune_options().values() for group in options.groups))


def owner_of(folder: Path) -> str:
    """The name of the architecture that recognizes a directory; empty where none does."""
    return next((name for name in ARCHITECTURES if architecture(name).recognizes(folder)), "")


def check_model(folder: Path) -> ModelInfo:
    """Find out from headers what a model directory holds, multimodal models of all architectures included.

    Raises:
        InputError: no model, or a broken one.
    """
    from priorkit.architectures.image_text.architecture import FORMAT
    from priorkit.inference import model_info

    return model_info.check_model(folder, [*map(architecture, ARCHITECTURES), FORMAT])
