"""All text sources of a world by name."""

from __future__ import annotations

import random
from collections.abc import Sequence

from priorkit.world.options import WorldOptions
from priorkit.world.scenes.entities import Entity
from priorkit.world.text import documents, real_text, reasoning
from priorkit.world.text.documents import Document
from priorkit.world.text.traced_code import traced_program


def text_sources(
    options: WorldOptions, entities: Sequence[Entity]
) -> dict[str, tuple[list[Document], list[Document]]]:
    """The training and the held-out documents of each source."""
    writers: dict[str, documents.Writer] = {
        "visual": documents.visual_writer(
            entities, options.image_size, options.box_writer, options.listing_share
        ),
        "facts": documents.facts_writer(entities),
        "arithmetic": reasoning.arithmetic,
        "logic": reasoning.logic,
        "code": traced_program,
    }
    sources = {
        name: documents.split(
            write,
            random.Random(f"text-{name}/{options.seed}"),
            name,
            options.text_characters,
            options.heldout_share,
        )
        for name, write in writers.items()
    }
    sources["python-source"] = real_text.python_source(options.python_characters, options.heldout_share)
    sources["python-docs"] = real_text.python_docs(options.python_characters, options.heldout_share)
    return sources
