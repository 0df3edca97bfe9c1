"""Evaluation against its peers: items per second in one process, interleaved, as ratios; and the time of CIDEr.

Work, with random models made in memory or the golden model of the tests:

- multiple choice and perplexity of a language model: lm-evaluation-harness (``HFLM``), same batch size
- options by likelihood about images: transformers' forward pass over every question with every option
- generated answers about images: transformers' ``generate`` over padded batches in the benchmark's order
- CIDEr-D, BLEU, ROUGE-L of 5,000 captions with five references each (no peer)

    python benchmarks/evaluate.py [--runs 3] [--only choices,perplexity,likelihood,generation,captions]

Run it with an interpreter that can import lm_eval 0.4.13 in addition to priorkit; without it its rows are
omitted. Loading is not timed on either side; reading, tokenization and batching are. The run stops if answers
differ: log-likelihoods by more than 1e-5 relative, generated answers except for rounding ties.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
WORDS = [
    "the",
    "red",
    "small",
    "circle",
    "stands",
    "beside",
    "one",
    "large",
    "blue",
    "square",
    "and",
    "three",
    "green",
    "stars",
    "under",
    "a",
    "long",
    "arrow",
]


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall time, processor time (less disturbed by other work on the machine), and the result."""
    begun = time.perf_counter(), time.process_time()
    results = work()
    return time.perf_counter() - begun[0], time.process_time() - begun[1], results


def compare_rates(
    name: str, items: int, runs: int, ours: Callable[[], Any], peer: Callable[[], Any]
) -> dict[str, Any]:
    """Medians of items per second over interleaved runs, after one warm-up of each."""
    expected, results = peer(), ours()
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    spent: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(runs):
        for key, work in (("peer", peer), ("ours", ours)):
            seconds, processor, _ = timed(work)
            times[key].append(seconds)
            spent[key].append(processor)
    speed = {key: items / statistics.median(own) for key, own in times.items()}
    row = {
        "work": name,
        "items": items,
        "ours, items/s": [round(items / own, 1) for own in times["ours"]],
        "peer, items/s": [round(items / own, 1) for own in times["peer"]],
        "ratio of medians": round(speed["ours"] / speed["peer"], 2),
        "ratio of processor time": round(
            statistics.median(spent["peer"]) / statistics.median(spent["ours"]), 2
        ),
    }
    print(json.dumps(row), flush=True)
    return {**row, "found": results, "expected": expected}


def sentence(generator: random.Random, words: int) -> str:
    return " ".join(generator.choice(WORDS) for _ in range(words))


