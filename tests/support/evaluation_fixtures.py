"""Tiny random models whose answers differ from item to item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from priorkit.architectures.registry import check_model
from priorkit.data.images.decoding import ImageRef
from priorkit.inference.loading import load_model_adapter
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.models.language.causal_lm import build_config, build_llm, preset_fields
from tests.support.evaluation_models import TEXTS, build_llava, build_tokenizer, picture


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def llm_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    folder = tmp_path_factory.mktemp("llm")
    model = build_llm(build_config({**preset_fields("pocket-tiny"), "initializer_range": 0.3}, tokenizer), 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    build_llava(tokenizer).save(folder)
    return folder


@pytest.fixture(scope="session")
def llm(llm_folder: Path) -> ModelAdapter:
    return load_model_adapter(check_model(llm_folder), torch.device("cpu"))


@pytest.fixture(scope="session")
def llava(llava_folder: Path) -> ModelAdapter:
    return load_model_adapter(check_model(llava_folder), torch.device("cpu"))


@pytest.fixture(scope="session")
def images() -> list[ImageRef]:
    return [ImageRef(f"{number}.png", content=picture(number)) for number in range(6)]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return TEXTS
