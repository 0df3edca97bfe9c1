"""How often training data names entities: names in answers, letters resolved, text without images left out."""

from __future__ import annotations

import json
from pathlib import Path

from priorkit.analysis.diagnosis.naming_counts import COUNTED, naming_counts
from priorkit.data.io.rejects import Rejects
from tests.support.evaluation_models import picture


def row(question: str, answer: str, image: bool = True) -> dict:
    turns = [
        {"from": "human", "value": ("<image>\n" if image else "") + question},
        {"from": "gpt", "value": answer},
    ]
    return {"conversations": turns, **({"image": "a.png"} if image else {})}


def test_answers_about_images_are_counted_once_per_conversation(tmp_path: Path) -> None:
    rows = [
        row("What is this?", "A red star and a red star."),
        row("What is this?\nA. moon\nB. red star\nAnswer with the letter.", "B"),
        row("Is the moon here?", "no"),
        row("What is a moon?", "The moon", image=False),
        {"conversations": 3},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    (tmp_path / "a.png").write_bytes(picture(1))
    rejects = Rejects(1.0)
    counts = naming_counts(tmp_path / "rows.jsonl", ["red star", "moon", "star"], rejects)
    assert counts.tolist() == [2, 0, 0]
    assert len(rejects) == 1


def test_captions_are_answers(tmp_path: Path) -> None:
    rows = [
        {"image": "a.png", "caption": "a red star next to the moon"},
        {"image": "a.png", "caption": "moons"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    (tmp_path / "a.png").write_bytes(picture(1))
    counts = naming_counts(tmp_path / "rows.jsonl", ["red star", "moon"], Rejects(1.0), COUNTED["captions"])
    assert counts.tolist() == [1, 1]
