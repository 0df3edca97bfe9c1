"""Generation on a GPU: steps are recorded as a CUDA graph and give what computing them gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from priorkit.core.process import runtime
from priorkit.inference.decoding.fixed_cache import STEPS_BEFORE_RECORDING, FixedBatch, can_fix
from priorkit.inference.generation import generate_batch
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.inference.prefill import prefill
from priorkit.inference.prompt_inputs import PromptInputs
from tests.support.chat_models import make_llm, make_tokenizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@torch.no_grad()
def test_replayed_steps_are_computed_steps(tmp_path: Path, precision: str) -> None:
    started = runtime.start(0, "cuda", precision)  # type: ignore[arg-type]
    tokenizer = make_tokenizer(tmp_path)
    subject = ModelAdapter(make_llm(tokenizer).eval().to(started.device), tokenizer, 512)
    rows, inputs = [[1, 2, 3], [2, 1], [7] * 9], [PromptInputs(())] * 3
    steps = 3 * STEPS_BEFORE_RECORDING
    with started.autocast():
        assert can_fix(subject)
        written = []
        for graphs in (False, True):
            batch = FixedBatch(subject, prefill(subject, rows, inputs, cached=True), 3, steps, graphs)
            tokens = []
            for _ in range(steps):
                tokens.append(batch.next_tokens())
                batch.step(tokens[-1])
            assert (batch._graph is not None) is graphs
            written.append(tokens)
        assert written[0] == written[1]
        chosen = generate_batch(subject, rows, inputs, max_new_tokens=steps, stop=(), at_once=2)
    if precision == "fp32":
        assert [list(answer) for answer in zip(*written[0], strict=True)] == chosen


@torch.no_grad()
def test_answers_are_those_of_the_processor(tmp_path: Path) -> None:
    started = runtime.start(0, "cuda", "fp32")
    tokenizer = make_tokenizer(tmp_path)
    subject = ModelAdapter(make_llm(tokenizer).eval(), tokenizer, 512)
    rows, inputs = [[1, 2, 3], [2, 1], [7] * 9, [4]], [PromptInputs(())] * 4
    expected = generate_batch(subject, rows, inputs, max_new_tokens=16, stop=(), at_once=2)
    subject.model.to(started.device)
    assert generate_batch(subject, rows, inputs, max_new_tokens=16, stop=(), at_once=2) == expected
