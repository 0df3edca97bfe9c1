"""The same items by priorkit and by a harness in its own environment: equal numbers, and its logs read back.

    python benchmarks/interop/harness.py lm_eval --python ENV/bin/python --model llm --out /tmp/interop
    python benchmarks/interop/harness.py lmms_eval --python ENV/bin/python --model mllm --out /tmp/interop

ENV is an environment with the harness from PyPI (lm_eval 0.4.13, lmms-eval 0.7); priorkit runs in the environment of
this script. The items are made here, from a seed, and given to both as JSON Lines; the harness reads them by a local
task file. Prints one JSON object: versions, scores, and how many items agree.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LM_TASK = """\
task: interop_choice
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
doc_to_choice: "{{{{choices}}}}"
metric_list:
  - metric: acc
  - metric: acc_norm
"""

LMMS_TASK = """\
task: interop_images
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_visual: !function {folder}/utils.visual
doc_to_text: !function {folder}/utils.text
doc_to_target: answer
generation_kwargs:
  max_new_tokens: {tokens}
  do_sample: false
process_results: !function {folder}/utils.results
metric_list:
  - metric: exact
    aggregation: mean
    higher_is_better: true
"""

LMMS_UTILS = """\
def visual(doc):
    return [doc["image"].convert("RGB")]


def text(doc):
    return doc["question"] + "\\nAnswer the question using a single word or phrase."


def results(doc, answers):
    return {"exact": float(answers[0].strip().lower() == doc["answer"].strip().lower())}
"""


def main() -> None:
    """Make the items, ask both, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("harness", choices=("lm_eval", "lmms_eval"))
    parser.add_argument("--python", required=True, help="Python of the harness's environment")
    parser.add_argument("--model", required=True, help="llm artifact (lm_eval) or mllm artifact (lmms_eval)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=8)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print(json.dumps(text_choice(given) if given.harness == "lm_eval" else image_answers(given), indent=2))


def text_choice(given: argparse.Namespace) -> dict[str, Any]:
    """Choices by likelihood of a language model."""
    rng = random.Random(0)
    words = ("a red circle", "it", "the small blue square", "two stars", "nothing at all", "an arrow")
    rows = [
        {
            "id": f"q{n}",
            "question": f"Question {n}: what is left of it?",
            "choices": rng.sample(words, 4),
            "answer": rng.randrange(4),
        }
        for n in range(given.items)
    ]
    data = given.out / "choices.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (given.out / "interop_choice.yaml").write_text(LM_TASK.format(data=data.resolve()), encoding="utf-8")
    logs = given.out / "lm_eval-logs"
    _run(
        given.python, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={given.model},dtype=float32",
        "--tasks", "interop_choice", "--include_path", given.out, "--log_samples", "--output_path", logs, "--device",
        "cpu", "--batch_size", "8",
    )  # fmt: skip
    ours = _evaluate(given.out / "ours", given.model, data, "--task", "choice", "--prompt", "plain")
    return _compared(given, ours, logs, "choice", "lm_eval", ("acc", "acc_norm"))


def image_answers(given: argparse.Namespace) -> dict[str, Any]:
    """Written answers of a multimodal model."""
    import io

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    def picture(number: int) -> dict[str, Any]:
        blocks = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(np.kron(blocks, np.ones((16, 16, 1), dtype=np.uint8))).save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    rows = [
        {"id": f"q{n}", "question": f"What is shown in picture {n}?", "answer": "circle", "image": picture(n)}
        for n in range(given.items)
    ]
    data = given.out / "images.parquet"
    table = pa.Table.from_pylist(rows)
    features = {"info": {"features": {"id": {"dtype": "string", "_type": "Value"}, "question": {"dtype": "string", "_type": "Value"},
                                      "answer": {"dtype": "string", "_type": "Value"}, "image": {"_type": "Image"}}}}  # fmt: skip
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), data)
    folder = given.out / "lmms_tasks"
    folder.mkdir(exist_ok=True)
    (folder / "utils.py").write_text(LMMS_UTILS, encoding="utf-8")
    task = LMMS_TASK.format(data=data.resolve(), folder="utils", tokens=given.tokens).replace(
        "utils/utils.", "utils."
    )
    (folder / "interop_images.yaml").write_text(task, encoding="utf-8")
    logs = given.out / "lmms_eval-logs"
    _run(
        given.python, "-m", "lmms_eval", "--model", "llava_hf", "--model_args",
        f"pretrained={given.model},dtype=float32,device_map=cpu,attn_implementation=eager", "--tasks", "interop_images",
        "--include_path", folder, "--log_samples", "--output_path", logs, "--batch_size", "1", "--device", "cpu",
    )  # fmt: skip
    ours = _evaluate(
        given.out / "ours-images", given.model, data, "--task", "exact", "--max-new-tokens", str(given.tokens)
    )
    return _compared(given, ours, logs, "exact", "lmms_eval", ("accuracy",))


def _run(*command: object) -> None:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def _evaluate(out: Path, model: str, data: Path, *options: str) -> Path:
    command = (
        sys.executable,
        "-m",
        "priorkit",
        "evaluate",
        model,
        data,
        *options,
        "--device",
        "cpu",
        "--out",
        out,
        "--force",
    )
    _run(*command)
    return out


def _compared(
    given: argparse.Namespace, ours: Path, logs: Path, task: str, package: str, metrics: Sequence[str]
) -> dict[str, Any]:
    """The harness's own log scored by priorkit and compared with priorkit's answers item by item."""
    log = next(iter(sorted(logs.rglob("*samples*.jsonl"))))
    theirs = given.out / f"theirs-{package}"
    _run(
        sys.executable,
        "-m",
        "priorkit",
        "evaluate",
        "--predictions",
        log,
        "--task",
        task,
        "--out",
        theirs,
        "--force",
    )
    why = given.out / f"why-{package}"
    _run(
        sys.executable,
        "-m",
        "priorkit",
        "evaluate",
        "--rescore",
        ours,
        "--compare",
        theirs,
        "--out",
        why,
        "--force",
    )
    comparison = next(iter(json.loads((why / "comparison.json").read_text("utf-8"))["benchmarks"].values()))
    reported = json.loads(next(iter(sorted(logs.rglob("*results*.json")))).read_text("utf-8"))["results"]
    own = next(iter(json.loads((ours / "results.json").read_text("utf-8"))["benchmarks"].values()))["metrics"]
    version = subprocess.run(
        [given.python, "-c", f"from importlib.metadata import version; print(version('{package}'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    return {
        "harness": f"{package} {version}",
        "items": comparison["items"],
        "priorkit": {name: own[name]["value"] for name in metrics},
        "harness_reports": next(iter(reported.values())),
        "log_scored_by_priorkit": comparison["second"],
        "items_with_the_same_answer": comparison["same_answers"],
        "items_that_differ": comparison["gained"] + comparison["lost"],
        "reasons": comparison["reasons"],
    }


if __name__ == "__main__":
    main()
