"""Artifacts in the libraries that everybody uses: transformers' pipeline, datasets, PEFT; the same answers as evaluate.

    python benchmarks/interop/libraries.py --mllm tuned --world world --out /tmp/interop [--adapter lora --base aligned]

Runs in priorkit's own environment. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def main() -> None:
    """Run every comparison whose artifacts were given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mllm", required=True)
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--adapter")
    parser.add_argument("--base")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--items", type=int, default=12)
    given = parser.parse_args()
    found: dict[str, Any] = {
        "versions": {name: version(name) for name in ("transformers", "datasets", "peft", "torch")},
        "datasets.load_dataset": loaded(given.world),
        "pipeline": answered_by_pipeline(given),
    }
    if given.adapter and given.base:
        found["peft"] = adapter_loads(given)
    print(json.dumps(found, indent=2))


def loaded(world: Path) -> dict[str, int]:
    """Rows of every configuration of a world."""
    from datasets import get_dataset_config_names, load_dataset

    names = get_dataset_config_names(str(world))
    return {
        f"{name}/{split}": table.num_rows
        for name in names
        for split, table in load_dataset(str(world), name).items()
    }


def answered_by_pipeline(given: argparse.Namespace) -> dict[str, Any]:
    """Written answers of ``pipeline("image-text-to-text")`` and of ``evaluate`` to the same questions."""
    import pyarrow.parquet as pq
    from PIL import Image
    from transformers import pipeline

    file = next(
        path
        for path in sorted((given.world / "benchmarks").glob("*.parquet"))
        if {"image", "question"} <= set(pq.read_schema(path).names)
    )
    out = given.out / "pipeline-scores"
    command = (
        sys.executable, "-m", "priorkit", "evaluate", given.mllm, file, "--by", "generation", "--limit", given.items,
        "--max-new-tokens", 8, "--device", "cpu", "--out", out, "--force",
    )  # fmt: skip
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text("utf-8").splitlines()]
    rows = pq.read_table(file).slice(0, given.items).to_pylist()
    pipe: Any = pipeline("image-text-to-text", model=str(given.mllm), device="cpu", dtype="float32")
    same = 0
    for sample, row in zip(samples, rows, strict=True):
        text = sample["prompt"].split("<image>\n", 1)[1].rsplit("\nASSISTANT:", 1)[0]
        image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        parts = [{"type": "image", "image": image}, {"type": "text", "text": text}]
        written = pipe(
            text=[{"role": "user", "content": parts}],
            max_new_tokens=8,
            return_full_text=False,
            do_sample=False,
        )
        same += written[0]["generated_text"].strip() == sample["prediction"]
    return {"benchmark": file.stem, "items": len(rows), "same_answers": same}


def adapter_loads(given: argparse.Namespace) -> dict[str, Any]:
    """An adapter artifact in PEFT on its base: the tensors that it changes."""
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    model: Any = PeftModel.from_pretrained(
        AutoModelForImageTextToText.from_pretrained(given.base), given.adapter
    )
    return {"adapter_tensors": sum("lora_" in name for name, _ in model.named_parameters())}


if __name__ == "__main__":
    main()
