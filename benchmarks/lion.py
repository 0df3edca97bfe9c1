"""The cost of LION's parts: training steps and generated tokens, with and without them, interleaved in one run.

Random weights. The baseline is the same model with the same number of visual tokens from the Q-Former, so that
all variants have rows of one length:

- training: forward and backward of a step, adapters + router + aggregator against neither
- generation: greedy tokens with a cache, adapters + router (the aggregator runs once, in the prompt)
- routing: task types per row against one task type for the batch, and per token

    python benchmarks/lion.py [--width 768] [--layers 6] [--rounds 5]

Medians of the rounds; the order within a round changes from round to round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import CLIPVisionConfig, LlamaConfig

from priorkit.architectures.lion.modeling.configuration import LionConfig
from priorkit.architectures.lion.modeling.model import LionForConditionalGeneration
from priorkit.models.kernels.attention import choose_attention

VISION = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 4,
    "image_size": 64, "patch_size": 16,
}  # fmt: skip
POSITIONS = 17
"""Positions of the encoder: 16 patches and the class token."""


def build(width: int, layers: int, lion: bool) -> Any:
    """A model with LION's adapters and aggregator, or with 17 more queries instead of the aggregator."""
    text = LlamaConfig(
        vocab_size=8192, hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=width // 64, pad_token_id=0,
    )  # fmt: skip
    queries = 15 if lion else 15 + POSITIONS
    config = LionConfig(
        text_config=text, vision_config=CLIPVisionConfig(**VISION), image_token_index=5,
        image_seq_length=15 + POSITIONS, branches=["qformer", "aggregator"] if lion else ["qformer"],
        adapters=["region", "image"] if lion else [], router=lion, queries=queries,
        qformer={"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024},
        aggregator_heads=4, aggregator_ffn=558, aggregator_mlp=1024, dropout=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = LionForConditionalGeneration(config)
    choose_attention(model, "cpu")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lion." in name)
    return model.train()


def batch(rows: int, time_: int) -> dict[str, torch.Tensor]:
    """Rows with one image each."""
    ids = torch.randint(6, 8000, (rows, time_))
    ids[:, 1 : 1 + 15 + POSITIONS] = 5
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "vision_states": torch.randn(rows, 4, POSITIONS, VISION["hidden_size"]),
        "qformer_input_ids": torch.randint(6, 8000, (rows, 12)),
    }


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def compare(title: str, works: dict[str, Callable[[], Any]], rounds: int) -> None:
    """Print medians and their ratio to the first."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for turn in range(rounds):
        names = list(works)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(seconds(works[name]))
    first = statistics.median(times[next(iter(works))])
    for name, values in times.items():
        middle = statistics.median(values)
        spread = f"{min(values) * 1e3:.1f} to {max(values) * 1e3:.1f}"
        print(f"| {title} | {name} | {middle * 1e3:.1f} | {spread} | {middle / first:.3f} |", flush=True)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (
        ("width", 768),
        ("layers", 6),
        ("rounds", 5),
        ("rows", 8),
        ("time", 128),
        ("tokens", 24),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads"
    )
    plain, lion = build(args.width, args.layers, False), build(args.width, args.layers, True)
    data = batch(args.rows, args.time)
    states = {id(model): len(model.model.wanted_states()) for model in (plain, lion)}
    rows = torch.arange(args.rows) % 2
    one = torch.zeros(args.rows, dtype=torch.long)
    tokens = rows[:, None].expand(-1, args.time).contiguous()

    def step(model: Any, tasks: torch.Tensor) -> None:
        inputs = {**data, "vision_states": data["vision_states"][:, : states[id(model)]]}
        model.zero_grad(set_to_none=True)
        # Without the head, which costs the same in all variants and would hide the difference.
        output = model.model(**inputs, task_types=tasks, use_cache=False)
        output.last_hidden_state.square().mean().backward()

    def write(model: Any) -> None:
        inputs = {**data, "vision_states": data["vision_states"][:, : states[id(model)]]}
        with torch.no_grad():
            output = model(**inputs, task_types=rows, use_cache=True, logits_to_keep=1)
        cache.update({id(model): output.past_key_values})

    def token(model: Any) -> None:
        with torch.no_grad():
            for _ in range(args.tokens):
                model(
                    input_ids=data["input_ids"][:, :1], task_types=rows, use_cache=True,
                    past_key_values=cache[id(model)],
                )  # fmt: skip
        cache[id(model)].crop(-args.tokens)

    cache: dict[int, Any] = {}
    print("| what | variant | median, ms | range, ms | ratio |\n|---|---|---|---|---|")
    compare(
        "training step",
        {"without": lambda: step(plain, rows), "adapters, router, aggregator": lambda: step(lion, rows)},
        args.rounds,
    )
    compare(
        "routing in a training step",
        {
            "one type per batch": lambda: step(lion, one),
            "per row": lambda: step(lion, rows),
            "per token": lambda: step(lion, tokens),
        },
        args.rounds,
    )
    for model in (plain, lion):
        model.eval()
        model.set_attn_implementation("sdpa")
    write(plain), write(lion)
    compare(
        f"{args.tokens} tokens with a cache",
        {"without": lambda: token(plain), "adapters, router": lambda: token(lion)},
        args.rounds,
    )


if __name__ == "__main__":
    main()
