from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from priorkit.data.io.tensor_file import locate, map_tensor, write_raw


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_the_bytes_are_those_of_safetensors(tmp_path: Path, count: int, dtype: type) -> None:
    tensors = {
        "tokens": np.arange(count, dtype=dtype),
        "document_starts": np.arange(3, dtype=np.int64),
        "hashes": np.arange(32, dtype=np.uint8).reshape(2, 16),
    }
    save_file(tensors, tmp_path / "theirs")
    for name, values in tensors.items():
        values.tofile(tmp_path / name)
    write_raw(tmp_path / "ours", {name: (tmp_path / name, v.dtype, v.shape) for name, v in tensors.items()})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    places = locate(tmp_path / "ours")
    for name, values in load_file(tmp_path / "ours").items():
        assert np.array_equal(map_tensor(tmp_path / "ours", places[name]), values)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:4], lambda b: b.replace(b"U16", b"F16")])
def test_damage_is_told(tmp_path: Path, damage) -> None:
    path = tmp_path / "a"
    save_file({"tokens": np.arange(5, dtype=np.uint16)}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"cut short|no safetensors header|damaged"):
        locate(path)
