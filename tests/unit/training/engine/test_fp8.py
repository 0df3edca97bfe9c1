"""fp8: what is converted, and what is refused; torchao needs a GPU, so a module with its interface stands in."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

import pytest
import torch
from torch import nn

from priorkit.core.errors import ResourceError, UsageError
from priorkit.core.process import runtime
from priorkit.core.process.runtime import Runtime
from priorkit.training.engine.fp8 import use_fp8
from priorkit.training.engine.settings import check_fp8

CUDA = Runtime(torch.device("cuda", 0), "bf16", 0)


class Float8Linear(nn.Linear):
    """What torchao's layer is: a linear layer with the same parameters."""


def convert(module: nn.Module, *, module_filter_fn: Any, config: str) -> nn.Module:
    assert config == "tensorwise"
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.Linear) and module_filter_fn(part, name):
            part.__class__ = Float8Linear
    return module


@pytest.fixture
def torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    config = types.SimpleNamespace(from_recipe_name=lambda name: name)
    module = types.SimpleNamespace(Float8LinearConfig=config, convert_to_float8_training=convert)
    monkeypatch.setitem(sys.modules, "torchao", types.ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.float8", module)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))


def decoder() -> nn.Module:
    layers = [nn.ModuleDict({"fits": nn.Linear(32, 48), "small": nn.Linear(32, 20)}) for _ in range(2)]
    return nn.ModuleDict({"layers": nn.ModuleList(layers), "outside": nn.Linear(32, 32)})


@pytest.mark.usefixtures("torchao")
def test_layers_of_the_blocks_whose_sizes_fit_are_converted() -> None:
    made = decoder()
    names = [name for name, _ in made.named_parameters()]
    assert use_fp8(made, CUDA) == 2
    converted = [name for name, part in made.named_modules() if isinstance(part, Float8Linear)]
    assert converted == ["layers.0.fits", "layers.1.fits"]
    assert [name for name, _ in made.named_parameters()] == names


@pytest.mark.usefixtures("torchao")
def test_gpus_and_models_without_fp8_products_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResourceError, match="multiples of 16"):
        use_fp8(nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(3, 5)])}), CUDA)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    with pytest.raises(ResourceError, match=r"8\.0"):
        use_fp8(decoder(), CUDA)


def test_options_that_do_not_go_together_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    check_fp8(False, False, "cpu", "fp32")
    with pytest.raises(UsageError) as caught:
        check_fp8(True, False, "cpu", "fp32")
    assert len(caught.value.problems) == 3
    monkeypatch.setattr(runtime, "may_use_gpu", lambda _: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ResourceError, match="torchao"):
        check_fp8(True, True, "cuda", "bf16")
