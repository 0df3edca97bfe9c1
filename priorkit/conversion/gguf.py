"""GGUF files: language models of llama.cpp, dequantized by transformers.

The file holds weights, sizes, vocabulary and chat template, so nothing else is needed. transformers keeps its own
table of the architectures that it can read.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Mapping
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from priorkit.conversion.conversion import Conversion, kind_of
from priorkit.conversion.tensors import NewTensor, stored
from priorkit.core.errors import InputError, ResourceError, library_reads

MAGIC = b"GGUF"
SUFFIX = ".gguf"


def plan_gguf(path: Path, dtype: torch.dtype | None) -> Conversion:
    """Plan the conversion of a GGUF file.

    Args:
        path: the file, or a folder with one.
        dtype: of the result; None for float32.

    Raises:
        InputError: truncated, in parts, or of an architecture that transformers does not read.
        ResourceError: the package gguf is missing.
    """
    file = _file(path)
    if find_spec("gguf") is None:
        raise ResourceError(
            "the package gguf is needed to read this file",
            where=str(file),
            hint="pip install 'priorkit[convert]'",
        )
    values = _check_complete(file)
    with library_reads("transformers cannot read its configuration", str(file)):
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    kind = kind_of(config, str(file))
    target = dtype or torch.float32

    def tensors() -> Mapping[str, NewTensor]:
        from transformers import AutoModelForCausalLM, GgufConfig

        with library_reads("transformers cannot read its weights", str(file)), _without_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                file.parent,
                gguf_file=file.name,
                dtype=target,
                quantization_config=GgufConfig(dequantize=True),
                local_files_only=True,
                output_loading_info=True,
            )
            model, info = loaded
        missing = sorted(info["missing_keys"])
        if missing:
            raise InputError(f"{len(missing)} tensors are missing, such as {missing[0]}", where=str(file))
        tied = set(model.all_tied_weights_keys)
        return stored({name: value for name, value in model.state_dict().items() if name not in tied}, file)

    def write_rest(folder: Path) -> None:
        from transformers import AutoTokenizer

        plain: Any = config
        plain.dtype, plain.architectures = target, [_class_name(config)]
        # What the file was, and where it came from, is in the manifest.
        for name in ("quantization_config", "_model_name_or_path"):
            if hasattr(plain, name):
                delattr(plain, name)
        plain.name_or_path = ""
        plain.save_pretrained(folder)
        with library_reads("transformers cannot read its tokenizer", str(file)):
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
        tokenizer.save_pretrained(folder)

    size = values * torch.empty((), dtype=target).element_size()
    return Conversion(kind, f"{config.model_type} in GGUF, {values:,} parameters", tensors, size, write_rest)


@contextmanager
def _without_bars() -> Generator[None, None, None]:
    """Progress is this step's own, and none where standard error is no terminal; one of the bars ignores the switch."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _file(path: Path) -> Path:
    """The file of a path.

    Raises:
        InputError: there is none or several, it is one of several parts, or no GGUF file.
    """
    files = [path] if path.is_file() else sorted(path.rglob(f"*{SUFFIX}"))
    if len(files) != 1:
        found = f"{len(files)} GGUF files here, such as {files[0].name}" if files else "no GGUF file here"
        raise InputError(
            found, where=str(path), hint="name one; of a hub model with OWNER/NAME#FILE" if files else ""
        )
    with files[0].open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise InputError("not a GGUF file", where=str(files[0]))
    if "-of-0" in files[0].name:
        raise InputError(
            "one of several parts of a GGUF model",
            where=str(files[0]),
            hint="join them first: llama-gguf-split --merge FIRST_PART WHOLE",
        )
    return files[0]


def _check_complete(file: Path) -> int:
    """The number of weights that a file holds.

    Raises:
        InputError: it is truncated or damaged.
    """
    gguf: Any = import_module("gguf")
    with library_reads("truncated or damaged", str(file)):
        reader = gguf.GGUFReader(file)
        ends = [int(tensor.data_offset) + int(tensor.n_bytes) for tensor in reader.tensors]
        if not ends or max(ends) > file.stat().st_size:
            raise ValueError(f"expected {max(ends, default=0):,} bytes, got {file.stat().st_size:,}")
        return sum(int(tensor.n_elements) for tensor in reader.tensors)


def _class_name(config: Any) -> str:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    found: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return found.__name__
