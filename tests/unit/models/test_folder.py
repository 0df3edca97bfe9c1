from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from priorkit.core.errors import InputError
from priorkit.models.folder import read_config, read_header, read_json, tensor_files


def tensors(path: Path) -> Path:
    save_file(
        {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float16)}, path, metadata={"format": "pt"}
    )
    return path


def test_shapes_and_types_are_read_from_the_header(tmp_path: Path) -> None:
    found = read_header(tensors(tmp_path / "x.safetensors"))
    assert {name: (info.dtype, info.shape, info.count) for name, info in found.items()} == {
        "a": ("F32", (2, 3), 6),
        "b": ("F16", (4,), 4),
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{x",
    ],
)
def test_what_is_no_safetensors_file_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_header(path)


@settings(deadline=None)
@given(cut=st.integers(1, 200), place=st.integers(0, 150), value=st.integers(0, 255))
def test_damaged_headers_are_input_errors_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, cut: int, place: int, value: int
) -> None:
    path = tensors(tmp_path_factory.getbasetemp() / "damaged.safetensors")
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-cut])
    with pytest.raises(InputError):
        read_header(path)
    content[place % len(content)] = value
    path.write_bytes(content)
    try:
        read_header(path)
    except InputError:
        return


def test_sharded_models_and_missing_shards(tmp_path: Path) -> None:
    tensors(tmp_path / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "../secret"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(tensor_files(tmp_path)) == {"a", "b"}
    index["weight_map"]["d"] = "model-2.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"model-2\.safetensors is missing"):
        tensor_files(tmp_path)


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(InputError, match="which is never opened here"):
        tensor_files(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, "\udcff"])
def test_broken_json_is_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"config\.json"):
        read_json(path)


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json is missing"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="names no model_type"):
        read_config(tmp_path)
    with pytest.raises(InputError, match="a model is a directory"):
        read_config(tmp_path / "config.json")
