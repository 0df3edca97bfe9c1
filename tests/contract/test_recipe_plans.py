"""Every step of every shipped recipe passes ``--check`` on inputs with the shapes of the real ones.

The recipes are those that priorkit ships, however many; a new one is planned here without being named.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoConfig

from priorkit import step_table
from priorkit.architectures.lion.modeling.configuration import check_layers
from priorkit.architectures.lion.settings import lion_values
from priorkit.cli.options import read_settings
from priorkit.core import lifecycle
from priorkit.core.options import recipe
from priorkit.core.options.recipe import step_values
from priorkit.data.text.concepts import LABELS
from priorkit.steps.tune import TuneSettings
from tests.support.recipe_stand_ins import ENCODERS, QWEN3_32B, VOCABULARY, StandIns, save_header
from tests.support.small_artifacts import SmallArtifacts

LORA = Path(__file__).parents[1] / "golden" / "lora" / "adapter_a"
BASE = Path(__file__).parents[1] / "golden" / "tiny-llama"

RECIPES = {
    name: (file.read_text(encoding="utf-8"), recipe.read_toml(file))
    for name, file in recipe.shipped().items()
}
PLANS = [
    (name, step) for name, (_, tables) in RECIPES.items() for step in tables if step in step_table.STEPS
]  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """What the plans of all recipes read, and the plans that have passed."""

    small: SmallArtifacts
    models: StandIns
    root: Path
    passed: set[str] = field(default_factory=set[str])

    def corpus(self, context_length: int) -> Path:
        """A corpus of the paper's vocabulary, as its header says; nothing reads its tokens in a plan."""
        folder = self.root / f"corpus-{context_length}"
        if not folder.exists():
            shutil.copytree(self.small.corpus, folder)
            header = json.loads((folder / "corpus.json").read_text())
            rows = 1_100_000_000_000 // context_length
            header |= {"vocab_size": VOCABULARY, "context_length": context_length, "rows": rows}
            (folder / "corpus.json").write_text(json.dumps(header))
            (folder / "priorkit.json").unlink()
        return folder

    def labelled(self) -> Path:
        """Text as ``label-corpus`` writes it."""
        file = self.root / "labelled.parquet"
        if not file.exists():
            texts, labels = ["a red heron", "two and two"], [["visual_concept", "visual"], list(LABELS)]
            pq.write_table(pa.table({"text": texts, "labels": labels}), file)
        return file

    def conversations(self, source: Path) -> Path:
        """A table of a world as a user's own, of which no manifest says how boxes are written."""
        file = self.root / f"{source.parent.name}.parquet"
        if not file.exists():
            shutil.copy(source, file)
        return file

    def lion_start(self, recipe_name: str, base: Path) -> Path:
        """What merging stages 1 and 2 of a recipe gives, with one tensor."""
        folder = self.root / f"start-{recipe_name.replace('/', '-')}"
        folder.mkdir(exist_ok=True)
        given = {"recipe": recipe_name, "mllm": "m", "instructions": ["a=b"], "stage": "all"}
        settings = read_settings(TuneSettings, given)
        vision = AutoConfig.from_pretrained(base).vision_config
        layers = check_layers(settings.aggregator_layers, vision.num_hidden_layers)
        config = {
            "peft_type": "LION", "base_model_name_or_path": str(base), "stage": "merged", "base": {},
            "lion": lion_values(settings, vision.hidden_size, layers),
        }  # fmt: skip
        (folder / "adapter_config.json").write_text(json.dumps(config))
        save_header({"router": torch.empty(1, device="meta")}, folder / "adapter_model.safetensors")
        return folder

    def names(self) -> Path:
        """A vocabulary of tags."""
        file = self.root / "names.txt"
        file.write_text("heron\nteal\nrail\n")
        return file


