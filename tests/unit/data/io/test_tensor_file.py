from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from priorkit.core.safetensors_header import read_header
from priorkit.data.io.tensor_file import map_tensor, write_raw


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
    header = read_header(tmp_path / "ours")
    for name, values in load_file(tmp_path / "ours").items():
        assert np.array_equal(map_tensor(header[name]), values)


def test_other_dtypes_are_refused(tmp_path: Path) -> None:
    save_file({"tokens": np.arange(5, dtype=np.float16)}, tmp_path / "a")
    with pytest.raises(ValueError, match="dtype F16"):
        map_tensor(read_header(tmp_path / "a")["tokens"])
