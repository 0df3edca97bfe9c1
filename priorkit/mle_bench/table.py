"""The benchmark as files: a table in lmms-eval's columns and its card."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyarrow and datasets are not fully typed.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from priorkit.mle_bench.annotations import Annotations
from priorkit.mle_bench.questions import BINS, ExistenceQuestion

_BATCH_ROWS = 100


def write_table(path: Path, questions: Sequence[ExistenceQuestion]) -> None:
    """lmms-eval's columns (image, question, choices, answer, sub_task), and id, entity, area, center_distance."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features, Image, List, Value

    text = Value("string")
    features = Features(
        {
            "id": text,
            "image": Image(),
            "question": text,
            "choices": List(text),
            "answer": text,
            "sub_task": text,
            "entity": text,
            "area": Value("float64"),
            "center_distance": Value("float64"),
        }
    )
    with pq.ParquetWriter(path, features.arrow_schema, compression="zstd") as writer:
        for start in range(0, len(questions), _BATCH_ROWS):
            rows = [_row(question) for question in questions[start : start + _BATCH_ROWS]]
            writer.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema))


def _row(question: ExistenceQuestion) -> dict[str, Any]:
    target = question.target
    content = target.ref.path.read_bytes() if target.ref.path else target.ref.content
    return {
        "id": target.ref.name,
        "image": {"bytes": content, "path": Path(target.ref.name).name},
        "question": question.text,
        "choices": list(question.choices),
        "answer": question.answer,
        "sub_task": target.size,
        "entity": target.name,
        "area": target.placement.area,
        "center_distance": target.placement.center_distance,
    }


def card(sizes: Mapping[str, int], source: Annotations, seed: int) -> str:
    rows = "".join(f"| {size} | {count} |\n" for size, count in sizes.items())
    bins = ", ".join(
        f"`{name}` from {low:g} on" for name, low in zip(BINS, [0, *BINS.values()], strict=False)
    )
    return f"""---
configs:
- config_name: default
  data_files:
  - split: test
    path: test.parquet
---

# Multi-Level Existence Bench

Four-choice questions about what appears in an image, one per image, in the manner of "Learning to See
Before Seeing" (arXiv 2509.26625). Made from {source.layout} annotations ({source.file.name}) with seed {seed};
the images stay under their own licence.

`sub_task` is the share of the image's pixels that the target (`entity`) covers, exactly given by `area`:
{bins}. `center_distance` is how far the centroid of its mask is from the image's center, as a share of half
the diagonal: 0 at the center, 1 at a corner. `answer` is the text of the right option.
Wrong options are categories of the data set that are not in the image, nor synonyms of what is.

The paper reports accuracy over all questions (`accuracy`), lmms-eval the mean over the three sizes
(`macro_accuracy`).

| size | questions |
|---|---|
{rows}"""
