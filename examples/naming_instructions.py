"""Write entity images as instructions ('What is shown here?' and the name), so that all arms train on the same images.

    python examples/naming_instructions.py ENTITY_IMAGES OUT.parquet

ENTITY_IMAGES is any path that ``priorkit rank-e`` reads: a folder per entity, metadata.jsonl, parquet. A hub
id is not fetched here; give the folder it was downloaded to. Images are read one by one; ``priorkit convert-data
ENTITY_IMAGES --format naming --out DIR`` makes the same rows as an artifact.
"""

import sys
from contextlib import ExitStack
from pathlib import Path

from priorkit.data.converters.base import ConverterOptions
from priorkit.data.converters.naming import convert
from priorkit.data.converters.writing import SplitWriter
from priorkit.data.io.rejects import Rejects


def main(images: Path, out: Path) -> None:
    """Write one conversation per image in LLaVA's format, with embedded images."""
    out.parent.mkdir(parents=True, exist_ok=True)
    rejects = Rejects(0.01)
    partial = out.with_name(out.name + ".partial")
    with ExitStack() as stack:
        writer = SplitWriter(partial, stack)
        for _, row in convert(images, ConverterOptions(), rejects):
            writer.add(row)
        writer.flush()
    rejects.raise_if_over_limit()
    partial.rename(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
