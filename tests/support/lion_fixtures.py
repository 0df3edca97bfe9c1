"""Fixtures of this room."""

from __future__ import annotations

import pytest

from tests.support.lion_models import build_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory):
    """A tiny LLaVA model."""
    return build_base(tmp_path_factory.mktemp("lion-base"))
