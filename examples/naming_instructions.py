"""Write entity images as instructions ('What is shown here?' and the name), so that all arms train on the same images.

    python examples/naming_instructions.py ENTITY_IMAGES OUT.parquet

ENTITY_IMAGES is any path that ``priorkit rank-e`` reads: a folder per entity, metadata.jsonl, parquet. A hub
id is not fetched here; give the folder it was downloaded to.
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from priorkit.data.images.entities import read_entities
from priorkit.data.io.rejects import Rejects

QUESTIONS = (
    "What is shown here?",
    "Name what you see.",
    "What is this called?",
)


def main(images: Path, out: Path) -> None:
    """Write one conversation per image in LLaVA's format, with embedded images."""
    dataset = read_entities(images, Rejects(0.01))
    rows = []
    for number, (ref, entity) in enumerate(zip(dataset.images, dataset.entity_of, strict=True)):
        content = ref.read() or (ref.path.read_bytes() if ref.path else b"")
        question = QUESTIONS[number % len(QUESTIONS)]
        rows.append(
            {
                "id": f"naming-{number}",
                "image": {"bytes": content, "path": Path(ref.name).name},
                "conversations": [
                    {"from": "human", "value": f"<image>\n{question}"},
                    {"from": "gpt", "value": dataset.entities[entity]},
                ],
            }
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
