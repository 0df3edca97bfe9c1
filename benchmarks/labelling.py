"""Labelling segments: the text encoded once for six questions, against once per question; the linear labeller.

    python benchmarks/labelling.py --rounds 3

A random Llama (256 wide, 6 layers) on fp32, segments of 1024 tokens, rounds interleaved in one process.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from priorkit.data.text.concepts import CONCEPTS
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.labelling.language_models.likelihood import LikelihoodLabeller
from priorkit.labelling.language_models.prompts import read_prompts
from priorkit.labelling.linear import fit_linear_labeller
from priorkit.models.language.causal_lm import build_config, build_llm
from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe

SHAPE = {
    "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 4, "max_position_embeddings": 2048,
}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--segments", type=int, default=8)
    options = parser.parse_args()
    draw = random.Random(0)
    words = [
        w for file in sorted(Path(random.__file__).parent.glob("*.py"))[:40] for w in file.read_text().split()
    ]
    with TemporaryDirectory() as folder:
        save_tokenizer(train_bpe([" ".join(words[:60_000])], 4096), Path(folder))
        tokenizer = load_tokenizer(Path(folder))
    subject = ModelAdapter(build_llm(build_config(SHAPE, tokenizer), 1).eval(), tokenizer, 2048)

    def segment() -> str:
        start = draw.randrange(len(words) - 1200)
        ids = tokenizer(" ".join(words[start : start + 1200]), add_special_tokens=False)["input_ids"][:1024]
        return tokenizer.decode(ids)

    texts = [segment() for _ in range(options.segments)]
    shared = LikelihoodLabeller(subject, read_prompts()["plain"], "plain", batch_size=4)
    separate = LikelihoodLabeller(subject, read_prompts()["plain"], "plain", batch_size=4)
    separate._shares_cache = False
    seconds: dict[str, list[float]] = {"text encoded once": [], "text encoded per question": []}
    for _ in range(options.rounds):
        for name, labeller in zip(seconds, (shared, separate), strict=True):
            begun = time.perf_counter()
            labeller.score(texts)
            seconds[name].append(time.perf_counter() - begun)
    for name, values in seconds.items():
        print(f"{name:<25} {1024 * len(texts) / statistics.median(values):10.0f} tokens/s")
    once, each = (statistics.median(values) for values in seconds.values())
    print(f"ratio {each / once:.2f}")
    sample = [segment() for _ in range(300)]
    labels = np.random.default_rng(0).random((300, len(CONCEPTS))) < 0.3
    begun = time.perf_counter()
    linear = fit_linear_labeller(sample, labels, 0)
    print(f"linear labeller trained on 300 segments in {time.perf_counter() - begun:.1f} s")
    begun = time.perf_counter()
    linear.score(sample)
    print(f"{'linear labeller':<25} {1024 * len(sample) / (time.perf_counter() - begun):10.0f} tokens/s")


if __name__ == "__main__":
    main()
