"""Tokenize, mix, pack and write a corpus: tokens per second and peak memory against the peers, in one run.

Work: Python source files, one document each, and a byte-level BPE of 8,192 tokens trained on the first 20 MB,
both made in a temporary folder (``--source``: folders to take ``.py`` files from). Rows of 512 tokens, uint16
on disk. Two processes each. Compared, interleaved, medians over the runs:

- ``priorkit mix``: the complete command, from start to exit, including hashes and fsync
- the usual way: datasets' ``map`` with a fast tokenizer, then ``map`` with ``group_texts``
- upper bound: only the tokenizers library, ``encode_batch_fast`` on every second batch of 64 documents in each of
  two processes, written in order, neither mixed nor packed
- datatrove's ``DocumentTokenizer`` (``--datatrove``)

Processor seconds (of all processes, including imports) are printed too: they are comparable where other work
runs on the machine.

    python benchmarks/mix.py --source FOLDER... [--megabytes 150] [--runs 3] [--peers PYTHON] [--datatrove]

PYTHON is an interpreter that can import datasets, transformers and, if asked for, datatrove. The peers' times
exclude imports and loading the tokenizer; ours includes them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

END = "<|endoftext|>"

DATASETS = """
import sys, time, os
from datasets import load_dataset, disable_progress_bars
from transformers import PreTrainedTokenizerFast
disable_progress_bars()
data, out = sys.argv[1:3]
tokenizer = PreTrainedTokenizerFast(tokenizer_file=data + "/tokenizer/tokenizer.json", eos_token="<|endoftext|>",
                                    model_max_length=10**9)
end = tokenizer.eos_token_id

def encode(rows):
    found = tokenizer(rows["text"], add_special_tokens=False)
    for ids in found["input_ids"]:
        ids.append(end)
    for mask in found["attention_mask"]:
        mask.append(1)
    return found

def group_texts(rows):
    joined = {key: [item for part in values for item in part] for key, values in rows.items()}
    length = len(joined["input_ids"]) // 512 * 512
    found = {key: [values[i : i + 512] for i in range(0, length, 512)] for key, values in joined.items()}
    found["labels"] = [list(ids) for ids in found["input_ids"]]
    return found

begun = time.perf_counter()
rows = load_dataset("json", data_files=data + "/corpus.jsonl", split="train", cache_dir=out)
rows = rows.map(encode, batched=True, num_proc=2, remove_columns=["text"]).map(group_texts, batched=True, num_proc=2)
print("SECONDS", time.perf_counter() - begun, len(rows) * 512)
"""

CEILING = """
import itertools, json, os, sys, time
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import multiprocessing
import numpy as np
from tokenizers import Tokenizer
data, out = sys.argv[1:3]

def part(number):
    tokenizer = Tokenizer.from_file(data + "/tokenizer/tokenizer.json")
    end, count = tokenizer.token_to_id("<|endoftext|>"), 0
    with open(data + "/corpus.jsonl", encoding="utf-8") as lines, open(f"{out}-{number}", "wb") as tokens:
        for batch in itertools.count():
            chunk = list(itertools.islice(lines, 64))
            if not chunk:
                return count
            if batch % 2 != number:
                continue
            ids = []
            for found in tokenizer.encode_batch_fast([json.loads(x)["text"] for x in chunk], add_special_tokens=False):
                ids += found.ids
                ids.append(end)
            count += len(ids)
            tokens.write(np.array(ids, np.uint16).tobytes())

if __name__ == "__main__":
    begun = time.perf_counter()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        count = sum(pool.map(part, range(2)))
    print("SECONDS", time.perf_counter() - begun, count)
"""

DATATROVE = """
import sys, time
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
data, out = sys.argv[1:3]
if __name__ == "__main__":
    begun = time.perf_counter()
    steps = [JsonlReader(data + "/halves", compression=None),
             DocumentTokenizer(output_folder=out + "/tokens", tokenizer_name_or_path=data + "/tokenizer/tokenizer.json",
                               eos_token="<|endoftext|>", shuffle_documents=False, batch_size=64)]
    LocalPipelineExecutor(pipeline=steps, tasks=2, workers=2, logging_dir=out + "/log").run()
    print("SECONDS", time.perf_counter() - begun, 0)
"""

WATCH = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, done.stdout, used.ru_maxrss, used.ru_utime + used.ru_stime]))
"""
"""Runs a command; prints the largest resident memory (kB) of any of its processes, and the processor seconds of all
of them."""


