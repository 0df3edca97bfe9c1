"""Small artifacts in the exact forms that the steps write, made with the core library itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from priorkit.core.artifact import Artifact, digest_of, open_artifact, write_manifest
from priorkit.core.inputs import resolve
from priorkit.core.manifest import InputRecord
from priorkit.core.process import runtime
from priorkit.data.io.tables import write_table
from priorkit.data.results.named_artifacts import KINDS

ENTITIES = tuple(f"sign {number:02d}" for number in range(12))
PRIORS = dict(zip(ENTITIES, ["strong"] * 4 + ["weak"] * 4 + ["none"] * 4, strict=True))

Answers = Mapping[str, Sequence[bool]]


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


@dataclass(frozen=True)
class Maker:
    """Makes artifacts below a folder."""

    root: Path

    def seal(
        self,
        name: str,
        kind: str,
        step: str,
        inputs: Mapping[str, Path] | None = None,
        metrics: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Write the manifest over the files that are there."""
        records = [resolve(str(path), setting, KINDS).record() for setting, path in (inputs or {}).items()]
        write_manifest(
            self.root / name, kind=kind, step=step, settings=dict(settings or {}), inputs=records,
            metrics=dict(metrics or {}), versions=runtime.versions(), seed=1,
            cost={"seconds": 12.0, "peak_memory_bytes": 2.0**30, "tokens_per_second": 1234.5},
        )  # fmt: skip
        return open_artifact(self.root / name)

    def world(self) -> Artifact:
        folder = self.root / "world"
        for number, entity in enumerate(ENTITIES):
            image = Image.new("RGB", (8, 8), (20 * number, 60, 90))
            (folder / "images" / entity).mkdir(parents=True)
            image.save(folder / "images" / entity / "0.png")
        pairs = [40 - 3 * number for number in range(len(ENTITIES))]
        write_table(
            {"entity": ENTITIES, "prior": list(PRIORS.values()), "pairs": pairs}, folder / "entities.parquet"
        )
        content = (folder / "images" / ENTITIES[0] / "0.png").read_bytes()
        (folder / "benchmarks").mkdir()
        ids = [f"naming-{number}" for number in range(len(ENTITIES))]
        images = [{"bytes": content, "path": f"{key}.png"} for key in ids]
        write_table({"id": ids, "image": images}, folder / "benchmarks" / "naming.parquet")
        return self.seal("world", "world", "glyph-world")

    def corpus(self) -> Artifact:
        (self.root / "corpus").mkdir()
        metrics = {
            "shares": {"facts": 0.7, "code": 0.3},
            "tokens": 1000,
            "epochs": {"facts": 1.5, "code": 0.5},
        }
        return self.seal("corpus", "corpus", "mix", metrics=metrics)

    def llm(self, corpus: Artifact, losses: Sequence[float] = (3.0, 2.0, 1.5, 1.2)) -> Artifact:
        folder = self.root / "llm"
        folder.mkdir()
        lines = [
            json.dumps({"step": step, "loss": loss, "weight": 4}) for step, loss in enumerate(losses, start=1)
        ]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return self.seal("llm", "llm", "pretrain", {"corpus": corpus.path})

    def ranks(self, name: str, mean_rank: Sequence[float], images: Path) -> Artifact:
        folder = self.root / name
        folder.mkdir()
        write_table(
            {
                "entity": ENTITIES,
                "images": [1] * len(ENTITIES),
                "mean_rank": list(mean_rank),
                "percentile": [(rank - 1) / 11 for rank in mean_rank],
                "mean_log_rank": [math.log(rank) for rank in mean_rank],
                "mrr": [1 / rank for rank in mean_rank],
                "recall_at_1": [float(rank <= 1) for rank in mean_rank],
                "recall_at_5": [float(rank <= 5) for rank in mean_rank],
                "confused_with": [["sign 00", "sign 01"]] * len(ENTITIES),
            },
            folder / "table.parquet",
        )
        paths = [f"{entity}/0.png" for entity in ENTITIES]
        write_table({"path": paths, "entity": ENTITIES}, folder / "images.parquet")
        metrics = {"images": len(ENTITIES), "candidates": len(ENTITIES)}
        return self.seal(name, "scores", "rank-e", {"images": images}, metrics)

    def evaluation(
        self,
        name: str,
        answers: Answers,
        benchmark: Path | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Choice benchmarks: benchmark -> right or wrong for each entity, in their order."""
        folder = self.root / name
        folder.mkdir()
        lines: list[str] = []
        results: dict[str, Any] = {}
        for title, right in answers.items():
            for number, ok in enumerate(right):
                entity = ENTITIES[number % len(ENTITIES)]
                lines.append(json.dumps(sample(title, number, ok, entity)))
            results[title] = {
                "metrics": {"accuracy": interval(sum(right) / len(right))},
                "items": len(right),
                "unparsed": 1,
                "groups": {},
            }
        results.update(extra or {})
        (folder / "results.json").write_text(
            json.dumps({"model": {}, "benchmarks": results}), encoding="utf-8"
        )
        (folder / "samples.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return self.seal(name, "evaluation", "evaluate", {"benchmarks.0": benchmark} if benchmark else None)


def sample(benchmark: str, number: int, ok: bool, entity: str) -> dict[str, Any]:
    return {
        "id": f"{benchmark}-{number}",
        "benchmark": benchmark,
        "prompt": "<image>\nWhat is <this>?\nA. sign\nB. other",
        "prediction": "A" if ok else "B",
        "parsed": 0 if ok else 1,
        "score": float(ok),
        "choices": ["sign", "other"],
        "answer": 0,
        "groups": {
            "entity": entity,
            "prior": PRIORS[entity],
            "ability": "perception" if number % 2 else "counting",
        },
    }


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    """A maker of artifacts in an empty folder, which is the working folder too."""
    monkeypatch.chdir(tmp_path)
    return Maker(tmp_path)


@pytest.fixture
def part() -> Callable[[Artifact, str], InputRecord]:
    """A part of an artifact as the input of another one, whose path no longer exists."""

    def record(owner: Artifact, below: str) -> InputRecord:
        files = {n: r for n, r in owner.manifest.files.items() if n == below or n.startswith(below + "/")}
        return InputRecord(
            setting="images", path=f"gone/{owner.path.name}/{below}", kind=f"part of {owner.kind}",
            digest=digest_of(files),
        )  # fmt: skip

    return record
