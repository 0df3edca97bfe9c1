"""Options of the steps that learn from conversations: what is read, how it is mixed and how it is batched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator

from priorkit.core.settings import Settings, option, reject_limit_option
from priorkit.core.values import Count, Named, NamedNumbers, Words

ONLY = "all"
"""The name of a source that is given as a path alone."""


def _sources(value: Any) -> Any:
    """Let a path alone stand for one source without a name of its own."""
    items = [value] if isinstance(value, str) else value
    if isinstance(items, list | tuple) and len(items) == 1:
        (item,) = items
        if isinstance(item, str) and ("=" not in item or Path(item).expanduser().exists()):
            return {ONLY: item}
    return items


Sources = Annotated[Named, BeforeValidator(_sources)]
"""One path, or several ``NAME=PATH``."""


class InstructionSettings(Settings):
    """What is read of the conversations and how they fill batches."""

    group: ClassVar[str] = "conversations"

    weight: NamedNumbers = option(
        {},
        "A source's share of the samples, on any scale; by size where none is given.",
        metavar="NAME=W",
        advanced=True,
    )
    subset: Count | None = option(
        None,
        "Samples of the mixture, drawn by the seed, such as 1M; as many as use no sample twice where not given.",
        metavar="N",
        ge=1,
        advanced=True,
    )
    max_epochs: float = option(
        4.0, "How often a source's samples may be repeated in the mixture.", gt=0, advanced=True
    )
    ability: Words = option(
        (),
        "Keep only samples of these groups of abilities (their key 'ability').",
        metavar="GROUP",
        advanced=True,
    )
    max_length: Count = option(
        0, "Longest conversation in tokens, images included; 0 for what the model takes.", metavar="N"
    )
    reject_limit: float = reject_limit_option("samples")
    packing: bool = option(
        True,
        "Put several conversations into a row, each blind to the others; else one to a row, padded.",
        advanced=True,
    )
    compile: bool = option(
        False,
        "Compile the language model with torch.compile (needs a C++ compiler on CPUs).",
        advanced=True,
    )
