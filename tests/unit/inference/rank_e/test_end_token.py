"""A text tower that reads its feature at an end token needs a tokenizer that writes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any


def test_a_text_tower_without_end_token_is_refused_before_images_are_read(
    artifacts: Any, cli: Any, tmp_path: Path
) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(artifacts.encoder, encoder, ignore=shutil.ignore_patterns("priorkit.json", "recipe.toml"))
    tokenizer = json.loads((encoder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["post_processor"] = None
    (encoder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    images = artifacts.world / "entity_images" / "test"
    found = cli("rank-e", encoder, images, "--device", "cpu", "--check", "--out", tmp_path / "r")
    assert found.code == 3
    assert "its tokenizer writes no end token (<|endoftext|>" in found.err
    centroids = cli(
        "rank-e", encoder, images, "--by", "centroids", "--device", "cpu", "--check", "--out", tmp_path / "r"
    )
    assert centroids.code == 0, centroids.err
