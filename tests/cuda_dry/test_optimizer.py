"""A step of the optimizers on CUDA tensors without values: it waits for nothing, and matrices of one shape go together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from priorkit.training.engine.optimizer import build_optimizer
from priorkit.training.engine.settings import TrainingSettings
from tests.support.chat_models import make_llm, make_tokenizer
from tests.support.cuda_dry import CUDA, check_count, dry_cuda


def test_a_step_of_muon(tmp_path: Any) -> None:
    model = make_llm(make_tokenizer(tmp_path))
    objective: Any = SimpleNamespace(module=model, learning_rate_scale=lambda _: 1.0)
    with dry_cuda() as record:
        model.to(CUDA)
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        optimizer = build_optimizer(objective, TrainingSettings(optimizer="muon", steps=1))
        record.clear()
        optimizer.step()
        assert record.waits == []
        assert record.products == {torch.bfloat16}
    matrices = [p for p in model.get_decoder().layers.parameters() if p.dim() == 2]
    shapes = {parameter.shape for parameter in matrices}
    assert len(matrices) > 3 * len(shapes)
    # Three products in each of five iterations.
    assert record.kernels["baddbmm"] + record.kernels["bmm"] == 15 * len(shapes)
    check_count("muon", sum(record.kernels.values()))
