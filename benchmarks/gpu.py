"""Everything worth knowing of a GPU in at most eight minutes: training, encoders, tuning, ranks, merging, generation.

    python benchmarks/gpu.py [--out gpu.jsonl] [--seconds 480] [--only NAME ...] [--dry]

Each measurement is a process with its own time limit; its line is written and synced before the next one starts, so
that what a lost machine had measured is kept. Needs torch and transformers, no network and no data. ``--dry`` runs
every item on tiny sizes on the CPU, to find what would fail before a GPU is at hand; its figures mean nothing.

Training steps are the loop's own: forward and backward, gradient norm, the one read of the device, clipping, AdamW.
MFU is tokens/s x (6 N + 12 L H T) / peak, with N all parameters and the peak of dense bf16 (989 TFLOP/s on H100 and
H200); attention is not halved for causality. Trainer runs in the same item, compiled, in bf16, with torch's fused
attention and fused AdamW, on the same batches.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

PEAK = 989e12
"""FLOP/s of an H100 or H200 in dense bf16."""

DRY_SECONDS = 900
"""Limit of a dry item, which may share its processors."""

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Item:
    """A measurement.

    Attributes:
        work: the function that measures.
        seconds: its time limit.
        options: its arguments.
    """

    work: str
    seconds: int
    options: dict[str, Any]


def items() -> dict[str, Item]:
    """All measurements, the most wanted first."""
    small, large = {"preset": "llama-340m", "rows": 32}, {"preset": "llama-1b", "rows": 16}
    return {
        "340M": Item("pretrain", 50, {**small, "compiled": True}),
        "340M, Trainer": Item("trainer", 60, small),
        "1.1B": Item("pretrain", 60, {**large, "compiled": True}),
        "1.1B, Trainer": Item("trainer", 60, large),
        "rank 50,000 x 1,000,000": Item("rank", 40, {}),
        "340M, documents": Item("pretrain", 50, {**small, "compiled": True, "documents": True}),
        "340M, not compiled": Item("pretrain", 30, small),
        "ViT-B/16": Item("encoder", 30, {"preset": "vit-b-16", "images": 512}),
        "ViT-L/14": Item("encoder", 40, {"preset": "vit-l-14", "images": 256}),
        "tuning, packed": Item("tune", 40, {"packing": True}),
        "tuning, padded": Item("tune", 40, {"packing": False}),
        "generation": Item("generate", 45, {}),
        "340M, fp32": Item("pretrain", 40, {**small, "rows": 8, "precision": "fp32"}),
        "merging": Item("merge", 60, {}),
        "tests/gpu": Item("tests", 120, {}),
    }


def measure(name: str, item: Item, dry: bool) -> dict[str, Any]:
    """Run an item in its own process; what it prints last, or why there is nothing."""
    command = [sys.executable, __file__, "--item", json.dumps(asdict(item)), *(["--dry"] if dry else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=item.seconds, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return {"item": name, "failed": f"over its limit of {item.seconds} s"}
    seconds = time.monotonic() - begun
    if done.returncode:
        return {"item": name, "failed": "\n".join(done.stderr.strip().splitlines()[-6:]), "seconds": seconds}
    return {"item": name, **json.loads(done.stdout.splitlines()[-1]), "seconds": seconds}


class Rows:
    """A corpus of random rows with documents of random lengths."""

    def __init__(self, length: int, vocabulary: int) -> None:
        import numpy as np

        self.context_length = length
        self._random, self._vocabulary = np.random.default_rng(0), vocabulary

    def __len__(self) -> int:
        return 1 << 20

    def row(self, index: int) -> Any:
        """Token ids of a row."""
        return self._random.integers(2, self._vocabulary, self.context_length)

    def document_ids(self, index: int) -> Any:
        """Documents of 300 tokens on average."""
        return (self._random.random(self.context_length) < 1 / 300).cumsum()


def started(dry: bool, precision: str = "bf16") -> Any:
    """The runtime of an item."""
    from priorkit.core.process import runtime

    return runtime.start(0, "cpu" if dry else "cuda", precision)  # pyright: ignore[reportArgumentType]


def synchronize(runtime: Any) -> None:
    """Wait for the device."""
    import torch

    if runtime.device.type == "cuda":
        torch.cuda.synchronize()


def rate(step: Callable[[], int], runtime: Any, warm_up: int, steps: int) -> float:
    """Units per second of a step that returns how many it worked on."""
    for _ in range(warm_up):
        step()
    synchronize(runtime)
    begun = time.perf_counter()
    units = sum(step() for _ in range(steps))
    synchronize(runtime)
    return units / (time.perf_counter() - begun)


def training_step(objective: Any, batch: Any, runtime: Any) -> Callable[[], int]:
    """A step of the training loop on one batch."""
    from torch import nn

    from priorkit.training.engine.optimizer import build_optimizer
    from priorkit.training.engine.settings import TrainingSettings
    from priorkit.training.engine.training_run import forward_backward

    optimizer = build_optimizer(objective, TrainingSettings(learning_rate=1e-4))
    optimizer.set_learning_rate(1e-4)
    trained = [parameter for parameter in objective.module.parameters() if parameter.requires_grad]

    def step() -> int:
        accumulated = forward_backward(objective, [batch], runtime)
        norm = nn.utils.get_total_norm([value.grad for value in trained if value.grad is not None])
        accumulated.read(norm)
        nn.utils.clip_grads_with_norm_(trained, 1.0, norm)
        optimizer.step()
        return int(accumulated.weight)

    return step


def pinned(batch: Any, runtime: Any) -> Any:
    """A batch in page-locked memory, as the loop's loader gives it."""
    from torch.utils.data._utils.pin_memory import pin_memory

    return pin_memory(batch) if runtime.device.type == "cuda" else batch


