"""Lay out entity images as examples/real_weights.sh reads them: a quarter is held out, the rest is shown and named.

    python examples/naming_data.py ENTITY_IMAGES OUT

ENTITY_IMAGES is what ``priorkit rank-e`` reads: a folder per entity, metadata.jsonl, parquet, or a hub id. Of each
entity the second image of every four is held out. What is written to OUT: ``entity_images/train`` and
``entity_images/test``, ``pairs.jsonl``, ``captions.jsonl`` and ``instructions.jsonl`` about the former, ``naming.jsonl``
(one name of four) and ``written.jsonl`` (the name itself) about the latter, ``entities.jsonl``. Images are read one by
one; names of wrong options follow only from the names.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from priorkit.core.errors import PriorkitError
from priorkit.core.inputs import resolve
from priorkit.data.images.decoding import BrokenImageError, decode
from priorkit.data.images.entity_sources import EntityLayout, entity_references
from priorkit.data.io.rejects import Rejects

QUESTION = "What is shown here?"
CAPTION = "a photo of a {}"
FILES = ("pairs", "captions", "instructions", "naming", "written", "entities")
OF = 4
"""One image of so many is held out."""
CHOICES = 4


def main(given: str, out: Path) -> None:
    """Write the folder; it appears complete or not at all."""
    source = resolve(given, "images", (), hub="dataset").path
    rejects = Rejects(0.01)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    seen: Counter[str] = Counter()
    with ExitStack() as stack:
        files = {
            name: stack.enter_context((partial / f"{name}.jsonl").open("w", encoding="utf-8"))
            for name in FILES
        }

        def write(name: str, **row: Any) -> None:
            files[name].write(json.dumps(row, ensure_ascii=False) + "\n")

        for number, (entity, ref) in enumerate(entity_references(source, rejects, [], EntityLayout())):
            try:
                decode(ref)
                content = ref.read() or (ref.path.read_bytes() if ref.path else b"")
            except (BrokenImageError, OSError) as error:
                rejects.add(given, number + 1, f"{ref.name}: {error}")
                continue
            rejects.accept()
            held_out = seen[entity] % OF == 1
            seen[entity] += 1
            folder = Path("entity_images") / ("test" if held_out else "train") / entity.replace("/", "_")
            image = (folder / f"{number:07}{Path(ref.name).suffix or '.png'}").as_posix()
            (partial / folder).mkdir(parents=True, exist_ok=True)
            (partial / image).write_bytes(content)
            about = {"id": str(number), "image": image, "question": QUESTION, "answer": entity}
            if held_out:
                write("written", **about, entity=entity)
            else:
                write("pairs", image=image, text=CAPTION.format(entity))
                write("captions", image=image, text=CAPTION.format(entity))
                write("instructions", **about)
        rejects.raise_if_over_limit()
        files["written"].flush()
        for row in map(json.loads, (partial / "written.jsonl").open(encoding="utf-8")):
            choices = options(row["entity"], row["id"], seen)
            write("naming", **{**row, "choices": choices, "answer": choices.index(row["entity"])})
        for entity in sorted(seen):
            write("entities", entity=entity)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def options(name: str, item: str, names: Counter[str]) -> list[str]:
    """The name among wrong ones, chosen and ordered by hashes."""

    def key(other: str) -> str:
        return hashlib.sha256(f"{item}/{other}".encode()).hexdigest()

    wrong = sorted((other for other in names if other != name), key=key)[: CHOICES - 1]
    return sorted([name, *wrong], key=lambda choice: key(f"place/{choice}"))


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except PriorkitError as error:
        sys.exit("\n".join(line for problem in error.problems for line in problem.lines()))
