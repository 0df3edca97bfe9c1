"""Link entity images so that they are scarce for entities without a strong prior, as in the wild.

    python examples/scarce_images.py WORLD OUT --most 2

WORLD has ``entities.parquet`` (columns ``entity`` and ``prior``) and ``entity_images/train`` with a folder per entity.
All images of strong entities are linked, and the first few of the others.
"""

import argparse
import os
import sys
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq


def main(world: Path, out: Path, most: int) -> None:
    """Make the folder; it appears complete or not at all."""
    table = pq.read_table(world / "entities.parquet", columns=["entity", "prior"])
    unfinished = out.with_name(f"{out.name}.partial-{os.getpid()}")
    for entity, prior in zip(table["entity"].to_pylist(), table["prior"].to_pylist(), strict=True):
        folder = unfinished / entity
        folder.mkdir(parents=True)
        images = sorted((world / "entity_images" / "train" / entity).iterdir())
        for image in islice(images, None if prior == "strong" else most):
            (folder / image.name).symlink_to(image.resolve())
    unfinished.rename(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("world", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--most", type=int, default=2, help="Images of an entity whose prior is not strong.")
    arguments = parser.parse_args(sys.argv[1:])
    main(arguments.world, arguments.out, arguments.most)
