"""How time and peak memory grow with the size of the input: a curve per kind of size, resumed point by point.

    python benchmarks/growth.py OUT [--only tokens names ...] [--most SIZE] [--limit 60] [--plot-only]

Curves: ``tokens`` (``mix``, megabytes of text), ``names`` (counting ranks among so many names), ``parameters``
(``merge-adapters --method linear`` of two models, in millions), ``images`` (``pretrain-encoder`` for one step, which
reads and decodes all pairs first), ``samples`` (``tune`` for one step, which reads all conversations first), ``plans``
and ``lion`` (``tune --check`` and one step of LION, on so many samples with an image file each). The input of a point is
made first and removed afterwards; measured is a process of its own: seconds, processor seconds of it and its workers,
and the largest resident memory of any of them.

A point that is done is a line of ``OUT/growth.jsonl`` and is not measured again. A point that would take more than
``--limit`` processor seconds by the two before it is left out and said so. ``OUT/growth.svg`` has two panels per curve.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

RANKS = """
import sys, torch
from priorkit.scoring.representations.ranks import RankCounter
names, part, width, queries = int(sys.argv[1]), 10_000, 128, 500
generator = torch.Generator().manual_seed(0)
def features(count):
    return torch.nn.functional.normalize(torch.randn(count, width, generator=generator), dim=1)
first = features(part)
truth = torch.randint(part, (queries,), generator=generator)
counter = RankCounter(torch.nn.functional.normalize(first[truth] + 0.1 * features(queries), dim=1), first, truth)
counter.add(first)
for start in range(part, names, part):
    counter.add(features(part), first=start)
print(float(counter.ranks.mean()))
"""


@dataclass(frozen=True)
class Point:
    """A measurement.

    Attributes:
        curve: the kind of size.
        size: in the curve's unit.
        seconds: from start to exit.
        processor: seconds of the process and those that it started.
        megabytes: the largest resident memory of any of them.
    """

    curve: str
    size: float
    seconds: float
    processor: float
    megabytes: float


@dataclass(frozen=True)
class Curve:
    """What is measured over a kind of size.

    Attributes:
        unit: of the sizes.
        sizes: rising.
        prepare: makes the input of a size in a folder and returns the command.
    """

    unit: str
    sizes: tuple[float, ...]
    prepare: Callable[[float, Path], list[str]]


def priorkit(*words: object) -> list[str]:
    """A command of priorkit."""
    return [sys.executable, "-m", "priorkit", *map(str, words), "--quiet"]


def python_files() -> list[str]:
    """The source of Python's own library, some 12 MB."""
    files = sorted(Path(os.__file__).parent.glob("*.py")) + sorted(Path(os.__file__).parent.glob("*/*.py"))
    return [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]


def tokens(size: float, folder: Path) -> list[str]:
    """``mix`` of so many megabytes: Python's source, each repetition with a first line of its own."""
    from priorkit.models.language.tokenizer import save_tokenizer, train_bpe

    texts = python_files()
    save_tokenizer(train_bpe(texts[:150], 8192, "qwen2"), folder / "tokenizer")
    written, number = 0, 0
    with (folder / "text.jsonl").open("w", encoding="utf-8") as stream:
        while written < size * 1e6:
            line = json.dumps({"text": f"# copy {number}\n{texts[number % len(texts)]}"}) + "\n"
            stream.write(line)
            written, number = written + len(line), number + 1
    return priorkit(
        "mix", f"code={folder / 'text.jsonl'}", "--tokenizer", folder / "tokenizer",
        "--context-length", 512, "--workers", 1, "--out", folder / "out",
    )  # fmt: skip


def names(size: float, folder: Path) -> list[str]:
    """Ranks of 500 images among so many names of width 128, which are made in parts of 10,000."""
    return [sys.executable, "-c", RANKS, str(int(size))]


