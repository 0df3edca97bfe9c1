"""The same items by priorkit and by a harness in its own environment: equal numbers, and its logs read back.

    python benchmarks/interop/harness.py lm_eval --python ENV/bin/python --model llm --out /tmp/interop
    python benchmarks/interop/harness.py lmms_eval --python ENV/bin/python --model mllm --out /tmp/interop \\
        --benchmark world/benchmarks/short-answer.parquet

ENV is an environment with the harness from PyPI (lm_eval 0.4.13, lmms-eval 0.7); priorkit runs in the environment of
this script. Both read one file of items by a local task file: choices made here from a seed, or the first items of a
benchmark with images (answers in words, or choices by letter). Prints one JSON object: versions, scores, and how many items agree. Exits
with 1 where any score or answer differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
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
doc_to_visual: !function utils.visual
doc_to_text: !function utils.text
doc_to_target: !function utils.target
generation_kwargs:
  max_new_tokens: {tokens}
  do_sample: false
process_results: !function utils.results
metric_list:
  - metric: exact
    aggregation: mean
    higher_is_better: true
"""

LMMS_UTILS = """\
def visual(doc):
    return [doc["image"].convert("RGB")]


def text(doc):
    if doc["choices"]:
        options = "\\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCDEFGH", doc["choices"]))
        return f"{doc['question']}\\n{options}\\nAnswer with the option's letter from the given choices directly."
    return doc["question"] + "\\nAnswer the question using a single word or phrase."


def target(doc):
    return doc["answer"]


def results(doc, answers):
    answer = answers[0].strip()
    said = answer[:1].upper() if doc["choices"] else answer.lower()
    return {"exact": float(said == (doc["answer"] if doc["choices"] else doc["answer"].strip().lower()))}
"""


def main() -> None:
    """Make the items, ask both, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("harness", choices=("lm_eval", "lmms_eval"))
    parser.add_argument("--python", required=True, help="Python of the harness's environment")
    parser.add_argument("--model", required=True, help="llm artifact (lm_eval) or mllm artifact (lmms_eval)")
    parser.add_argument(
        "--benchmark",
        type=Path,
        help="for lmms_eval: parquet with image, question, and answers or choices and answer",
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=8)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    found = text_choice(given) if given.harness == "lm_eval" else image_answers(given)
    print(json.dumps(found, indent=2))
    sys.exit(0 if found["equal"] else 1)


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
        "cpu", "--batch_size", "8", logs=logs,
    )  # fmt: skip
    ours = _evaluate(given.out / "ours", given.model, data, "--task", "choice", "--prompt", "plain")
    return _compared(
        given, ours, logs, ("choice",), "lm_eval", {"acc": "acc,none", "acc_norm": "acc_norm,none"}
    )


def image_answers(given: argparse.Namespace) -> dict[str, Any]:
    """Written answers of a multimodal model to the first items of a benchmark."""
    import datasets

    if given.benchmark is None:
        sys.exit("lmms_eval needs --benchmark: a parquet file with image, question, and answers or choices")
    rows: Any = datasets.load_dataset("parquet", data_files={"test": str(given.benchmark)}, split="test")
    rows = rows.select(range(min(given.items, len(rows))))
    choice = "choices" in rows.column_names
    # The answer of a choice is its letter, which both read; options are empty where answers are words.
    rows = rows.map(
        lambda row: {
            "answer": "ABCDEFGH"[row["answer"]] if choice else row["answers"][0],
            "choices": row["choices"] if choice else [],
        }
    ).select_columns(["id", "image", "question", "choices", "answer"])
    data = given.out / "images.parquet"
    rows.to_parquet(data)
    folder = given.out / "lmms_tasks"
    folder.mkdir(exist_ok=True)
    (folder / "utils.py").write_text(LMMS_UTILS, encoding="utf-8")
    (folder / "interop_images.yaml").write_text(
        LMMS_TASK.format(data=data.resolve(), tokens=given.tokens), encoding="utf-8"
    )
    logs = given.out / "lmms_eval-logs"
    _run(
        given.python, "-m", "lmms_eval", "--model", "llava_hf", "--model_args",
        f"pretrained={given.model},dtype=float32,device_map=cpu,attn_implementation=eager", "--tasks", "interop_images",
        "--include_path", folder, "--log_samples", "--output_path", logs, "--batch_size", "1", "--device", "cpu",
        logs=logs,
    )  # fmt: skip
    task = ("choice", "--parser", "leading-letter") if choice else ("exact",)
    ours = _evaluate(
        given.out / "ours-images", given.model, data, "--task", *task, "--by", "generation", "--max-new-tokens",
        str(given.tokens),
    )  # fmt: skip
    return _compared(given, ours, logs, task, "lmms_eval", {"accuracy": "exact,none"})


def _run(*command: object, logs: Path | None = None) -> None:
    """Run a command; a harness may exit with 0 without having written its logs."""
    if logs is not None:
        shutil.rmtree(logs, ignore_errors=True)
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode or (logs is not None and not logs.is_dir()):
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def _priorkit(out: Path, *arguments: object) -> Path:
    """Run ``priorkit evaluate``."""
    _run(sys.executable, "-m", "priorkit", "evaluate", *arguments, "--out", out, "--force")
    return out


def _evaluate(out: Path, model: str, data: Path, *options: str) -> Path:
    return _priorkit(out, model, data, *options, "--device", "cpu")


def _compared(
    given: argparse.Namespace,
    ours: Path,
    logs: Path,
    task: Sequence[str],
    package: str,
    metrics: Mapping[str, str],
) -> dict[str, Any]:
    """The harness's own log scored by priorkit and compared with priorkit's answers item by item.

    Args:
        given: the command line.
        ours: priorkit's evaluation.
        logs: what the harness wrote.
        task: the task type of the items, and how it is parsed.
        package: the harness's distribution.
        metrics: priorkit's name of each metric, and the harness's.
    """
    log = next(iter(sorted(logs.rglob("*samples*.jsonl"))))
    theirs = _priorkit(given.out / f"theirs-{package}", "--predictions", log, "--task", *task)
    why = _priorkit(given.out / f"why-{package}", "--rescore", ours, "--compare", theirs)
    comparison = next(iter(json.loads((why / "comparison.json").read_text("utf-8"))["benchmarks"].values()))
    reported = json.loads(next(iter(sorted(logs.rglob("*results*.json")))).read_text("utf-8"))["results"]
    reported = next(iter(reported.values()))
    own = next(iter(json.loads((ours / "results.json").read_text("utf-8"))["benchmarks"].values()))["metrics"]
    version = subprocess.run(
        [given.python, "-c", f"from importlib.metadata import version; print(version('{package}'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    scores = {name: (own[name]["value"], reported[there]) for name, there in metrics.items()}
    return {
        "harness": f"{package} {version}",
        "items": comparison["items"],
        "scores": {name: {"priorkit": first, "harness": second} for name, (first, second) in scores.items()},
        "log_scored_by_priorkit": comparison["second"],
        "items_with_the_same_answer": comparison["same_answers"],
        "items_that_differ": comparison["gained"] + comparison["lost"],
        "reasons": comparison["reasons"],
        "equal": all(abs(first - second) < 1e-9 for first, second in scores.values())
        and comparison["same_answers"] == comparison["items"],
    }


if __name__ == "__main__":
    main()
