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
from priorkit.core.safetensors_header import read_header


def tensors(path: Path) -> Path:
    save_file(
        {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float16)}, path, metadata={"format": "pt"}
    )
    return path


def header(tensors: dict[str, dict[str, object]]) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


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
        header({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}) + bytes(8),
        header({"a": {"dtype": "F32", "shape": [2]}}) + bytes(8),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}) + bytes(4),
    ],
)
def test_a_file_that_is_not_safetensors_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a complete safetensors file"):
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