def language_model(preset: str, dry: bool) -> tuple[Any, int]:
    """A random Llama and its context length."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from priorkit.models.language.causal_lm import preset_fields

    fields = {**preset_fields("pocket-tiny" if dry else preset), "vocab_size": 300 if dry else 32_000}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**fields))
    return model, 64 if dry else int(fields["max_position_embeddings"])


def pretrain(
    dry: bool,
    preset: str,
    rows: int,
    compiled: bool = False,
    documents: bool = False,
    precision: str = "bf16",
) -> dict[str, Any]:
    """Pretraining: tokens/s and MFU."""
    from priorkit.models.kernels.attention import choose_attention
    from priorkit.training.engine.compilation import compile_decoder
    from priorkit.training.objectives.language_modeling import CausalLMObjective, CausalLMWithLoss

    runtime = started(dry, "fp32" if dry else precision)
    model, length = language_model(preset, dry)
    model.to(runtime.device)
    choose_attention(model, runtime.device.type, runtime.precision)
    if compiled:
        compile_decoder(model.get_decoder(), by_block=False, backend="eager" if dry else "inductor")
    corpus = Rows(length, model.config.vocab_size)
    objective = CausalLMObjective(CausalLMWithLoss(model), corpus, None, None, documents)  # pyright: ignore[reportArgumentType]
    batch = objective.collate([objective.sample(index, index) for index in range(2 if dry else rows)])
    step = training_step(objective, pinned(batch, runtime), runtime)
    return throughput(rate(step, runtime, 1 if dry else 4, 2 if dry else 12), model, length, runtime)


def throughput(tokens: float, model: Any, length: int, runtime: Any) -> dict[str, Any]:
    """Tokens/s with MFU and memory."""
    import torch

    config = model.config
    parameters = sum(value.numel() for value in model.parameters())
    per_token = 6 * parameters + 12 * config.num_hidden_layers * config.hidden_size * length
    memory = torch.cuda.max_memory_allocated() / 1e9 if runtime.device.type == "cuda" else 0.0
    return {
        "tokens/s": tokens,
        "MFU": tokens * per_token / PEAK,
        "memory GB": memory,
        "parameters": parameters,
    }


def trainer(dry: bool, preset: str, rows: int) -> dict[str, Any]:
    """transformers' Trainer on the same rows, as well tuned as it can be."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    runtime = started(dry, "fp32" if dry else "bf16")
    model, length = language_model(preset, dry)
    if not dry:
        model.set_attn_implementation("sdpa")
    corpus, count = Rows(length, model.config.vocab_size), 2 if dry else rows
    steps, warm_up = (2, 1) if dry else (12, 4)
    data = [{"input_ids": (ids := corpus.row(0)), "labels": ids} for _ in range(count * (warm_up + steps))]
    marks: list[float] = []

    class Clock(TrainerCallback):
        """Times of finished steps."""

        def on_step_end(self, *args: Any, **options: Any) -> None:
            synchronize(runtime)
            marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=count, max_steps=warm_up + steps, bf16=not dry,
            use_cpu=dry, torch_compile=not dry, optim="adamw_torch_fused", learning_rate=1e-4, report_to=[],
            logging_strategy="no", save_strategy="no", disable_tqdm=True, dataloader_pin_memory=not dry, seed=0,
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=data, callbacks=[Clock()]).train()  # pyright: ignore[reportArgumentType]
    tokens = count * length * steps / (marks[-1] - marks[warm_up - 1])
    return throughput(tokens, model, length, runtime)