def choice_items(count: int, context: int, option: int) -> list[dict[str, Any]]:
    generator = random.Random(0)
    return [
        {
            "context": sentence(generator, generator.randint(context // 2, context)),
            "choices": [sentence(generator, generator.randint(1, option)) for _ in range(4)],
        }
        for _ in range(count)
    ]


def language(runs: int, work: str) -> None:
    try:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        print(f"lm_eval omitted: {error}")
        return
    import logging

    import torch

    logging.disable(logging.INFO)
    from priorkit.models.language.causal_lm import build_config, build_llm
    from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        save_tokenizer(train_bpe([sentence(random.Random(n), 40) for n in range(200)], 8192), root)
        tokenizer = load_tokenizer(root)
        fields = {
            "model_type": "llama", "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6,
            "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512,
        }  # fmt: skip
        torch.manual_seed(0)
        build_llm(build_config(fields, tokenizer), 0).save_pretrained(root)
        models = {
            "golden model": (GOLDEN / "tiny-llama", choice_items(200, 8, 3), 24),
            "6 layers, width 256": (root, choice_items(64, 80, 10), 12),
        }
        for name, (path, items, documents) in models.items():
            lm = HFLM(
                pretrained=str(path), batch_size=16, device="cpu", dtype="float32", trust_remote_code=False
            )
            if work == "choices":
                row = compare_rates(
                    f"multiple choice, {name}", len(items), runs, lambda p=path, i=items: our_choices(p, i),
                    lambda lm=lm, i=items: peer_choices(lm, Instance, i),
                )  # fmt: skip
                check_equal(row["found"], row["expected"])
                continue
            lengths = random.Random(2)
            corpora = {
                "200 words each": [sentence(random.Random(n), 200) for n in range(documents)],
                # Short and long texts as in a corpus: half of them under 40 words.
                "5 to 300 words": [
                    sentence(random.Random(n), round(5 * 60 ** lengths.random()))
                    for n in range(4 * documents)
                ],
            }
            for kind, texts in corpora.items():
                row = compare_rates(
                    f"perplexity, {name}, texts of {kind}", len(texts), runs,
                    lambda p=path, t=texts: our_documents(p, t),
                    lambda lm=lm, t=texts: peer_documents(lm, Instance, t),
                )  # fmt: skip
                check_equal(row["found"], row["expected"])


def peer_documents(lm: Any, instance: Any, texts: list[str]) -> list[list[float]]:
    requests = [instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    return [lm.loglikelihood_rolling(requests, disable_tqdm=True)]


def peer_choices(lm: Any, instance: Any, items: list[dict[str, Any]]) -> list[list[float]]:
    requests = [
        instance("loglikelihood", {}, (item["context"], " " + choice), 0)
        for item in items
        for choice in item["choices"]
    ]
    values = [value for value, _ in lm.loglikelihood(requests, disable_tqdm=True)]
    return [values[start : start + 4] for start in range(0, len(values), 4)]


LOADED: dict[Path, Any] = {}


def load_runner(path: Path, kind: Any = "plain", form: Any = "text") -> Any:
    import torch

    from priorkit.architectures.registry import check_model
    from priorkit.evaluation.runner.asking import RequestOptions
    from priorkit.evaluation.runner.prompts import PromptBuilder
    from priorkit.inference.loading import load_model_adapter

    if path not in LOADED:
        LOADED[path] = load_model_adapter(check_model(path), torch.device("cpu"))
    adapter = LOADED[path]
    adapter.forget()
    return adapter, RequestOptions(PromptBuilder(adapter.tokenizer, kind, form), 16, 16)


def run_items(
    path: Path, items: list[Any], task: Any, mode: Any, kind: Any = "plain", form: Any = "text"
) -> list[Any]:
    from priorkit.data.io.rejects import Rejects
    from priorkit.evaluation.runner.request_runner import run_requests
    from priorkit.inference.answer_cache import AnswerCache

    adapter, options = load_runner(path, kind, form)
    with tempfile.TemporaryDirectory() as folder:
        return run_requests(
            adapter, options, items, task, mode, Rejects(0.0), "benchmark", AnswerCache(Path(folder), "b")
        )[1]


def our_choices(path: Path, items: list[dict[str, Any]]) -> list[list[float]]:
    from priorkit.evaluation.tasks.choice import CHOICE
    from priorkit.evaluation.tasks.item import Item

    own = [
        Item(id=place, question=item["context"], choices=tuple(item["choices"]), answer=0)
        for place, item in enumerate(items)
    ]
    return [list(answer.loglikelihoods) for answer in run_items(path, own, CHOICE, "likelihood")]


def our_documents(path: Path, texts: list[str]) -> list[list[float]]:
    from priorkit.evaluation.tasks.item import Item
    from priorkit.evaluation.tasks.perplexity import PERPLEXITY

    own = [Item(id=place, text=text) for place, text in enumerate(texts)]
    return [[answer.loglikelihoods[0] for answer in run_items(path, own, PERPLEXITY, "likelihood")]]


def check_equal(results: list[list[float]], expected: list[list[float]]) -> None:
    worst = max(
        abs(a - b) / max(1.0, abs(b))
        for x, y in zip(results, expected, strict=True)
        for a, b in zip(x, y, strict=True)
    )
    print(f"  largest relative difference {worst:.1e}")
    if worst > 1e-5:
        sys.exit("the log-likelihoods differ")


def visual_items(images: int, questions: int, choices: int) -> list[Any]:
    import numpy as np
    from PIL import Image

    from priorkit.data.images.decoding import ImageRef
    from priorkit.evaluation.tasks.item import Item

    generator = random.Random(1)
    visual: list[Any] = []
    for number in range(images):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(np.kron(pixels, np.ones((12, 12, 1), dtype=np.uint8))).save(buffer, "PNG")
        ref = ImageRef(f"{number}.png", content=buffer.getvalue())
        visual += [
            Item(
                id=f"{number}.{own}",
                question=f"Is there {sentence(generator, generator.randint(2, 14))}?",
                image=ref,
                choices=tuple(sentence(generator, generator.randint(1, 3)) for _ in range(choices)),
                answer=0,
                answers=("red",),
            )
            for own in range(questions)
        ]
    # Benchmarks are not sorted by image.
    generator.shuffle(visual)
    return visual


def make_llava(root: Path) -> None:
    import torch
    from PIL import Image

    from priorkit.models.language.causal_lm import build_config, build_llm
    from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe
    from priorkit.models.multimodal.llava_assembly import assemble_llava
    from priorkit.models.vision.building import build_encoder

    texts = [sentence(random.Random(n), 40) for n in range(200)]
    save_tokenizer(train_bpe(texts, 4096), root / "tokenizer")
    tokenizer = load_tokenizer(root / "tokenizer")
    fields = {
        "model_type": "llama", "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512, "initializer_range": 0.08,
    }  # fmt: skip
    llm = build_llm(build_config(fields, tokenizer), 0)
    encoder = build_encoder("pocket", texts, [Image.linear_gradient("L").convert("RGB")], 4096, 2)
    # 144 positions per image, a quarter of LLaVA 1.5's 576.
    shape = {**encoder.model.config.to_dict()}
    side = 12 * shape["vision_config"]["patch_size"]
    shape["vision_config"] = {**shape["vision_config"], "image_size": side}
    model = type(encoder.model)(type(encoder.model.config).from_dict(shape))
    encoder.image_processor.size = {"shortest_edge": side}
    encoder.image_processor.crop_size = {"height": side, "width": side}
    encoder = type(encoder)(model, encoder.image_processor, encoder.tokenizer)
    multimodal = assemble_llava(llm, tokenizer, encoder, -2, class_token=False, seed=3)
    with torch.no_grad():
        for parameter in multimodal.model.model.multi_modal_projector.parameters():
            parameter.mul_(20)
    multimodal.save(root / "llava")
    print(f"  {multimodal.image_tokens} positions per image")


def peer_inputs(adapter: Any, processor: Any, texts: list[str], items: list[Any]) -> Any:
    from priorkit.data.images.decoding import decode

    processor.tokenizer.padding_side = "left"
    processor.tokenizer.pad_token = processor.tokenizer.pad_token or processor.tokenizer.eos_token
    return processor(
        images=[decode(item.image) for item in items], text=texts, padding=True, add_special_tokens=False,
        return_tensors="pt",
    )  # fmt: skip


def by_likelihood(runs: int) -> None:
    import torch

    from priorkit.evaluation.tasks.choice import CHOICE
    from priorkit.inference.likelihood.requests import split_pair

    with tempfile.TemporaryDirectory() as folder:
        make_llava(Path(folder))
        path = Path(folder) / "llava"
        items = visual_items(12, 4, 4)
        adapter, options = load_runner(path, "chat", "text")
        processor = adapter.multimodal.processor
        prompts = [options.prompter(item, CHOICE, "likelihood") for item in items]

        @torch.no_grad()
        def peer() -> list[list[float]]:
            rows = [
                (item, prompt.text, option, place)
                for place, (item, prompt) in enumerate(zip(items, prompts, strict=True))
                for (option,) in prompt.options
            ]
            results: list[list[float]] = [[] for _ in items]
            for start in range(0, len(rows), 16):
                part = rows[start : start + 16]
                inputs = peer_inputs(
                    adapter, processor, [text + option for _, text, option, _ in part], [r[0] for r in part]
                )
                mask = inputs["attention_mask"]
                positions = (mask.cumsum(1) - 1).clamp(min=0)
                logits = adapter.model(**inputs, position_ids=positions).logits.float().log_softmax(-1)
                for row, (_, text, option, place) in enumerate(part):
                    _, ids = split_pair(adapter.encode, text, option, adapter.prefix)
                    own = logits[row, -len(ids) - 1 : -1].gather(1, torch.tensor(ids)[:, None])
                    results[place].append(float(own.sum()))
            return results

        def ours() -> list[list[float]]:
            return [
                list(answer.loglikelihoods)
                for answer in run_items(path, items, CHOICE, "likelihood", "chat", "text")
            ]

        row = compare_rates(
            "options about images by likelihood, 4 questions per image", len(items), runs, ours, peer
        )
        check_equal(row["found"], row["expected"])


def by_generation(runs: int) -> None:
    import torch

    from priorkit.evaluation.tasks.short_answer import VQA

    with tempfile.TemporaryDirectory() as folder:
        make_llava(Path(folder))
        path = Path(folder) / "llava"
        for questions in (4, 1):
            items = visual_items(64 // questions, questions, 4)
            adapter, options = load_runner(path, "chat", "letter")
            prompts = [options.prompter(item, VQA, "generation").text for item in items]
            # A random model never generates an end token: frequent tokens serve as one, so that answers have four on average.
            ends = end_tokens(adapter, prompts, items)
            adapter.model.generation_config.eos_token_id = [*ends, adapter.tokenizer.eos_token_id]
            processor = adapter.multimodal.processor

            @torch.no_grad()
            def peer(
                items: Any = items,
                prompts: Any = prompts,
                adapter: Any = adapter,
                processor: Any = processor,
                ends: Any = ends,
            ) -> list[str]:
                texts: list[str] = []
                for start in range(0, len(items), 16):
                    inputs = peer_inputs(
                        adapter, processor, prompts[start : start + 16], items[start : start + 16]
                    )
                    written = adapter.model.generate(
                        **inputs, max_new_tokens=16, do_sample=False,
                        eos_token_id=[*ends, adapter.tokenizer.eos_token_id],
                        pad_token_id=adapter.tokenizer.eos_token_id,
                    )  # fmt: skip
                    for row in written[:, inputs["input_ids"].shape[1] :].tolist():
                        stop = next(
                            (
                                n
                                for n, token in enumerate(row)
                                if token in (*ends, adapter.tokenizer.eos_token_id)
                            ),
                            len(row),
                        )
                        texts.append(adapter.tokenizer.decode(row[:stop], skip_special_tokens=True).strip())
                return texts

            def ours(items: Any = items) -> list[str]:
                return [
                    answer.prediction
                    for answer in run_items(path, items, VQA, "generation", "chat", "letter")
                ]

            row = compare_rates(
                f"generated answers, {questions} questions per image", len(items), runs, ours, peer
            )
            equal = sum(a == b for a, b in zip(row["found"], row["expected"], strict=True))
            print(f"  {equal} of {len(items)} answers equal")
            if equal < 0.95 * len(items):
                sys.exit("the answers differ")


def end_tokens(adapter: Any, prompts: list[str], items: list[Any]) -> list[int]:
    from collections import Counter

    from priorkit.inference.generation import generate_batch
    from priorkit.inference.prompt_inputs import PromptInputs

    written = generate_batch(
        adapter,
        [adapter.encode(text) for text in prompts],
        [PromptInputs(item.images) for item in items],
        max_new_tokens=16,
        stop=(),
    )
    counts = Counter(token for own in written for token in set(own[1:6]))
    chosen: set[int] = set()
    lengths = [16] * len(written)
    for token, _ in counts.most_common():
        chosen.add(token)
        lengths = [next((n for n, own_token in enumerate(own) if own_token in chosen), 16) for own in written]
        if statistics.mean(lengths) <= 4:
            break
    print(
        f"  answers end after {statistics.mean(lengths):.1f} tokens on average, {min(lengths)} to {max(lengths)}"
    )
    return sorted(chosen)


def captions() -> None:
    from priorkit.scoring.answers.captions import score_captions

    generator = random.Random(0)
    candidates = [sentence(generator, generator.randint(8, 14)) for _ in range(5000)]
    references = [[sentence(generator, generator.randint(8, 14)) for _ in range(5)] for _ in range(5000)]
    seconds, _, _ = timed(lambda: score_captions(candidates, references))
    print(json.dumps({"work": "CIDEr-D, BLEU, ROUGE-L of 5,000 x 5 captions", "seconds": round(seconds, 2)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="choices,perplexity,likelihood,generation,captions")
    args = parser.parse_args()
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, transformers {transformers.__version__}"
    )
    works: dict[str, Callable[[], None]] = {
        "choices": lambda: language(args.runs, "choices"),
        "perplexity": lambda: language(args.runs, "perplexity"),
        "likelihood": lambda: by_likelihood(args.runs),
        "generation": lambda: by_generation(args.runs),
        "captions": captions,
    }
    for name in args.only.split(","):
        works[name]()


if __name__ == "__main__":
    main()
