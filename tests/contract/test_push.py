"""``priorkit push`` against a hub on the loopback interface, and the card that goes with an artifact."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from priorkit.core.artifact import open_artifact
from tests.support.hub_stand_in import Hub, running_hub


@pytest.fixture
def tokenizer(artifacts, tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    shutil.copytree(artifacts.tokenizer, folder)
    return folder


def push(hub: Hub, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_test",
        "HF_HUB_DISABLE_TELEMETRY": "1", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "priorkit", "push", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip


def test_an_artifact_is_committed_with_card_and_manifest(tokenizer: Path) -> None:
    (tokenizer / "secret.txt").write_text("mine")
    with running_hub() as hub:
        done = push(hub, tokenizer, "me/words", "--private", "--json")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert (result["type"], result["repository"], result["commit"]) == ("model", "me/words", "c" * 40)
        assert "private" in (hub.created[0].get("visibility"), *hub.created[0])
        assert hub.tokens == {"Bearer hf_test"}
        committed = hub.files["models/me/words"]
        expected = {*open_artifact(tokenizer).manifest.files, "priorkit.json", "README.md"}
        assert set(committed) == expected
        assert all(committed[name] == (tokenizer / name).read_bytes() for name in expected)
    assert "secret.txt" in done.stderr


def test_other_artifacts_become_data_sets(artifacts) -> None:
    with running_hub() as hub:
        done = push(hub, artifacts.corpus, "me/corpus")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"{hub.endpoint}/datasets/me/corpus"
        assert "datasets/me/corpus" in hub.files


def test_a_hub_that_refuses_and_one_that_is_not_there(tokenizer: Path) -> None:
    with running_hub() as hub:
        hub.refuse = 403
        done = push(hub, tokenizer, "me/words")
        assert (done.returncode, done.stdout) == (4, "")
        assert "the hub cannot take it" in done.stderr
    done = push(hub, tokenizer, "me/words")
    assert done.returncode == 4
    assert "Traceback" not in done.stderr


def test_what_is_wrong_is_found_before_anything_is_sent(cli, tokenizer: Path, tmp_path: Path) -> None:
    assert cli("push", tokenizer, "words").code == 2
    assert cli("push", tmp_path / "none", "me/words").code == 3
    (tokenizer / "tokenizer.json").write_text("{}")
    assert cli("push", tokenizer, "me/words").code == 3


def test_the_card_says_what_an_artifact_is_and_may_be_edited(cli, artifacts, tmp_path: Path) -> None:
    sources = tmp_path / "texts"
    sources.mkdir()
    (sources / "a.txt").write_text("A red circle beside a blue square. " * 40)
    (sources / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Texts\n")
    made = cli("tokenizer", f"t={sources / 'a.txt'}", "--vocab-size", 300, "--out", tmp_path / "tokenizer")
    assert made.code == 0, made.err
    card = (tmp_path / "tokenizer" / "README.md").read_text("utf-8")
    assert card.startswith(
        "---\ntags:\n- priorkit\n- tokenizer\nlibrary_name: transformers\n---\n\n# tokenizer\n"
    )
    assert f"- {sources / 'a.txt'}: cc-by-4.0" in card
    assert "| vocab_size | 300 |" in card
    digest = open_artifact(tmp_path / "tokenizer").digest
    (tmp_path / "tokenizer" / "README.md").write_text(card + "\nMine.\n")
    assert open_artifact(tmp_path / "tokenizer").digest == digest
    verified = cli("verify", tmp_path / "tokenizer")
    assert (verified.code, "added" in verified.err) == (0, False)
    again = cli("tokenizer", f"t={sources / 'a.txt'}", "--vocab-size", 300, "--out", tmp_path / "tokenizer")
    assert (again.code, "up to date" in again.err) == (0, True)
    mixed = cli(
        "mix", f"t={sources / 'a.txt'}", "--tokenizer", tmp_path / "tokenizer", "--context-length", 32, "--out",
        tmp_path / "corpus",
    )  # fmt: skip
    assert mixed.code == 0, mixed.err
    inherited = (tmp_path / "corpus" / "README.md").read_text("utf-8")
    assert inherited.count("cc-by-4.0") == 1, inherited
    assert "# A glyph world" in (artifacts.world / "README.md").read_text("utf-8")