def encoder(dry: bool, preset: str, images: int) -> dict[str, Any]:
    """Contrastive pretraining: images/s."""
    import torch
    from PIL import Image

    from priorkit.data.images.augmentation import AugmentationSettings
    from priorkit.models.kernels.attention import choose_attention
    from priorkit.models.vision.building import build_encoder
    from priorkit.training.engine.compilation import fast_encoders
    from priorkit.training.objectives.contrastive import ContrastiveObjective

    runtime = started(dry, "fp32" if dry else "bf16")
    count = 4 if dry else images
    texts = [f"a photo of thing number {number}" for number in range(count)]
    made = build_encoder("pocket-tiny" if dry else preset, texts, [Image.new("RGB", (64, 64))], 300, 0)
    made.model.to(runtime.device)
    choose_attention(made.model, runtime.device.type, runtime.precision)
    no_files: Any = None  # the pixels are drawn here
    objective = ContrastiveObjective(made, no_files, texts, AugmentationSettings(), 0)
    pixels = torch.randint(0, 256, (count, 3, *made.prepared_size()), dtype=torch.uint8)
    batch = objective.collate([(pixels[number], number, []) for number in range(count)])
    with fast_encoders(made.model, compiled=not dry, pooled_only=True):
        step = training_step(objective, pinned(batch, runtime), runtime)
        return {"images/s": rate(step, runtime, 1 if dry else 4, 2 if dry else 10)}


