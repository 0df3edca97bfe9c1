"""Lay out entity images as examples/real_weights.sh reads them: a quarter is held out, the rest is shown and named.

    python examples/naming_data.py ENTITY_IMAGES OUT

ENTITY_IMAGES is what ``priorkit rank-e`` reads: a folder per entity, metadata.jsonl, parquet, or a hub id. Of each
entity the second image of every four is held out. What is written to OUT: ``entity_images/train`` and
``entity_images/test``, ``pairs.jsonl``, ``captions.jsonl`` and ``instructions.jsonl`` about the former, ``naming.jsonl``
(one name of four) and ``written.jsonl`` (the name itself) about the latter, ``entities.jsonl``. Images are read one by
one; wrong options follow only from the names and the image's number.
"""

from __future__ import annotations

import argparse
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
from priorkit.data.converters.base import ConverterOptions
from priorkit.data.converters.naming import QUESTIONS, convert
from priorkit.data.io.rejects import Rejects

CAPTION = "a photo of a {}"
IMAGES = {split: f"entity_images/{split}" for split in ("train", "test")}
TABLES = {split: f"{folder}/metadata" for split, folder in IMAGES.items()}
FILES = ("pairs", "captions", "instructions", "naming", "written", "entities", *TABLES.values())
HELD_OUT_OF = 4
"""One image of so many is held out."""
CHOICES = 4


def write_data(given: str, out: Path) -> None:
    """Write the folder; it appears complete or not at all."""
    source = resolve(given, "images", (), hub="dataset").path
    rejects = Rejects(0.01)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in IMAGES.values():
        (partial / folder).mkdir(parents=True)
    seen: Counter[str] = Counter()
    with ExitStack() as stack:
        files = {
            name: stack.enter_context((partial / f"{name}.jsonl").open("w", encoding="utf-8"))
            for name in FILES
        }

        def write(name: str, **row: Any) -> None:
            files[name].write(json.dumps(row, ensure_ascii=False) + "\n")

        for number, (_, row) in enumerate(convert(source, ConverterOptions(), rejects)):
            entity = row["conversations"][1]["value"]
            split = "test" if seen[entity] % HELD_OUT_OF == 1 else "train"
            seen[entity] += 1
            # Numbers, as a name may be no name of a file.
            file_name = f"{number:07}{Path(row['image']['path']).suffix or '.png'}"
            image = f"{IMAGES[split]}/{file_name}"
            (partial / image).write_bytes(row["image"]["bytes"])
            write(TABLES[split], file_name=file_name, entity=entity)
            about = {"id": str(number), "image": image, "answer": entity}
            if split == "test":
                write("written", **about, question=QUESTIONS[0], entity=entity)
            else:
                write("pairs", image=image, text=CAPTION.format(entity))
                write("captions", image=image, text=CAPTION.format(entity))
                write("instructions", **about, question=QUESTIONS[number % len(QUESTIONS)])
        rejects.raise_if_over_limit()
        files["written"].flush()
        with (partial / "written.jsonl").open(encoding="utf-8") as written:
            for row in map(json.loads, written):
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


def main() -> int:
    """Run; exits as priorkit does."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", help="entity images, by path or hub id")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    try:
        write_data(given.images, given.out)
    except PriorkitError as error:
        lines = (line for problem in error.problems for line in problem.lines())
        sys.stderr.writelines(f"{line}\n" for line in lines)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
