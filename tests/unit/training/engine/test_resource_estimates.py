"""Operations of instruction tuning, counted by torch's own counter of those that were done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from priorkit.core.process.runtime import Runtime
from priorkit.data.images.pixels import Pixels
from priorkit.training.engine.resource_estimates import (
    TuningCounts,
    flops_per_token,
    tuning_flops,
    tuning_throughput,
)
from priorkit.training.engine.training_run import TrainingSummary
from priorkit.training.finetuning.finetune import count_parameters
from priorkit.training.finetuning.objective import InstructionObjective
from priorkit.training.finetuning.vision_features import CachedFeatures, PerStepFeatures
from tests.support.chat_models import gathered, make_llava, make_tokenizer, talk

TALKS = [talk(1, 1, 40), talk(2, 0, 60), talk(3, 2, 25)]
RUNTIME = Runtime(torch.device("cpu"), "fp32", 0)
PARTS = ("projector", "llm", "encoder")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def objective_of(multimodal: Any, folder: Path, packing: bool, kept: bool = False) -> InstructionObjective:
    samples = gathered(TALKS, folder)
    pixels = Pixels(samples.images, multimodal.prepare)
    trained = any(value.requires_grad for value in multimodal.model.model.vision_tower.parameters())
    views = (
        CachedFeatures(multimodal, pixels, RUNTIME, 0)
        if kept
        else PerStepFeatures(multimodal, pixels, trained)
    )
    return InstructionObjective(multimodal, samples, multimodal.chat_tokenizer(), views, packing=packing)


def stepped(objective: InstructionObjective, indices: range) -> Any:
    batch = objective.collate([objective.sample(index, index) for index in indices])
    loss = objective.loss(batch).total
    loss.backward()
    return batch


@pytest.mark.parametrize(
    "train", [PARTS, ("projector", "llm"), ("projector",)], ids=["all", "usual", "projector"]
)
def test_the_formula_counts_what_is_done(tokenizer: Any, tmp_path: Path, train: tuple[str, ...]) -> None:
    """A single sample in its row, without padding, in attention that computes all of its scores."""
    multimodal = make_llava(tokenizer)
    multimodal.model.set_attn_implementation("eager")
    for name, value in multimodal.model.named_parameters():
        value.requires_grad_(multimodal.parameter_part(name) in train)
    objective = objective_of(multimodal, tmp_path, packing=False)
    with FlopCounterMode(display=False) as counter:
        stepped(objective, range(2, 3))
    parts = count_parameters(multimodal.model, multimodal.parameter_part, dict.fromkeys(train, 1.0), PARTS)
    formula = tuning_flops(multimodal.model.config, parts, objective.counted)
    # The formula counts biases and norms as matrices and leaves out the class token.
    assert formula == pytest.approx(counter.get_total_flops(), rel=0.06)


def test_positions_are_counted_the_same_packed_and_padded(tokenizer: Any, tmp_path: Path) -> None:
    multimodal = make_llava(tokenizer)
    counted: list[TuningCounts] = []
    for packing in (True, False):
        objective = objective_of(multimodal, tmp_path, packing)
        batch = stepped(objective, range(len(TALKS)))
        counted.append(objective.counted)
        lengths = [len(objective.sample(index, index).encoded.input_ids) for index in range(len(TALKS))]
    tokens = multimodal.image_tokens
    assert counted[0] == counted[1]
    assert counted[0] == TuningCounts(
        sum(lengths), sum(length**2 for length in lengths), objective.weight(batch), 3 * tokens, 3 * tokens,
        3 * tokens**2,
    )  # fmt: skip
    multimodal.model.model.vision_tower.requires_grad_(False)
    kept = objective_of(multimodal, tmp_path, packing=True, kept=True)
    stepped(kept, range(len(TALKS)))
    assert (kept.counted.projected_patches, kept.counted.encoded_patches) == (3 * tokens, 0)


def test_text_only_takes_what_pretraining_takes_except_the_head(tokenizer: Any) -> None:
    multimodal = make_llava(tokenizer)
    config = multimodal.model.config
    parts = count_parameters(multimodal.model, multimodal.parameter_part, dict.fromkeys(PARTS, 1.0), ("llm",))
    length = 50
    found = tuning_flops(config, {"llm": parts["llm"]}, TuningCounts(length, length**2, length))
    assert found == pytest.approx(length * flops_per_token(config, parts["llm"].total, length))
    summary = TrainingSummary(1, 50, 0.0, 2.0, {"tokens_per_second": 25.0})
    speed = tuning_throughput(
        config, {"llm": parts["llm"]}, TuningCounts(length, length**2, length), summary, RUNTIME
    )
    assert speed == {"model_flops_per_second": pytest.approx(found / 2)}
    assert tuning_throughput(config, {"llm": parts["llm"]}, TuningCounts(), summary, RUNTIME) == {}
