"""The card is a function of manifest, inputs and name."""

from __future__ import annotations

from pathlib import Path

from priorkit.core.card import card, licences
from priorkit.core.inputs import Input
from priorkit.core.manifest import SCHEMA, InputRecord, Manifest


def given(folder: Path, name: str) -> Input:
    (folder / name).mkdir()
    return Input(name, str(folder / name), folder / name, "directory")


def manifest() -> Manifest:
    return Manifest(
        schema_=SCHEMA, kind="mllm", step="tune", settings={"epochs": 1.5, "train": ["llm"], "seed": None},
        inputs=[InputRecord(setting="mllm", path="a|b", kind="mllm", digest="d" * 64)], files={},
        metrics={"loss": 0.123456789, "parts": {"llm": 7}, "many": list(range(20))}, versions={"torch": "2"},
        seed=1, created="2026-01-01", cost={"seconds": 3.0},
    )  # fmt: skip


def test_figures_and_settings_are_listed(tmp_path: Path) -> None:
    text = card(manifest(), {}, "tuned")
    assert text == card(manifest(), {}, "tuned")
    assert "pipeline_tag: image-text-to-text" in text
    assert "AutoModelForImageTextToText.from_pretrained('tuned')" in text
    assert "| mllm | a\\|b | mllm | dddddddddddd |" in text
    assert "| loss | 0.123457 |\n| parts.llm | 7 |" in text
    assert "| epochs | 1.5 |" in text
    assert "seconds" not in text
    assert "2026" not in text


def test_licences_of_inputs_and_of_theirs(tmp_path: Path) -> None:
    inputs = {name: given(tmp_path, name) for name in ("stated", "file", "silent", "made")}
    (tmp_path / "stated" / "README.md").write_text("---\nlicense: 'apache-2.0'\n---\n")
    (tmp_path / "file" / "LICENSE").write_text("...")
    (tmp_path / "made" / "README.md").write_text(
        "---\ntags:\n---\n\n## Licences of the inputs\n\nWords.\n\n- x: mit\n- no inputs\n\n## Settings\n\n- y: z\n"
    )
    (tmp_path / "silent" / "README.md").write_bytes(b"\xff\xfe")
    assert licences(inputs) == [
        f"{tmp_path / 'stated'}: apache-2.0",
        f"{tmp_path / 'file'}: see LICENSE in it",
        f"{tmp_path / 'silent'}: none stated next to it",
        "x: mit",
    ]