def tune(dry: bool, packing: bool) -> dict[str, Any]:
    """Instruction tuning of a 1B language model with ViT-L/14: samples/s, conversations of log-normal length."""
    import numpy as np
    import torch
    from PIL import Image

    from priorkit.data.conversations.sample_packing import COARSE
    from priorkit.models.kernels.attention import choose_attention
    from priorkit.models.language.causal_lm import build_config, build_llm, preset_fields
    from priorkit.models.language.chat_template import TokenizedConversation
    from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe
    from priorkit.models.multimodal.llava_assembly import assemble_llava
    from priorkit.models.vision.building import build_encoder
    from priorkit.training.finetuning.batches import TrainingSample
    from priorkit.training.finetuning.objective import InstructionObjective

    runtime = started(dry, "fp32" if dry else "bf16")
    texts = [f"a photo of thing number {number}" for number in range(64)]
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(train_bpe(texts, 330), Path(folder))
        tokenizer = load_tokenizer(Path(folder))
    fields = {**preset_fields("pocket-tiny" if dry else "llama-1b"), "vocab_size": 400 if dry else 32_000}
    llm = build_llm(build_config(fields, tokenizer), 0)
    vision = build_encoder("pocket-tiny" if dry else "vit-l-14", texts, [Image.new("RGB", (64, 64))], 300, 0)
    multimodal = assemble_llava(llm, tokenizer, vision, -2, class_token=False, seed=0)
    multimodal.model.to(runtime.device)
    choose_attention(multimodal.model, runtime.device.type, runtime.precision)
    for name, value in multimodal.model.named_parameters():
        value.requires_grad_(multimodal.parameter_part(name) != "encoder")

    class Features:
        """Random pixels, encoded in every step."""

        def collate(self, images: Any) -> dict[str, Any]:
            height, width = vision.prepared_size()
            return {"pixels": torch.randint(0, 256, (len(images), 3, height, width), dtype=torch.uint8)}

        def of_batch(self, batch: Any) -> Any:
            with torch.no_grad():
                return multimodal.patch_features(batch["pixels"])

        def example(self) -> Any:
            raise NotImplementedError

    samples: Any = []
    objective = InstructionObjective(
        multimodal,
        samples,
        multimodal.chat_tokenizer(),
        Features(),
        packing=packing,
        lengths_per_octave=COARSE,
    )
    random, image = np.random.default_rng(0), multimodal.model.config.image_token_id
    lengths = np.clip(np.exp(random.normal(np.log(160), 0.8, 4 if dry else 32)), 8, 64 if dry else 1000)
    drawn: list[TrainingSample] = []
    for number, length in enumerate(lengths.astype(int).tolist()):
        words = random.integers(4, 300, length).tolist()
        ids = [1, *[image] * multimodal.image_tokens, *words]
        labels = [-100] * (len(ids) - length // 2) + words[length - length // 2 :]
        drawn.append(TrainingSample(TokenizedConversation(ids, labels, False), (number,)))
    batch = objective.collate(drawn)
    step = training_step(objective, pinned(batch, runtime), runtime)
    steps = rate(lambda: step() and 1, runtime, 1 if dry else 3, 2 if dry else 8)
    return {"samples/s": steps * len(drawn), "useful share": objective.useful_share}


def rank(dry: bool) -> dict[str, Any]:
    """Ranks of 50,000 images among a million names of width 768, in float64's order."""
    import torch

    from priorkit.scoring.representations.ranks import true_ranks

    runtime = started(dry, "fp32")
    queries, candidates, width = (50, 400, 16) if dry else (50_000, 1_000_000, 768)
    generator = torch.Generator(runtime.device).manual_seed(0)

    def features(count: int) -> torch.Tensor:
        drawn = torch.randn(count, width, generator=generator, device=runtime.device)
        return torch.nn.functional.normalize(drawn, dim=1)

    names = features(candidates)
    truth = torch.randint(candidates, (queries,), generator=generator, device=runtime.device)
    images = torch.nn.functional.normalize(names[truth] * 0.15 + features(queries) * width**-0.5 * 8, dim=1)
    found: dict[str, Any] = {}
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        true_ranks(images[:32], names, truth[:32])
        synchronize(runtime)
        begun = time.perf_counter()
        ranks = true_ranks(images, names, truth)
        found[f"seconds, {precision}"] = time.perf_counter() - begun
        found[f"mean rank, {precision}"] = float(ranks.mean())
    return found


def generate(dry: bool) -> dict[str, Any]:
    """Greedy generation with a 1B model, 32 prompts of 128 tokens, 64 new tokens each: as priorkit decodes on a GPU
    (steps recorded as a CUDA graph), with a cache of fixed size, with a growing one; generate of transformers."""
    import torch

    from priorkit.inference.decoding.fixed_cache import FixedBatch
    from priorkit.inference.decoding.growing_cache import GrowingBatch
    from priorkit.inference.generation import generate_batch
    from priorkit.inference.model_adapter import ModelAdapter
    from priorkit.inference.prefill import prefill
    from priorkit.inference.prompt_inputs import PromptInputs

    runtime = started(dry, "fp32" if dry else "bf16")
    model, _ = language_model("llama-1b", dry)
    model.to(runtime.device, torch.float32 if dry else torch.bfloat16).eval()
    count, length, new = (2, 8, 4) if dry else (32, 128, 64)
    ids = torch.randint(4, 300, (count, length), generator=torch.Generator().manual_seed(0))
    adapter = ModelAdapter(model, None, 2048)
    prompts, inputs = ids.tolist(), [PromptInputs(())] * count

    def ours() -> int:
        answers = generate_batch(adapter, prompts, inputs, max_new_tokens=new, stop=())
        return sum(map(len, answers))

    def computed(fixed: bool) -> int:
        with torch.no_grad():
            filled = prefill(adapter, prompts, inputs, cached=True)
            batch = FixedBatch(adapter, filled, count, new, False) if fixed else GrowingBatch(adapter, filled)
            for _ in range(new - 1):
                batch.step(batch.next_tokens())
        return count * new

    def theirs() -> int:
        given = ids.to(runtime.device)
        with torch.no_grad():
            made = model.generate(
                given, attention_mask=torch.ones_like(given), do_sample=False, min_new_tokens=new,
                max_new_tokens=new, pad_token_id=0,
            )  # fmt: skip
        return int(made.shape[0]) * new

    with torch.autocast("cuda", torch.bfloat16) if not dry else nullcontext():
        return {
            "tokens/s": rate(ours, runtime, 1, 2),
            "not recorded": rate(lambda: computed(True), runtime, 1, 1),
            "growing cache": rate(lambda: computed(False), runtime, 1, 1),
            "transformers tokens/s": rate(theirs, runtime, 1, 2),
        }


def merge(dry: bool) -> dict[str, Any]:
    """Merging runs on processors; benchmarks/merge.py measures it against PEFT."""
    if dry:
        from priorkit.merging.methods.registry import METHODS

        return {"methods": len(METHODS)}
    command = [sys.executable, str(ROOT / "benchmarks" / "merge.py"), "--runs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"output": done.stdout.strip().splitlines()}


def tests(dry: bool) -> dict[str, Any]:
    """The tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "gpu")]
    command += ["--collect-only"] if dry else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return {"exit": done.returncode, "summary": done.stdout.strip().splitlines()[-1:]}


WORK: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (pretrain, trainer, encoder, tune, rank, generate, merge, tests)
}


def write(path: Path, line: dict[str, Any]) -> None:
    """Append a line and force it to the disk."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def main() -> None:
    """Measure what was asked for, within the time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"))
    parser.add_argument(
        "--seconds", type=float, default=480.0, help="no item is started that could end later"
    )
    parser.add_argument("--only", nargs="*", choices=sorted(items()), help="names of items")
    parser.add_argument("--dry", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--item", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.item:
        item = Item(**json.loads(arguments.item))
        print(json.dumps(WORK[item.work](arguments.dry, **item.options)))
        return
    begun, failed = time.monotonic(), 0
    for name, item in items().items():
        if arguments.only and name not in arguments.only:
            continue
        left = arguments.seconds - (time.monotonic() - begun)
        if left < 10 and not arguments.dry:
            line: dict[str, Any] = {"item": name, "failed": "no time was left"}
        else:
            limit = DRY_SECONDS if arguments.dry else int(min(item.seconds, left))
            line = measure(name, replace(item, seconds=limit), arguments.dry)
        failed += "failed" in line
        write(arguments.out, line)
        print(json.dumps(line), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
