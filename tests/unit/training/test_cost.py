"""Costs by hand: FLOPs of 6 N D, memory of 16 bytes a parameter, activations by layer."""

from __future__ import annotations

import pytest

from priorkit.core.errors import UsageError
from priorkit.training.cost import Decoder, finetuning_cost, pretraining_cost
from priorkit.training.finetuning.align_settings import AlignSettings
from priorkit.training.pretraining.settings import PretrainSettings


def pretrain(**given: object) -> PretrainSettings:
    return PretrainSettings(corpus="c", out="o", preset="llama-3b", **given)  # pyright: ignore[reportArgumentType]


DECODER = Decoder.preset("llama-3b", 32_000)


def test_pretraining_is_six_flops_a_parameter_and_token_and_attention() -> None:
    settings = pretrain(
        tokens="30B", batch_size=1024, micro_batch_size=4, shard=True, checkpoint_activations="full"
    )
    found = pretraining_cost(settings, DECODER, 2048, None, 8)
    assert found.steps == 14_306
    assert found.tokens == 14_306 * 1024 * 2048
    body = DECODER.parameters - 32_000 * 3072
    attention = 12 * 28 * 3072 * 2048
    assert found.flops == pytest.approx((6 * body + attention) * found.tokens)
    state = 16 * DECODER.parameters / 8 + 4 * 2 * DECODER.parameters / 28
    everything = 8 * 3072 + 2 * 1024 + 3 * 8192
    activations = 2 * 4 * 2048 * (28 * 3072 + everything)
    assert found.memory_bytes == pytest.approx(state + activations)


def test_annealed_exports_count_their_further_steps() -> None:
    plain = pretraining_cost(pretrain(steps=1000, batch_size=1024), DECODER, 2048, None, 8)
    exports = {"export_at": ("1B", "2B"), "export_decay": (0.1, 0.0)}
    annealed = pretraining_cost(pretrain(steps=1000, batch_size=1024, **exports), DECODER, 2048, None, 8)
    assert annealed.steps == plain.steps + round(0.1 * -(-1_000_000_000 // (1024 * 2048)))


def test_sharding_and_checkpointing_save_memory() -> None:
    def memory(**given: object) -> float:
        settings = pretrain(steps=1, batch_size=64, micro_batch_size=4, **given)
        return pretraining_cost(settings, DECODER, 2048, None, 8).memory_bytes

    assert memory(shard=True) < memory()
    by_kind = [memory(checkpoint_activations=kind) for kind in ("full", "selective", "none")]
    assert by_kind == sorted(by_kind)
    assert pretraining_cost(pretrain(random_init=True), DECODER, 2048, None, 8).flops == 0


def test_a_frozen_language_model_costs_two_thirds() -> None:
    settings = AlignSettings(llm="l", encoder="e", captions={"c": "c"}, out="o", subset="1M", batch_size=512)  # pyright: ignore[reportArgumentType, reportCallIssue]
    found = finetuning_cost(settings, DECODER, 576, 200, 8)
    assert found.steps == 1954
    assert found.flops == pytest.approx(found.tokens * DECODER.flops_per_token(776) * 2 / 3)
    assert found.memory_bytes > 4 * DECODER.parameters


def test_what_is_not_known_is_named() -> None:
    with pytest.raises(UsageError, match="epochs of a corpus that is not known"):
        pretraining_cost(pretrain(), DECODER, 2048, None, 8)
    settings = AlignSettings(llm="l", encoder="e", captions={"c": "c"}, out="o")  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(UsageError, match="the number of samples is not known"):
        finetuning_cost(settings, DECODER, 576, 200, 8)
