"""The shipped LSBS recipes hold the paper's figures, and agree with each other where the paper does."""

from __future__ import annotations

import csv
import itertools
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, LlamaForCausalLM

from priorkit.cli.options import read_settings
from priorkit.core.inputs import Input
from priorkit.core.options import recipe
from priorkit.core.options.settings import StepSettings
from priorkit.core.work import Inputs
from priorkit.data.corpus.settings import MixSettings
from priorkit.data.text.concepts import LABELS
from priorkit.models.language import causal_lm
from priorkit.models.language.tokenizer import load_tokenizer
from priorkit.steps.pretrain import PretrainSettings
from priorkit.steps.tune import TuneSettings
from priorkit.training.finetuning.align_check import check_alignment
from priorkit.training.finetuning.align_settings import AlignSettings
from priorkit.training.pretraining.compatibility import check_run
from tests.support.recipe_stand_ins import save_header

GOLDEN = Path(__file__).parents[1] / "golden" / "lsbs"
NAMES = [name for name in recipe.shipped() if name.startswith("lsbs/lsbs-")]
TUNING = [name for name in recipe.shipped() if name.startswith("lsbs/sft-") and name != "lsbs/sft-label"]
MODELS = [name for name in NAMES if name != "lsbs/lsbs-label"]


def settings(name: str, model: type[StepSettings], **given: object) -> StepSettings:
    return read_settings(model, {"recipe": name, **given})


def mix_of(name: str) -> MixSettings:
    found = settings(name, MixSettings, sources=["a=b"], tokenizer="t")
    assert isinstance(found, MixSettings)
    return found


def pretraining(name: str) -> PretrainSettings:
    found = settings(name, PretrainSettings, corpus="c")
    assert isinstance(found, PretrainSettings)
    return found


def test_all_of_the_papers_runs_are_there() -> None:
    assert sum(name.startswith("lsbs/lsbs-3b-mix") for name in NAMES) == 11
    assert {f"lsbs/lsbs-3b-{source}" for source in ("code", "arts", "qa-forum", "computer-science")} <= set(
        NAMES
    )
    assert {"lsbs/lsbs-7b-mix0-1t", "lsbs/lsbs-7b-mix6-1t", "lsbs/lsbs-3b-vision-favourable"} <= set(NAMES)
    single = [n for n in MODELS if len(mix_of(n).weight) == 1 and "scaling" not in n]
    assert len(single) == 16


def test_families_are_the_papers_tables() -> None:
    """Eight categories at five proportions, thirty blends of table 1, five sizes, three encoders."""
    sweep = {
        (label, percent)
        for label in LABELS
        for percent in (0, 25, 50, 75, 100)
        if mix_of(f"lsbs/lsbs-3b-{label.replace('_', '-')}-{percent}").target == {label: percent / 100}
    }
    assert len(sweep) == 40
    with (GOLDEN / "grid.csv").open() as stream:
        grid = {(float(row["reasoning"]), float(row["visual"])) for row in csv.DictReader(stream)}
    blends = [mix_of(name).target for name in NAMES if name.startswith("lsbs/lsbs-3b-blend-")]
    assert {(target["reasoning"], target["visual"]) for target in blends} == grid
    assert len(blends) == len(grid) == 30
    assert sum(name.startswith("lsbs/encoder-") for name in recipe.shipped()) == 3
    for size in ("340m", "1b", "3b", "7b", "13b"):
        zero = settings(f"lsbs/zero-{size}", PretrainSettings, corpus="c")
        assert isinstance(zero, PretrainSettings)
        assert zero.random_init
        assert (zero.preset, pretraining(f"lsbs/lsbs-{size}-scaling").preset) == (f"llama-{size}",) * 2


STAGES = [
    (name, step)
    for name in recipe.shipped()
    if name.startswith("lsbs/")
    for step in ("align", "tune", "blind-tune")
    if step in recipe.read_toml(recipe.shipped()[name])
]


def test_every_multimodal_stage_fits_and_reads_576_tokens() -> None:
    """Micro-batches, a maximum length and, from 3B on, sharding and activation checkpointing in every stage."""
    assert len(STAGES) > 150
    for name, step in STAGES:
        table = recipe.read_toml(recipe.find(name))[step]
        optimisation = table["optimisation"]
        assert 1 <= optimisation["micro_batch_size"] <= 8, (name, step)
        assert optimisation["batch_size"] == 512
        assert table["conversations"]["max_length"] == 2048
        small = any(size in name for size in ("340m", "1b"))
        assert table.get("model", {}).get("shard", False) != small, (name, step)
        assert (table.get("model", {}).get("checkpoint_activations") == "full") != small
        if step == "align":
            assert (table["image_tokens"], table["resample"], table["resize"]) == (576, "features", "pad")


