"""The dataset card of a world: what is in the folder, and the configurations for ``load_dataset``."""

from __future__ import annotations

from collections.abc import Mapping

from priorkit.world.benchmarks import NAMES

_TABLES: dict[str, dict[str, str]] = {
    "pairs": {"train": "pairs/train.parquet", "test": "pairs/test.parquet"},
    "captions": {"train": "captions/train.parquet"},
    "instructions": {"train": "instructions/train.parquet"},
    "entities": {"train": "entities.parquet"},
    **{name: {"test": f"benchmarks/{name}.parquet"} for name in NAMES},
}

_BODY = """
# A glyph world

Symbols with official Unicode names, drawn in the typefaces that matplotlib ships, in scenes whose
captions, masks, boxes, questions and answers follow exactly from how they were made. How well each
entity is known was drawn at random, so priors are known by construction.

| where | what |
|---|---|
| `entities.parquet` | the entities: category, `prior` (`strong`, `weak`, `none`: frequency in the pairs), and whether it is in the training data: `in_pairs`, `in_text`, `in_instructions`, `in_captions` |
| `pairs/` | image-text pairs for an encoder, with a text and a box for every object (`regions`); `test` shows strong entities in new scenes |
| `entity_images/train`, `entity_images/test` | ImageFolder, one folder per entity; `test` in held-out typefaces |
| `captions/`, `instructions/` | conversations in the LLaVA form; `image` is null where there is none; `tags` name what it shows; `regions/` (where asked for) expressions with boxes in RefCOCO's form |
| `benchmarks/` | questions about new scenes in held-out typefaces; `task` says how they are answered |
| `annotated/` | scenes with instance masks in the COCO form |
| `text/`, `text/heldout/` | text sources as JSON lines |
| `facts.jsonl` | questions about every entity with a true and false answers |
| `names.txt` | the names of all entities, one a line |

`area` is the share of the image's pixels that the object's mask covers (its tile, where it stands on
one); boxes are normalised x1, y1, x2, y2. The sources `python-source` and `python-docs` are taken from
the standard library of the Python that made this folder and stay under its licence; all the rest is
generated.

| part | count |
|---|---|
"""


def card(counts: Mapping[str, int]) -> str:
    """The text of ``README.md``."""
    lines = ["---", "configs:"]
    for name, splits in _TABLES.items():
        lines.append(f"- config_name: {name}")
        lines += ["  default: true"] if name == "pairs" else []
        lines.append("  data_files:")
        for split, path in splits.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    table = "".join(f"| {part} | {count} |\n" for part, count in counts.items())
    return "\n".join([*lines, "---"]) + "\n" + _BODY + table
