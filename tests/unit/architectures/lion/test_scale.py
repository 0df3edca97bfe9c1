"""What LION keeps in memory per sample, and what of its parameters decays."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from priorkit.architectures.lion.conversations import select_task_types
from priorkit.architectures.lion.objective import LionObjective
from priorkit.architectures.lion.samples import LionSamples
from priorkit.core.errors import InputError
from priorkit.data.images.decoding import ImageRef
from priorkit.training.engine.optimizer import build_optimizer

SHARED = ImageRef("shared", Path("/data/shared.png"))


class Rows:
    """Conversations made on demand: of each three in a row, the last two show one image, the first another one."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> SimpleNamespace:
        name = str(index - index % 3 + min(index % 3, 1))
        images = (ImageRef(name, content=name.encode()), *([SHARED] * (index % 2)))
        return SimpleNamespace(task_type="image-level", conversation=SimpleNamespace(images=images))


def sealed_samples(count: int) -> LionSamples:
    encoded = SimpleNamespace(input_ids=(1, 2), truncated=False)
    tokenized = SimpleNamespace(encoded=encoded, shortened=False, questions=())
    samples = LionSamples(Rows(count), SimpleNamespace(tokenize=lambda _: tokenized))
    for index in range(count):
        samples.add(index)
    samples.seal()
    return samples


def test_a_sample_takes_a_few_bytes_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 7.2 million: a quarter of a gigabyte, and about one while their images are numbered."""
    monkeypatch.setattr("priorkit.architectures.lion.samples.TOKEN_CACHE", 0)
    sealed_samples(10)
    tracemalloc.start()
    samples = sealed_samples(30_000)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(samples) == 30_000
    assert kept / 30_000 < 50
    assert most / 30_000 < 200


def test_each_image_is_numbered_once_in_the_order_of_the_samples() -> None:
    samples = sealed_samples(7)
    assert [samples.images_of(index) for index in range(7)] == [
        (0,), (1, 2), (1,), (3, 2), (4,), (4, 2), (5,),
    ]  # fmt: skip
    assert [image.name for image in samples.images] == ["0", "1", "shared", "3", "4", "6"]
    assert samples.images[2] is SHARED
    assert sealed_samples(0).images[:] == []


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
