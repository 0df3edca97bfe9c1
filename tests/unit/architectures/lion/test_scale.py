"""What LION keeps in memory per sample, and what of its parameters decays."""

from __future__ import annotations

from array import array
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from priorkit.architectures.lion.conversations import select_task_types
from priorkit.architectures.lion.objective import LionObjective
from priorkit.architectures.lion.samples import DistinctImages, LionSamples
from priorkit.core.errors import InputError
from priorkit.training.engine.optimizer import build_optimizer


def test_a_sample_takes_a_few_bytes_of_memory() -> None:
    """7.2 million samples of one image each stay far below 2 GiB: 33 bytes each, next to the store's 8."""
    samples = LionSamples(SimpleNamespace(), SimpleNamespace(), DistinctImages(SimpleNamespace()))
    per_sample = sum(
        values.itemsize
        for values in (samples.indices, samples.tasks, samples.image_numbers, samples.first_image)
    )
    assert all(
        isinstance(values, array) for values in (samples.indices, samples.tasks, samples.image_numbers)
    )
    assert per_sample * 7_200_000 < 200 << 20


def test_selected_samples_are_counted_by_task_type() -> None:
    kinds = ["region-level", "image-level", "image-level"]
    conversations = [SimpleNamespace(task_type=kind) for kind in kinds]
    selected, counts = select_task_types(conversations, ("image-level",))
    assert (list(selected), counts) == ([1, 2], {"image-level": 2})
    with pytest.raises(InputError, match="no region-level sample among 2"):
        select_task_types(conversations[1:], ("region-level",))


@pytest.mark.parametrize("decays", [False, True])
def test_weight_decay_acts_on_the_router_where_asked_for(decays: bool) -> None:
    layer = nn.Module()
    layer.router = nn.Module()
    layer.router.register_parameter("region", nn.Parameter(torch.ones(4)))
    layer.adapters = nn.ModuleDict({"region": nn.Linear(4, 2)})
    inner = nn.Module()
    inner.lion = nn.Module()
    inner.lion.layers = nn.ModuleList([layer])
    objective = LionObjective.__new__(LionObjective)
    objective.module, objective._router_decays = inner, decays
    objective.learning_rate_scale = lambda name: 1.0
    settings = SimpleNamespace(
        optimizer="adamw", weight_decay=0.05, adam_beta1=0.9, adam_beta2=0.999, learning_rate=1e-3
    )
    optimizer = build_optimizer(objective, settings)
    decayed = {
        id(parameter): group["weight_decay"] for part in optimizer._parts for group in part.param_groups
        for parameter in group["params"]
    }  # fmt: skip
    assert decayed[id(layer.router.region)] == (0.05 if decays else 0.0)
    assert decayed[id(layer.adapters["region"].weight)] == 0.05
    assert decayed[id(layer.adapters["region"].bias)] == 0.0
