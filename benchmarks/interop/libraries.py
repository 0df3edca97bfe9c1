"""Artifacts in the libraries that everybody uses: transformers' pipeline, PEFT and datasets, compared with evaluate.

    python benchmarks/interop/libraries.py --mllm tuned --world world --out /tmp/interop [--adapter lora]

Runs in priorkit's own environment: the first items of a benchmark of the world are answered by
``pipeline("image-text-to-text")``, by a model with ``PeftModel.from_pretrained``, and by ``evaluate``; every table of
the world is read by ``load_dataset``. Prints one JSON object, and exits with 1 where anything differs.
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

TOKENS = 8
"""Most tokens of an answer."""


def main() -> None:
    """Run every comparison whose artifacts were given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mllm", required=True)
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--adapter", help="adapter artifact on a multimodal model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--items", type=int, default=40)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "versions": {name: version(name) for name in ("transformers", "datasets", "peft", "torch")},
        "datasets": tables(given.world),
        "pipeline": by_pipeline(given),
    }
    if given.adapter:
        found["peft"] = by_peft(given)
    print(json.dumps(found, indent=2))
    sys.exit(0 if all(part.get("equal", True) for part in found.values()) else 1)


def tables(world: Path) -> dict[str, Any]:
    """Rows of every configuration of a world, and whether datasets gives the rows and pixels of its files."""
    import numpy as np
    import pyarrow.parquet as pq
    from datasets import get_dataset_config_names, load_dataset, load_dataset_builder

    rows: dict[str, int] = {}
    same = True
    for name in get_dataset_config_names(str(world)):
        builder: Any = load_dataset_builder(str(world), name)
        for split, loaded in load_dataset(str(world), name).items():
            table: Any = loaded
            rows[f"{name}/{split}"] = table.num_rows
            (file,) = builder.config.data_files[split]
            written = pq.read_table(file)
            same &= written.num_rows == table.num_rows
            stored, first = written.slice(0, 1).to_pylist()[0], table[0]
            for column, value in stored.items():
                if column == "image":
                    same &= np.array_equal(np.asarray(first[column].convert("RGB")), pixels(value["bytes"]))
                else:
                    same &= first[column] == value
    return {"rows": rows, "equal": bool(same) and all(rows.values())}


def pixels(content: bytes) -> Any:
    """An encoded image as an array ``[height, width, 3]``."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def questions(given: argparse.Namespace) -> tuple[Path, list[tuple[str, Any]]]:
    """A benchmark file with written answers, and what is asked of its first images."""
    import pyarrow.parquet as pq
    from PIL import Image

    file = given.world / "benchmarks" / "short-answer.parquet"
    rows = pq.read_table(file).slice(0, given.items).to_pylist()
    request = "Answer the question using a single word or phrase."
    return file, [
        (f"{row['question']}\n{request}", Image.fromarray(pixels(row["image"]["bytes"]))) for row in rows
    ]


def answered(given: argparse.Namespace, model: str, file: Path, out: Path) -> list[str]:
    """What ``evaluate`` answers."""
    command = (
        sys.executable, "-m", "priorkit", "evaluate", model, file, "--limit", given.items, "--max-new-tokens", TOKENS,
        "--device", "cpu", "--precision", "fp32", "--out", out, "--force",
    )  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    lines = (out / "samples.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["prediction"] for line in lines]


def compared(ours: list[str], theirs: list[str]) -> dict[str, Any]:
    """How many answers are the same, and how many different ones there are."""
    same = sum(one == other.strip() for one, other in zip(ours, theirs, strict=True))
    return {
        "items": len(ours),
        "same": same,
        "distinct_answers": len(set(ours)),
        "equal": same == len(ours) > 0,
    }


def by_pipeline(given: argparse.Namespace) -> dict[str, Any]:
    """Answers of ``pipeline("image-text-to-text")`` to chats with an image."""
    from transformers import pipeline

    file, asked = questions(given)
    pipe: Any = pipeline("image-text-to-text", model=str(given.mllm), device="cpu", dtype="float32")
    written: list[str] = []
    for text, image in asked:
        parts = [{"type": "image", "image": image}, {"type": "text", "text": text}]
        chat = [{"role": "user", "content": parts}]
        (answer,) = pipe(
            text=chat, return_full_text=False, generate_kwargs={"max_new_tokens": TOKENS, "do_sample": False}
        )
        written.append(answer["generated_text"])
    return compared(answered(given, given.mllm, file, given.out / "pipeline-scores"), written)


def by_peft(given: argparse.Namespace) -> dict[str, Any]:
    """Answers of an adapter artifact that PEFT loads onto its base."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    settings = json.loads((Path(given.adapter) / "adapter_config.json").read_text("utf-8"))
    base = settings["base_model_name_or_path"]
    processor: Any = AutoProcessor.from_pretrained(base)
    loaded: Any = AutoModelForImageTextToText.from_pretrained(base)
    model: Any = PeftModel.from_pretrained(loaded, given.adapter).eval()
    file, asked = questions(given)
    written: list[str] = []
    for text, image in asked:
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        inputs = processor(text=prompt, images=image, return_tensors="pt")
        with torch.no_grad():
            ids = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        written.append(processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    result = compared(answered(given, given.adapter, file, given.out / "adapter-scores"), written)
    without = answered(given, base, file, given.out / "base-scores")
    return {
        **result,
        "answers_that_the_adapter_changes": sum(
            one.strip() != other for one, other in zip(written, without, strict=True)
        ),
    }


if __name__ == "__main__":
    main()