def directory(setting: str, path: Path) -> Input:
    return Input(setting, str(path), path, "directory")


CHECKED = [
    "lsbs/lsbs-3b-mix6", "lsbs/lsbs-7b-mix6-1t", "lsbs/lsbs-13b-scaling", "lsbs/lsbs-3b-blend-60-15",
    "lsbs/lsbs-3b-code-reasoning-25", "lsbs/zero-13b",
]  # fmt: skip


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory, artifacts) -> Path:
    """A corpus of the paper's vocabulary and context, as its header says; nothing reads its tokens in a plan."""
    folder = tmp_path_factory.mktemp("stand-ins") / "corpus"
    shutil.copytree(artifacts.corpus, folder)
    header = json.loads((folder / "corpus.json").read_text())
    header |= {"vocab_size": 32000, "context_length": 2048, "rows": 50_000_000}
    (folder / "corpus.json").write_text(json.dumps(header))
    return folder


@pytest.mark.parametrize("name", CHECKED)
def test_plans_of_full_size_pass_on_stand_ins(
    name: str, stand_ins: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Shapes, parameters and lengths are those of the real model, which no machine here could hold."""
    for variable, value in (("WORLD_SIZE", "8"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(variable, value)
    own = settings(name, PretrainSettings, corpus=str(stand_ins), out=str(tmp_path / "llm"))
    assert isinstance(own, PretrainSettings)
    inputs = Inputs({"corpus": directory("corpus", stand_ins)})
    run = check_run(own, inputs)
    expected = {"3b": 3.0e9, "7b": 6.7e9, "13b": 13.0e9}[next(s for s in ("13b", "7b", "3b") if s in name)]
    assert run.parameters == pytest.approx(expected, rel=0.15)
    assert run.steps == (0 if own.random_init else own.total_steps(1, 2048))


@pytest.mark.parametrize("name", ["lsbs/lsbs-3b-mix6", "lsbs/lsbs-7b-mix6-1t", "lsbs/lsbs-13b-scaling"])
def test_plans_of_alignment_pass_on_meta_models(
    name: str, artifacts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The language model of full size and MetaCLIP-B/16's shape, from headers alone: 576 positions an image."""
    monkeypatch.setenv("WORLD_SIZE", "8")
    tokenizer = load_tokenizer(artifacts.tokenizer)
    preset = pretraining(name).preset
    assert preset is not None
    fields = causal_lm.preset_fields(preset)
    config = causal_lm.build_config(fields, tokenizer)
    config.vocab_size = 32000
    llm, encoder = tmp_path / "llm", tmp_path / "encoder"
    config.save_pretrained(llm)
    tokenizer.save_pretrained(llm)
    vision = CLIPConfig(vision_config={
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": 224, "patch_size": 16,
    })  # fmt: skip
    vision.save_pretrained(encoder)
    CLIPImageProcessor().save_pretrained(encoder)
    with torch.device("meta"):
        save_header(LlamaForCausalLM(config).state_dict(), llm / "model.safetensors")
        save_header(CLIPModel(vision).state_dict(), encoder / "model.safetensors")
    words = {"llm": str(llm), "encoder": str(encoder), "captions": ["c=c"]}
    own = settings(name, AlignSettings, **words)
    assert isinstance(own, AlignSettings)
    sizes = check_alignment(
        own, Inputs({"llm": directory("llm", llm), "encoder": directory("encoder", encoder)})
    )
    assert sizes.patches == 576
    assert sizes.vision_width == 768
    language = causal_lm.parameter_count(fields, 32000)
    assert sizes.frozen == pytest.approx(language + 86e6, rel=0.01)
    hidden = fields["hidden_size"]
    assert sizes.projector == (768 + 1) * hidden + (hidden + 1) * hidden


def test_mixes_are_table_2() -> None:
    with (GOLDEN / "mixes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 11
    for row in rows:
        weight = mix_of(f"lsbs/lsbs-3b-{row['mix']}").weight
        assert weight == {name: float(row[name]) for name in weight}
        assert list(weight) == list(row)[1:7]
        assert sum(weight.values()) == pytest.approx(100, abs=0.21)
    assert mix_of("lsbs/lsbs-7b-mix6-1t").weight == mix_of("lsbs/lsbs-3b-mix6").weight
    assert mix_of("lsbs/lsbs-3b-vision-favourable").target == {"reasoning": 0.60, "visual": 0.15}


@pytest.mark.parametrize("name", MODELS)
def test_training_is_the_papers(name: str) -> None:
    own, mixed = pretraining(name), mix_of(name)
    assert (own.learning_rate, own.schedule, own.warmup_steps, own.optimizer) == (
        3e-4,
        "cosine",
        1024,
        "adamw",
    )
    assert own.seed == mixed.seed == 42
    assert mixed.context_length == 2048
    long = name.endswith("-1t")
    assert own.batch_size == (2048 if long else 1024)
    steps = own.total_steps(1, mixed.context_length)
    assert mixed.tokens is not None
    # The corpus is as long as the run, to within one step.
    assert steps == math.ceil(mixed.tokens / (2048 * own.batch_size))
    if long:
        assert steps == 250_000


@pytest.mark.parametrize("name", MODELS)
def test_each_key_says_where_its_value_comes_from(name: str) -> None:
    """A comment is above every key, or above the group of keys that it opens."""
    lines = recipe.find(name).read_text(encoding="utf-8").splitlines()
    assert any("not published" in line.lower() for line in lines)
    for before, line in itertools.pairwise(lines):
        if line.startswith("[") or not line.strip():
            continue
        assert not (before.startswith("[") and not line.startswith("#")), f"{name}: {line}"


def test_warm_up_of_the_multimodal_stages_is_its_share_of_the_steps() -> None:
    for name, pairs, instructions in (
        ("lsbs/lsbs-3b-mix6", 1_000_000, 3_500_000),
        ("lsbs/lsbs-7b-mix6-1t", 2_500_000, 7_000_000),
        ("lsbs/zero-13b", 1_000_000, 3_500_000),
        ("lsbs/encoder-dinov2-g", 1_000_000, 3_500_000),
    ):
        document = recipe.read_toml(recipe.find(name))
        for step, samples, share in (("align", pairs, 0.06), ("tune", instructions, 0.03)):
            optimisation = document[step]["optimisation"]
            assert optimisation["batch_size"] == 512
            assert optimisation["warmup_steps"] == round(share * math.ceil(samples / 512))


@pytest.mark.parametrize("name", TUNING)
def test_the_ablation_of_tuning_data_removes_one_kind(name: str) -> None:
    found = settings(name, TuneSettings, mllm="m", instructions=["perception=p", "reasoning=r", "other=o"])
    assert isinstance(found, TuneSettings)
    published = {"perception": 1.8, "reasoning": 0.6, "other": 2.6}
    left_out = {kind: round(weight - found.weight.get(kind, 0), 3) for kind, weight in published.items()}
    expected = {
        "sft-all": {}, "sft-control": {}, "sft-less-perception": {"perception": 0.9},
        "sft-no-perception": {"perception": 1.8}, "sft-less-reasoning": {"reasoning": 0.3},
        "sft-no-reasoning": {"reasoning": 0.6}, "sft-matched-perception": {"perception": 0.3},
    }[name.removeprefix("lsbs/")]  # fmt: skip
    assert {kind: share for kind, share in left_out.items() if share} == expected
    size = 4.1 if name.endswith("control") else sum(found.weight.values())
    assert found.subset == round(size * 1e6)
    steps = found.subset // found.batch_size
    assert found.warmup_steps == pytest.approx(0.03 * steps, abs=1)


def test_all_arms_of_the_ablation_are_there() -> None:
    assert len(TUNING) == 7


@pytest.mark.parametrize("name", ["lsbs/lsbs-7b-mix6-1t", "lsbs/zero-340m", "mllm-lsbs"])
def test_the_cost_of_a_recipe(cli, name: str) -> None:
    """A line a stage; the 1T run takes about 6 N D, 4e22 FLOPs and more for attention."""
    model = () if name.startswith("lsbs/") else ("--model", "llama-1b")
    found = cli("recipe", "show", name, "--cost", "--gpus", 64, *model)
    assert found.code == 0, found.err
    lines = {line.split()[0]: line.split() for line in found.out.splitlines()[2:]}
    assert {"align", "tune"} <= set(lines)
    if "1t" in name:
        assert lines["pretrain"][1] == "250,000"
        assert 4.0e22 < float(lines["pretrain"][3]) < 5.0e22
        assert set(lines) == {"pretrain", "blind-tune", "align", "tune"}
    without = cli("recipe", "show", "lsbs/sft-all", "--cost")
    assert without.code == 2
    assert "name its preset with --model" in without.err