def parameters(size: float, folder: Path) -> list[str]:
    """The mean of two Llamas of so many million parameters, in bf16 and shards of some 300 MB."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    width, inner, vocabulary = 1024, 4096, 32_000
    per_layer = 4 * width**2 + 3 * width * inner + 2 * width
    layers = max(1, round((size * 1e6 - 2 * vocabulary * width) / per_layer))
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=16, num_key_value_heads=16, architectures=["LlamaForCausalLM"], dtype="bfloat16",
    )  # fmt: skip
    shapes = {
        **{f"self_attn.{name}_proj": (width, width) for name in "qkvo"},
        "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner),
        "input_layernorm": (width,), "post_attention_layernorm": (width,),
    }  # fmt: skip
    for number, name in enumerate("ab"):
        model = folder / name
        config.save_pretrained(model)
        generator = torch.Generator().manual_seed(number)

        def drawn(shape: tuple[int, ...], generator: torch.Generator = generator) -> torch.Tensor:
            return torch.randn(shape, generator=generator).mul_(0.02).bfloat16()

        placed: dict[str, str] = {}

        def store(
            shard: str, values: dict[str, Any], model: Path = model, placed: dict[str, str] = placed
        ) -> None:
            save_file(values, model / shard, metadata={"format": "pt"})
            placed.update(dict.fromkeys(values, shard))

        ends = {"model.embed_tokens.weight": (vocabulary, width), "lm_head.weight": (vocabulary, width)}
        store(
            "model-ends.safetensors",
            {key: drawn(shape) for key, shape in (*ends.items(), ("model.norm.weight", (width,)))},
        )
        for first in range(0, layers, 9):
            block = range(first, min(first + 9, layers))
            store(
                f"model-{first:05d}.safetensors",
                {
                    f"model.layers.{n}.{key}.weight": drawn(shape)
                    for n in block
                    for key, shape in shapes.items()
                },
            )
        index = {"metadata": {"total_size": 0}, "weight_map": placed}
        (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return priorkit(
        "merge-adapters", folder / "a", folder / "b", "--method", "linear", "--weight", 0.5, "--out", folder / "out"
    )  # fmt: skip


def images(size: float, folder: Path) -> list[str]:
    """One step of ``pretrain-encoder`` on so many pairs: 32 x 32 PNGs of random blocks, a caption each."""
    import io

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    random = np.random.default_rng(0)
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema({"image": struct, "caption": pa.string()})
    (folder / "pairs").mkdir()
    with pq.ParquetWriter(folder / "pairs" / "train-00000.parquet", schema) as writer:
        for start in range(0, int(size), 1000):
            rows: list[dict[str, Any]] = []
            for number in range(start, min(start + 1000, int(size))):
                block = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(np.kron(block, np.ones((8, 8, 1), dtype=np.uint8))).save(buffer, "PNG")
                rows.append(
                    {
                        "image": {"bytes": buffer.getvalue(), "path": f"{number}.png"},
                        "caption": f"thing {number % 997}",
                    }
                )
            writer.write_table(pa.Table.from_pylist(rows, schema))
    return priorkit(
        "pretrain-encoder", folder / "pairs", "--preset", "pocket-tiny", "--vocab-size", 300, "--steps", 1,
        "--batch-size", 8, "--device", "cpu", "--out", folder / "out",
    )  # fmt: skip


def small_mllm(folder: Path) -> tuple[Path, list[str]]:
    """A tiny multimodal model of random weights, and the texts of its tokenizer."""
    from PIL import Image

    from priorkit.models.language.causal_lm import build_config, build_llm, preset_fields
    from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe
    from priorkit.models.multimodal.llava_assembly import assemble_llava
    from priorkit.models.vision.building import build_encoder

    texts = [f"what is thing {number}? it is a thing of kind {number % 7}." for number in range(200)]
    save_tokenizer(train_bpe(texts, 400, "qwen2"), folder / "tokenizer")
    tokenizer = load_tokenizer(folder / "tokenizer")
    llm = build_llm(build_config(preset_fields("pocket-tiny"), tokenizer), 0)
    vision = build_encoder("pocket-tiny", texts, [Image.new("RGB", (64, 64))], 300, 0)
    assemble_llava(llm, tokenizer, vision, -2, class_token=False, seed=0).save(folder / "mllm")
    return folder / "mllm", texts


def samples(size: float, folder: Path) -> list[str]:
    """One step of ``tune`` on so many conversations of two rounds, without images."""
    mllm, texts = small_mllm(folder)
    with (folder / "talks.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(int(size)):
            turns = [
                {
                    "from": ("human", "gpt")[turn % 2],
                    "value": f"thing {number} {texts[(number + turn) % 200]}",
                }
                for turn in range(4)
            ]
            stream.write(json.dumps({"id": str(number), "conversations": turns}) + "\n")
    return priorkit(
        "tune", mllm, folder / "talks.jsonl", "--steps", 1, "--batch-size", 4, "--device", "cpu",
        "--out", folder / "out",
    )  # fmt: skip


def lion_words(size: float, folder: Path) -> list[object]:
    """``tune`` on so many samples in the layout of LION's release, half of them with a box, each with its own image.

    The images are hard links to one file for 50,000 of them, in folders of 1,000.
    """
    from PIL import Image

    root, count = folder / "images", int(size)
    root.mkdir()
    with (folder / "release.json").open("w", encoding="utf-8") as stream:
        for number in range(count):
            source = root / f"{number // 50_000}.png"
            if number % 50_000 == 0:
                Image.new("RGB", (32, 32), (number // 50_000 % 256, 90, 160)).save(source)
            below = root / f"{number // 1000:05d}"
            if number % 1000 == 0:
                below.mkdir()
            image = below / f"{number % 1000:03d}.png"
            image.hardlink_to(source)
            left = number % 5 / 10
            region = {
                "question": f"Where is thing {number}?",
                "answer": f"[{left:.3f},0.100,{left + 0.5:.3f},0.700]",
                "category": "ref",
            }
            whole = {
                "question": f"What is in picture {number}?",
                "answer": f"a plain square, number {number}",
                "category": "norm",
            }
            row = {
                "image": str(image.relative_to(root)),
                **(region if number % 2 else whole),
                "tags": ["square", f"thing{number % 997}"],
            }
            stream.write(("[\n" if number == 0 else ",\n") + json.dumps(row))
        stream.write("\n]\n")
    return [
        "tune", small_mllm(folder)[0], folder / "release.json", "--images", root, "--task-column", "category",
        "--device", "cpu", "--out", folder / "out",
    ]  # fmt: skip


def plans(size: float, folder: Path) -> list[str]:
    """The plan of LION at its published sizes."""
    return priorkit(*lion_words(size, folder), "--recipe", "lion-paper/soft-tags", "--check")


def lion(size: float, folder: Path) -> list[str]:
    """One step of LION at the sizes of the glyph world; all images are decoded first."""
    words = lion_words(size, folder)
    return priorkit(*words, "--recipe", "lion/soft-tags", "--steps", 1, "--batch-size", 4)


CURVES = {
    "tokens": Curve("MB of text", (10, 30, 100, 300, 1000, 2000), tokens),
    "names": Curve("names", (1e4, 1e5, 1e6, 3e6, 1e7), names),
    "parameters": Curve("M parameters", (100, 300, 1000, 3000), parameters),
    "images": Curve("images", (1e3, 1e4, 1e5, 3e5, 1e6), images),
    "samples": Curve("conversations", (1e3, 1e4, 1e5, 3e5, 1e6), samples),
    "plans": Curve("samples with an image", (1e4, 1e5, 1e6, 7.2e6), plans),
    "lion": Curve("samples with an image", (1e3, 1e4, 1e5, 3e5, 1e6), lion),
}


def measure(name: str, size: float, folder: Path) -> Point:
    """Make the input of a point and run its command.

    Raises:
        SystemExit: the command failed.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    # In a process of its own: a child's peak memory begins with that of the process that starts it.
    words = [sys.executable, __file__, str(folder), "--prepare", name, "--sizes", str(size)]
    made = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    command = json.loads(made.stdout.splitlines()[-1])
    os.sync()
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            sys.exit(f"{name} {size:g} failed:\n{log.read().decode(errors='replace')[-2000:]}")
    return Point(name, size, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def read(path: Path) -> list[Point]:
    """The points that are done, by curve and size."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return sorted((Point(**json.loads(line)) for line in lines), key=lambda point: (point.curve, point.size))


def fit(points: Sequence[Point]) -> tuple[float, float, float]:
    """Processor seconds as ``a + b size``, by least squares of relative errors: a, b, the largest relative error.

    Relative, since the smallest size would not count otherwise.
    """
    import numpy as np

    sizes, found = (np.array([getattr(point, key) for point in points]) for key in ("size", "processor"))
    matrix = np.stack([np.ones_like(sizes), sizes], 1) / found[:, None]
    (start, slope), *_ = np.linalg.lstsq(matrix, np.ones_like(found), rcond=None)
    return float(start), float(slope), float(np.abs((start + slope * sizes) / found - 1).max())


def expected(points: Sequence[Point], size: float) -> float:
    """Processor seconds of a further point by the two largest; 0 where there are fewer."""
    if len(points) < 2:
        return 0.0
    before, last = points[-2:]
    slope = (last.processor - before.processor) / (last.size - before.size)
    return last.processor + max(0.0, slope) * (size - last.size)


def draw(points: Sequence[Point], out: Path) -> None:
    """Time with the line of the fit, and peak memory, of every curve."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    from priorkit.report import figures

    curves = [name for name in CURVES if any(point.curve == name for point in points)]
    with figures.drawing(2.6 * len(curves), 2, len(curves)) as (figure, axes):
        for number, name in enumerate(curves):
            own = [point for point in points if point.curve == name]
            sizes = [point.size for point in own]
            time_axis, memory_axis = axes[2 * number : 2 * number + 2]
            time_axis.plot(sizes, [point.processor for point in own], "o", color=figures.series_color(0))
            if len(own) > 2:
                start, slope, error = fit(own)
                time_axis.plot(sizes, [start + slope * size for size in sizes], color=figures.series_color(1))
                time_axis.set_title(f"linear within {error:.0%}", fontsize=9, loc="left")
            time_axis.set_ylabel("processor seconds")
            memory_axis.plot(sizes, [point.megabytes for point in own], "o-", color=figures.series_color(0))
            memory_axis.set_ylabel("peak memory, MB")
            for axis in (time_axis, memory_axis):
                axis.margins(0.08)
                axis.set_ylim(bottom=0)
                axis.set_xlim(left=0)
                axis.xaxis.set_major_locator(MaxNLocator(4))
                axis.xaxis.set_major_formatter(EngFormatter(sep=""))
                axis.set_xlabel(CURVES[name].unit)
    (out / "growth.svg").write_bytes(figures.to_svg(figure))


def table(points: Sequence[Point]) -> list[str]:
    """The points and fits as lines of Markdown."""
    lines = ["| | size | seconds | processor s | peak MB |", "|---|---|---|---|---|"]
    for name, curve in CURVES.items():
        own = [point for point in points if point.curve == name]
        lines += [
            f"| {name} | {point.size:,.0f} {curve.unit} | {point.seconds:.1f} | {point.processor:.1f} "
            f"| {point.megabytes:,.0f} |"
            for point in own
        ]
        if len(own) > 2:
            start, slope, error = fit(own)
            lines.append(f"| {name}, fit | {start:.1f} s + {slope:.3g} s per unit | | within {error:.0%} | |")
    return lines


def main() -> None:
    """Measure what is missing, draw, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", choices=sorted(CURVES))
    parser.add_argument("--sizes", nargs="*", type=float, help="instead of the curves' own")
    parser.add_argument("--most", type=float, default=float("inf"), help="largest size")
    parser.add_argument("--limit", type=float, default=60.0, help="processor seconds of a point")
    parser.add_argument("--plot-only", action="store_true")
    parser.add_argument("--prepare", choices=sorted(CURVES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        print(json.dumps(CURVES[arguments.prepare].prepare(arguments.sizes[0], arguments.out)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "growth.jsonl"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name, curve in () if arguments.plot_only else CURVES.items():
        if arguments.only and name not in arguments.only:
            continue
        for size in arguments.sizes or curve.sizes:
            done = [point for point in read(path) if point.curve == name]
            if size > arguments.most or any(point.size == size for point in done):
                continue
            smaller = [point for point in done if point.size < size]
            if (needed := expected(smaller, size)) > arguments.limit:
                print(
                    f"{name} {size:,.0f}: left out, it would take {needed:.0f} processor seconds", flush=True
                )
                continue
            with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
                point = measure(name, size, Path(folder))
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(point)) + "\n")
            print(json.dumps(asdict(point)), flush=True)
    points = read(path)
    if points:
        draw(points, arguments.out)
        print("\n".join(table(points)))


if __name__ == "__main__":
    main()