@pytest.fixture(scope="module")
def bench(artifacts: SmallArtifacts, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = tmp_path_factory.mktemp("stand-ins")
    return Bench(artifacts, StandIns(root, artifacts.tokenizer, artifacts.encoder), root)


def is_small(text: str, tables: dict[str, Any]) -> bool:
    """Whether a recipe is for the glyph world: it says so, or its models are of the pocket presets."""
    return "glyph" in text or tables.get("pretrain", {}).get("preset") == "pocket"


def llm_of(name: str, text: str, tables: dict[str, Any]) -> str:
    """The preset of a recipe's language model: its own, or the one its name or text has, or 7B."""
    if preset := tables.get("pretrain", {}).get("preset"):
        return preset
    if is_small(text, tables):
        return "pocket"
    size = re.search(r"\b(340m|1b|3b|7b|13b)\b", name)
    return f"llama-{size[1]}" if size else "llama-3b" if name.startswith("lsbs/") else "llama-7b"


def encoder_of(name: str, text: str, tables: dict[str, Any]) -> str:
    """The encoder that a recipe names, or the one its models have in the papers."""
    named = next((encoder for encoder in ENCODERS if encoder in text), None)
    if is_small(text, tables):
        return "pocket"
    if named is None and "lsbs" in name:
        return "facebook/metaclip-b16-fullcc2.5b"
    if named is None and name.startswith("lion-paper"):
        return "eva-vit-g"
    return named or "openai/clip-vit-large-patch14-336"


Words = list[object]
WORDS: dict[str, Callable[[Bench, str, str, dict[str, Any]], Words]] = {}


def words_of(step: str) -> Callable[[Callable[..., Words]], Callable[..., Words]]:
    def register(make: Callable[..., Words]) -> Callable[..., Words]:
        WORDS[step] = make
        return make

    return register


def text_sources(bench: Bench, text: str, table: dict[str, Any]) -> Words:
    """Sources under the names that the table's weights have, or that the recipe's head gives."""
    names = list(table.get("weight", {})) or re.findall(r"([\w-]+)=LABELLED", text) or ["text"]
    file = bench.labelled() if "target" in table else bench.small.facts
    return [f"{name}={file}" for name in dict.fromkeys(names)]


@words_of("glyph-world")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    return []


@words_of("tokenizer")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    return text_sources(bench, text, tables["mix"])


@words_of("mix")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    return [*text_sources(bench, text, tables["mix"]), "--tokenizer", bench.small.tokenizer]


@words_of("pretrain")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    # Where a script also pretrains from a model, the start is on its command lines.
    start = [] if {"preset", "config"} & set(tables["pretrain"]) else ["--preset", "pocket"]
    return [bench.corpus(tables.get("mix", {}).get("context_length", 2048)), *start]


@words_of("pretrain-encoder")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    return [bench.small.pairs]


@words_of("distill-encoder")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    encoder = bench.models.encoder(encoder_of(name, text, tables))
    images, pairs = bench.small.images, bench.small.pairs
    return [encoder, images, "--held-out", images, "--replay", pairs, "--off-domain", pairs]


@words_of("align")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    llm = bench.models.llm(llm_of(name, text, tables))
    return [
        llm,
        bench.models.encoder(encoder_of(name, text, tables)),
        bench.conversations(bench.small.captions),
    ]


@words_of("blind-tune")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    llm = bench.models.llm(llm_of(name, text, tables), boxes=tables["blind-tune"])
    return [llm, bench.conversations(bench.small.instructions)]


@words_of("tune")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    llm, encoder = llm_of(name, text, tables), encoder_of(name, text, tables)
    align = (
        tables.get("align") or RECIPES["pocket"][1]["align"]
        if is_small(text, tables)
        else tables.get("align", {})
    )
    model = bench.models.llava(llm, encoder, align)
    table = tables["tune"]
    weight = table.get("weight") or table.get("conversations", {}).get("weight", {})
    names = list(weight) or ["instructions"]
    return [model, *(f"{name}={bench.conversations(bench.small.instructions)}" for name in names)]


@words_of("tag-images")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    return [bench.small.instructions, "--vocabulary", bench.names()]


@words_of("label-corpus")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    if tables["label-corpus"].get("labels") == "abilities":
        model = bench.models.llava("llama-7b", "openai/clip-vit-large-patch14-336", {})
        return [f"cambrian={bench.conversations(bench.small.instructions)}", "--labeller", model]
    return [f"code={bench.small.facts}", "--labeller", bench.models.llm("Qwen3-32B", QWEN3_32B)]


@words_of("merge-adapters")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    return [LORA, "--base", BASE]


@words_of("diagnose")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    return [bench.small.mllm, bench.small.images]


@words_of("rank-e")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    return [bench.small.encoder, bench.small.images]


@words_of("evaluate")
def _(bench: Bench, name: str, text: str, tables: dict[str, Any]) -> Words:
    return [bench.small.mllm, bench.small.world / "benchmarks" / "naming.parquet"]


def stages_of(name: str, step: str) -> list[Words]:
    """What a recipe leaves to the command line: LION's stages."""
    table = RECIPES[name][1][step]
    if table.get("architecture") == "lion" and "stage" not in table.get("lion", {}):
        return [["--stage", stage] for stage in ("1", "2", "all", "3")]
    return [[]]


def test_only_claims_are_no_step() -> None:
    others = {table for _, tables in RECIPES.values() for table in tables if table not in step_table.STEPS}
    assert others == {"claims"}
    assert {step for _, step in PLANS} == set(WORDS)
    assert len(PLANS) > 500


@pytest.mark.parametrize(("name", "step"), PLANS, ids=lambda value: value)
def test_a_recipe_passes_the_check(
    name: str, step: str, bench: Bench, cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As many processes as the recipe is for; the machine's memory and disk, which hold no 13B model, do not count."""
    monkeypatch.setattr(lifecycle, "check_capacity", lambda out, disk, memory: None)
    text, tables = RECIPES[name]
    shared = tables[step].get("model", {}).get("shard", False)
    monkeypatch.setenv("WORLD_SIZE", "8" if shared else "1")
    words = WORDS[step](bench, name, text, tables)
    for more in stages_of(name, step):
        if more == ["--stage", "3"]:
            words = [bench.lion_start(name, Path(str(words[0]))), *words[1:]]
        # Most recipes of a family have the same tables of later steps; they are planned once.
        plan = repr((step, words, more, tables[step]))
        if plan in bench.passed:
            step_values(recipe.find(name), step_table.load(step).settings, [*step_table.STEPS, "claims"])
            continue
        found = cli(step, *words, *more, "--recipe", name, "--check", "--out", tmp_path / "out")
        assert found.code == 0, found.err
        assert not (tmp_path / "out").exists()
        bench.passed.add(plan)
