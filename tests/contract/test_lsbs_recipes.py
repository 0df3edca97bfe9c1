"""The shipped LSBS recipes hold the paper's figures, and agree with each other where the paper does."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import pytest

from priorkit.cli.options import read_settings
from priorkit.core.options import recipe
from priorkit.core.options.settings import StepSettings
from priorkit.data.corpus.settings import MixSettings
from priorkit.steps.pretrain import PretrainSettings
from priorkit.steps.tune import TuneSettings

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
