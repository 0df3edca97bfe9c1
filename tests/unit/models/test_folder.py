from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from priorkit.core.errors import InputError
from priorkit.models.folder import read_config, read_json, tensor_files
from priorkit.models.language.tokenizer import load_tokenizer


def tensors(path: Path) -> Path:
    save_file(
        {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float16)}, path, metadata={"format": "pt"}
    )
    return path


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
    with pytest.raises(InputError, match=r"convert pytorch_model\.bin first: priorkit convert"):
        tensor_files(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, "\udcff"])
def test_broken_json_is_an_input_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"config\.json"):
        read_json(path)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json"]
)
@pytest.mark.parametrize("key", [False, True])
def test_lone_surrogates_in_settings_are_refused_by_file(name: str, key: bool, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    text = "a \ud800"
    content = {"model_type": "llama", "x": [{text if key else "chat_template": 1 if key else text}]}
    (tmp_path / name).write_text(json.dumps(content))
    for read in (read_config, load_tokenizer):
        (tmp_path / "tokenizer.json").write_text("{}")
        with pytest.raises(InputError, match="lone surrogate") as raised:
            read(tmp_path)
        assert str(tmp_path / name) in str(raised.value)
        str(raised.value).encode()
    (tmp_path / name).write_text(json.dumps({"model_type": "llama", "x": "\U0001f600"}))
    assert read_config(tmp_path)["model_type"] == "llama"


def test_other_folders_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json is missing"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="has no model_type"):
        read_config(tmp_path)
    with pytest.raises(InputError, match="a model is a directory"):
        read_config(tmp_path / "config.json")
