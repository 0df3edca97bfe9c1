"""A cache of fixed size gives the answers of one that grows; on a GPU its steps are replayed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from priorkit.inference import generation
from priorkit.inference.decoding import fixed_cache
from priorkit.inference.decoding.fixed_cache import FixedBatch, can_fix
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.inference.prefill import prefill
from priorkit.inference.prompt_inputs import PromptInputs
from tests.support.chat_models import make_llm, make_tokenizer
from tests.support.evaluation_models import generate_all
from tests.unit.inference.test_generation import prompts


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> list[FixedBatch]:
    """Generation uses the fixed cache as on a GPU, without recording; the batches made."""
    made: list[FixedBatch] = []

    def batch(model: ModelAdapter, filled: Any, rows: int, new_tokens: int) -> FixedBatch:
        made.append(FixedBatch(model, filled, rows, new_tokens, graphs=False))
        return made[-1]

    monkeypatch.setattr(generation, "decoding_batch", batch)
    return made


@pytest.mark.parametrize("name", ["llm", "llava"])
@pytest.mark.parametrize("stopped", [False, True])
def test_answers_are_those_of_a_growing_cache(
    name: str, stopped: bool, images: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject: ModelAdapter = request.getfixturevalue(name)
    assert can_fix(subject)
    ids, seen = prompts(subject, images)
    ids, seen = ids + [row[:-1] for row in ids], seen + seen
    free = generate_all(subject, ids, seen, 8, max_new_tokens=8, stop=set())
    stop = {free[0][3]} if stopped else set()
    expected = generate_all(subject, ids, seen, 8, max_new_tokens=8, stop=stop)
    made = request.getfixturevalue("fixed")
    for places in (1, 2, 3, 8):  # rows take the places of those that ended
        found = generate_all(subject, ids, seen, 8, max_new_tokens=8, stop=stop, at_once=places)
        assert found == expected
    assert len(made) == 4


def test_room_is_made_for_long_answers_and_longer_prompts(
    llm: ModelAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [[5, 6, 7], [8, 9], list(range(4, 24))]
    inputs = [PromptInputs(())] * 3
    expected = generation.generate_batch(llm, rows, inputs, max_new_tokens=30, stop=(), at_once=2)
    monkeypatch.setattr(fixed_cache, "ROOM", 8)
    batch = FixedBatch(llm, prefill(llm, rows[:2], inputs[:2], cached=True), 3, 30, graphs=False)
    answers: list[list[int]] = [[], [], []]
    for step in range(35):
        if step == 5:
            batch.add(prefill(llm, rows[2:], inputs[2:], cached=True))
        tokens = batch.next_tokens()
        for answer, token in zip(answers, tokens, strict=False):
            answer.append(token)
        batch.step(tokens)
    assert [answer[:30] for answer in answers] == expected


def test_deterministic_algorithms_are_as_before(llm: ModelAdapter) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        batch = FixedBatch(llm, prefill(llm, [[1, 2]], [PromptInputs(())], cached=True), 1, 4, graphs=False)
        batch.advance()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("family", "fields", "expected"),
    [
        ("llama", {}, True),
        ("gpt2", {}, True),
        ("qwen3", {"head_dim": 16}, True),
        ("mistral", {"sliding_window": 4}, False),
        ("gemma2", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 4}, False),
    ],
)
def test_families(tmp_path: Any, family: str, fields: dict[str, Any], expected: bool) -> None:
    tokenizer = make_tokenizer(tmp_path)
    model = make_llm(tokenizer, model_type=family, **fields).eval()
    assert isinstance(model, AutoModelForCausalLM._model_mapping[type(model.config)])
    assert can_fix(ModelAdapter(model, tokenizer, 128)) is expected


def test_a_model_that_counts_positions_itself_keeps_the_growing_cache(
    llm: ModelAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(llm.__dict__, "_known", frozenset({"input_ids", "attention_mask"}))
    assert not can_fix(llm)


def test_a_model_with_other_logits_keeps_the_growing_cache(
    llm: ModelAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fixed_cache._FixedLayer, "update", lambda self, keys, values, *_: (keys, values))
    assert not can_fix(llm)


ROWS, NONE = [[5, 6, 7], [8, 9]], [PromptInputs(())] * 2


def answers_of(batch: FixedBatch, steps: int) -> list[list[int]]:
    """What a batch writes in so many steps."""
    answers: list[list[int]] = [[] for _ in batch.next_tokens()]
    for _ in range(steps):
        tokens = batch.next_tokens()
        for answer, token in zip(answers, tokens, strict=True):
            answer.append(token)
        batch.step(tokens)
    return answers


def test_a_step_is_recorded_once_and_again_when_room_is_made(
    llm: ModelAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[int] = []

    class Recording:
        """Replays by computing."""

        def __init__(self, batch: FixedBatch) -> None:
            self.batch, self.size = batch, batch._size
            recorded.append(batch._steps)

        def replay(self) -> None:
            assert self.batch._size == self.size  # what it was recorded with still exists
            self.batch.advance()

    monkeypatch.setattr(FixedBatch, "_record", lambda batch: Recording(batch))
    monkeypatch.setattr(fixed_cache, "ROOM", 8)
    expected = generation.generate_batch(llm, ROWS, NONE, max_new_tokens=20, stop=())
    assert answers_of(FixedBatch(llm, prefill(llm, ROWS, NONE, cached=True), 2, 20), 20) == expected
    assert recorded == [5, 14]  # a cache of 16 positions, 3 of them the prompt's


def test_where_a_step_cannot_be_recorded_it_is_computed(llm: ModelAdapter) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine can record")
    expected = generation.generate_batch(llm, ROWS, NONE, max_new_tokens=10, stop=())
    assert answers_of(FixedBatch(llm, prefill(llm, ROWS, NONE, cached=True), 2, 10), 10) == expected