def make(folder: Path, sources: list[str], megabytes: float) -> None:
    """Write ``corpus.jsonl``, ``tokenizer/`` and datatrove's ``halves/``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    files = sorted(str(path) for source in sources for path in Path(source).rglob("*.py"))
    random.Random(0).shuffle(files)
    size, sample = 0, []
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as corpus:
        for file in files:
            try:
                text = Path(file).read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue
            if not text.strip():
                continue
            if size < 20e6:
                sample.append(text)
            size += len(text.encode())
            corpus.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            if size > megabytes * 1e6:
                break
    print(f"{size / 1e6:.1f} MB of text")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=8192, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sample, trainer)
    (folder / "tokenizer").mkdir()
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "halves").mkdir()
    halves = [(folder / "halves" / f"{number}.jsonl").open("wb") for number in range(2)]
    with (folder / "corpus.jsonl").open("rb") as corpus:
        for number, line in enumerate(corpus):
            halves[number % 2].write(line)
    for half in halves:
        half.close()


@dataclass(frozen=True)
class Run:
    """Seconds, processor seconds of all processes, megabytes of the largest process, tokens."""

    seconds: float
    processor: float
    megabytes: float
    tokens: int


def measure(name: str, folder: Path, peers: str) -> Run:
    """Run one of the compared commands once."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    if name == "priorkit":
        command = [
            sys.executable, "-m", "priorkit", "mix", f"text={folder / 'corpus.jsonl'}", "--tokenizer",
            str(folder / "tokenizer"), "--context-length", "512", "--workers", "2", "--out", str(out),
        ]  # fmt: skip
    else:
        script = folder / f"peer_{name}.py"
        script.write_text({"datasets": DATASETS, "ceiling": CEILING, "datatrove": DATATROVE}[name])
        command = [peers, str(script), str(folder), str(out)]
    begun = time.perf_counter()
    watched = subprocess.run(
        [sys.executable, "-c", WATCH, *command], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - begun
    code, printed, kilobytes, processor = json.loads(watched.stdout)
    if code:
        raise SystemExit(f"{name} failed ({code})")
    if name == "priorkit":
        return Run(
            seconds, processor, kilobytes / 1e3, json.loads((out / "corpus.json").read_text())["tokens"]
        )
    line = next(line for line in printed.splitlines() if line.startswith("SECONDS"))
    _, inner, tokens = line.split()
    return Run(float(inner), processor, kilobytes / 1e3, int(tokens))


def main() -> None:
    """Make the inputs, run the peers alternately, print medians, ratios and peaks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", nargs="+", required=True)
    parser.add_argument("--megabytes", type=float, default=150)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peers", default=sys.executable)
    parser.add_argument("--datatrove", action="store_true")
    parser.add_argument("--folder", type=Path, help="folder in which the inputs are kept between calls")
    args = parser.parse_args()
    names = ["priorkit", "ceiling", "datasets", *(["datatrove"] if args.datatrove else [])]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        if not (folder / "halves").is_dir():
            make(folder, args.source, args.megabytes)
        runs: dict[str, list[Run]] = {name: [] for name in names}
        for _ in range(args.runs):
            for name in names:
                run = measure(name, folder, args.peers)
                runs[name].append(run)
                print(
                    f"{name:<10} {run.seconds:6.1f} s  {run.processor:6.1f} processor s  {run.megabytes:5.0f} MB",
                    flush=True,
                )
        tokens = runs["ceiling"][0].tokens
        ours = statistics.median(run.seconds for run in runs["priorkit"])
        our_work = statistics.median(run.processor for run in runs["priorkit"])
        print(f"\n{tokens:,} tokens; {os.cpu_count()} processors; medians of {args.runs}")
        for name in names:
            seconds = statistics.median(run.seconds for run in runs[name])
            work = statistics.median(run.processor for run in runs[name])
            peak = max(run.megabytes for run in runs[name])
            print(
                f"{name:<10} {tokens / seconds / 1e6:5.2f} M tokens/s, priorkit {seconds / ours:.2f} times as fast; "
                f"{work:.1f} processor s ({work / our_work:.2f} times ours); peak {peak:,.0f} MB"
            )
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"(this script itself: {megabytes:,.0f} MB)")


if __name__ == "__main__":
    main()
