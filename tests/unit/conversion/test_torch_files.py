"""PyTorch's files: state dicts as scripts save them; damaged files and foreign pickles are refused, never executed."""

from __future__ import annotations

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from priorkit.conversion.tensors import stored, write_weights
from priorkit.conversion.torch_files import load_plain, read_state_dict
from priorkit.core.errors import InputError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.bfloat16)}


def saved(path: Path, value: object, legacy: bool = False) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("legacy", [False, True], ids=["archive", "before 1.6"])
@pytest.mark.parametrize(
    "value",
    [
        WEIGHTS,
        OrderedDict(WEIGHTS),
        {"state_dict": WEIGHTS, "epoch": 3, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}},
        {"model": {f"module.{name}": tensor for name, tensor in WEIGHTS.items()}, "step": torch.tensor(7)},
        {"module": {f"_orig_mod.module.{name}": tensor for name, tensor in WEIGHTS.items()}},
    ],
    ids=["bare", "ordered", "lightning", "distributed", "compiled and distributed"],
)
def test_state_dicts_are_found_as_scripts_save_them(tmp_path, value, legacy):
    found = read_state_dict(saved(tmp_path / "w.pt", value, legacy))
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items())


class Runs:
    """An object whose unpickling makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("how", ["archive", "legacy", "plain pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, how):
    path, mark = tmp_path / "evil.bin", tmp_path / "was-run"
    value = {"a.weight": torch.ones(2), "config": Runs(mark)}
    if how == "plain pickle":
        path.write_bytes(pickle.dumps({"config": Runs(mark)}))
    else:
        saved(path, value, legacy=how == "legacy")
    with pytest.raises(
        InputError,
        match=r"evil\.bin: (holds an object of .*mkdir; only|damaged, or holds other objects than) tensors",
    ):
        read_state_dict(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "value", [argparse.Namespace(lr=1), np.float64(1.0)], ids=["namespace", "numpy scalar"]
)
def test_objects_other_than_plain_containers_are_named(tmp_path, value):
    with pytest.raises(InputError, match=r"holds an object of (argparse\.Namespace|numpy)"):
        load_plain(saved(tmp_path / "w.ckpt", {"state_dict": WEIGHTS, "args": value}))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused(tmp_path, share, legacy):
    path = saved(tmp_path / "w.bin", {"a": torch.randn(200, 20)}, legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"w\.bin: (truncated, )?damaged"):
        read_state_dict(path)


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "notes.pt"
    text.write_text("hello " * 20)
    with pytest.raises(InputError, match="damaged"):
        read_state_dict(text)
    with pytest.raises(InputError, match="no state dict in this file"):
        read_state_dict(saved(tmp_path / "list.pt", [torch.ones(2)]))
    with pytest.raises(InputError, match="no state dict in this file"):
        read_state_dict(saved(tmp_path / "step.pt", {"step": 3}))
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "jit.pt")
    with pytest.raises(InputError, match="TorchScript archive holds code"):
        read_state_dict(tmp_path / "jit.pt")


def test_weights_are_written_in_shards_of_bounded_size(tmp_path):
    tensors = {f"t{number}": torch.randn(50) for number in range(5)}
    write_weights(stored(tensors, tmp_path), tmp_path / "model.safetensors", shard_bytes=450)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    joined = {name: tensor for file in files for name, tensor in load_file(tmp_path / file).items()}
    assert all(torch.equal(joined[name], tensor) for name, tensor in tensors.items())
    assert (tmp_path / "model.safetensors.index.json").is_file()


def test_weights_that_are_not_finite_or_packed_are_refused(tmp_path):
    with pytest.raises(InputError, match="tensor a: holds NaN"):
        write_weights(stored({"a": torch.tensor([1.0, float("nan")])}, tmp_path), tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"type torch\.complex64"):
        stored({"a": torch.ones(2, dtype=torch.complex64)}, tmp_path)
