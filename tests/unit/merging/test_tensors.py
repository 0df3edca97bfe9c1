"""Reading, casting and writing of stored tensors against torch and safetensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from priorkit.core.errors import InputError
from priorkit.core.safetensors_header import read_header
from priorkit.data.io.tensor_file import ShardWriter
from priorkit.merging.tensors import TensorReader, narrow, widen

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def bits(tensor):
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_one_cast_gives_the_bytes_of_torch(dtype):
    draw = np.random.default_rng(0)
    values = np.concatenate(
        [
            draw.standard_normal(5000).astype(np.float32),
            # Halfway between two bfloat16, where rounding goes to the even one.
            (np.arange(0x3F80, 0x3FC0, dtype=np.uint32) << 16 | 0x8000).view(np.float32),
            np.array([0.0, -0.0, 1e-40, 6e4], np.float32),
        ]
    )
    assert narrow(values, dtype).tobytes() == bits(torch.from_numpy(values).to(TYPES[dtype]))


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", list(TYPES))
def test_widening_is_exact(dtype, precision, tmp_path):
    tensor = torch.randn(300_000, generator=torch.Generator().manual_seed(0)).to(TYPES[dtype])
    save_file({"pad": torch.ones(3, dtype=torch.float64), "x": tensor}, tmp_path / "x.safetensors")
    info = read_header(tmp_path / "x.safetensors")["x"]
    with TensorReader() as reader:
        reader.open([info.file])
        found = reader.values(info, precision)
        part = reader.values(info, precision, 70_001, 131_072)
    expected = tensor.to(torch.float32 if precision is np.float32 else torch.float64).numpy()
    assert np.array_equal(found, expected)
    assert np.array_equal(part, expected[70_001 : 70_001 + 131_072])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", list(TYPES))
def test_not_finite_inputs_are_refused(dtype, bad, tmp_path):
    tensor = torch.zeros(70_000, dtype=TYPES[dtype])
    tensor[69_999] = bad
    save_file({"x": tensor}, tmp_path / "x.safetensors")
    info = read_header(tmp_path / "x.safetensors")["x"]
    with TensorReader() as reader:
        reader.open([info.file])
        with pytest.raises(InputError, match="NaN or infinite"):
            reader.values(info, np.float32)


@pytest.mark.parametrize(("dtype", "value"), [("F16", 7e4), ("BF16", 3.4e38)])
def test_results_beyond_the_range_of_the_type_are_refused(dtype, value):
    with pytest.raises(InputError, match="exceed the range"):
        narrow(np.array([value], np.float32), dtype)


def test_shards_are_read_by_safetensors_whatever_the_order_of_writing(tmp_path):
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(5, dtype=np.uint16)
    layout = {"a": ("F32", (2, 3)), "empty": ("F32", (0, 4)), "b": ("BF16", (5,))}
    for name, order in (("x", ("a", "b")), ("y", ("b", "a"))):
        with ShardWriter(tmp_path / name, layout) as writer:
            for key in order:
                writer.write(key, a if key == "a" else b)
    loaded = load_file(tmp_path / "x")
    assert torch.equal(loaded["a"], torch.from_numpy(a))
    assert loaded["b"].dtype == torch.bfloat16
    assert loaded["empty"].shape == (0, 4)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_widening_bits():
    out = np.empty(3, np.float32)
    widen(np.array([0x3F80, 0xC000, 0x0000], np.uint16), "BF16", out)
    assert out.tolist() == [1.0, -2.0, 0.0]
