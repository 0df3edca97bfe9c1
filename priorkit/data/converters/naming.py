"""Entity images as instructions: a question for the name, and the name, so that all arms train on the same images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from priorkit.data.converters.base import ConverterOptions, PerEntity, Row
from priorkit.data.images.decoding import BrokenImageError, decode
from priorkit.data.images.entity_sources import EntityLayout, entity_references
from priorkit.data.io.rejects import Rejects

QUESTIONS = (
    "What is shown here?",
    "Name what you see.",
    "What is this called?",
)

SPLIT = "train"


def convert(source: Path, options: ConverterOptions, rejects: Rejects) -> Iterator[tuple[str, Row]]:
    """Yield a conversation per image in LLaVA's format, with the image embedded; images are decoded once.

    Names by id are used as they are; synonyms are not compared, as that would hold all ids.

    Raises:
        InputError: there are no entity images.
    """
    wanted = PerEntity(options.images_per_entity)
    layout = EntityLayout(split=options.split)
    for number, (given, ref) in enumerate(entity_references(source, rejects, [], layout)):
        entity = options.entity_names.by_id.get(given, given)
        if not wanted.takes(SPLIT, entity):
            continue
        try:
            decode(ref)
            content = ref.read() or (ref.path.read_bytes() if ref.path else b"")
        except (BrokenImageError, OSError) as error:
            rejects.add(str(source), number + 1, f"{ref.name}: {error}")
            continue
        rejects.accept()
        yield (
            SPLIT,
            {
                "id": f"naming-{number}",
                "image": {"bytes": content, "path": Path(ref.name).name},
                "conversations": [
                    {"from": "human", "value": f"<image>\n{QUESTIONS[number % len(QUESTIONS)]}"},
                    {"from": "gpt", "value": entity},
                ],
            },
        )
