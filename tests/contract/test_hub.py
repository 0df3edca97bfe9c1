"""Inputs from a hub, tested against one on this machine: snapshots, revisions, subsets, resuming, offline, faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.mock_hub import MockHub, Repository, running

ROOT = Path(__file__).parents[2]

CARD = b"""---
configs:
- config_name: large
  data_files: large/*.jsonl
- config_name: small
  data_files:
  - split: train
    path: small/train.jsonl
  - split: test
    path: small/test.jsonl
---
"""
LINES = b"".join(json.dumps({"text": f"document {number}"}).encode() + b"\n" for number in range(2000))

BIG = bytes(24 << 20)
"""Longer than the pieces of 10 MB in which the hub's library writes."""


def repositories() -> dict[str, Repository]:
    model = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors": b"new",
        "pytorch_model.bin": b"old",
    }
    return {
        "models/acme/model": Repository({"main": model, "v1": {**model, "model.safetensors": b"first"}}),
        "models/acme/pickled": Repository(
            {"main": {"config.json": b"{}", "pytorch_model.bin": b"x", "a.onnx": b"y"}}
        ),
        "datasets/acme/text": Repository(
            {
                "main": {
                    "data/big.txt": BIG,
                    "data/a.jsonl": LINES,
                    "data/b.jsonl": b'{"text": "b"}\n',
                    "data/c.jsonl": b'{"text": "c"}\n',
                }
            },
            missing={"data/c.jsonl"},
            cut={"data/big.txt": 1},
        ),
        "datasets/acme/several": Repository(
            {
                "main": {
                    "README.md": CARD,
                    "large/0.jsonl": LINES,
                    "small/train.jsonl": LINES,
                    "small/test.jsonl": b'{"text": "t"}\n',
                }
            }
        ),
    }


ASK = """
import json, sys
from priorkit.core.errors import PriorkitError
from priorkit.core.inputs import HubSubset, resolve
for given, hub, subset in json.loads(sys.stdin.read()):
    try:
        chosen = None if subset is None else HubSubset(subset or None, "--subset NAME=SUBSET")
        found = resolve(given, "input", ("text",), hub, subset=chosen)
        root = found.path if found.path.is_dir() else found.path.parent
        files = {path.relative_to(root).as_posix(): path.stat().st_size for path in sorted(root.rglob("*")) if path.is_file()}
        answer = {"kind": found.kind, "revision": found.revision, "files": files}
        if subset is not None:
            from priorkit.data.io.hub_files import split_files
            answer["split"] = [path.name for path in split_files(found.path, subset or None, "train", "x")]
    except PriorkitError as error:
        answer = {"error": str(error), "code": error.exit_code}
    print("ANSWER" + json.dumps(answer), flush=True)
"""


def ask(
    hub: MockHub, home: Path, *questions: tuple[str, str, str | None], offline: bool = False
) -> list[Any]:
    """Resolve inputs in a process that knows this hub only."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "PRIORKIT_CACHE": str(home / "priorkit"),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "*",
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    answers = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert len(answers) == len(questions), done.stderr[-3000:]
    return answers


@pytest.fixture(scope="module")
def hub():
    with running(repositories()) as mock:
        yield mock


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hub-home")


@pytest.fixture(scope="module")
def online(hub, home):
    """Answers by question; one process asks them all, as importing the hub's library takes seconds."""
    questions: list[tuple[str, str, str | None]] = [
        ("acme/model", "model", None),
        ("acme/model@v1", "model", None),
        ("acme/pickled", "model", None),
        ("acme/pickled", "weights", None),
        ("acme/text#data/a.jsonl", "dataset", None),
        ("acme/text#data/big.txt", "dataset", None),
        ("acme/text#data/c.jsonl", "dataset", None),
        ("acme/none", "model", None),
        ("acme/model@v9", "model", None),
        ("acme/several", "dataset", ""),
        ("acme/several", "dataset", "smal"),
        ("acme/several", "dataset", "small"),
        ("hf://datasets/acme/text/data/b.jsonl", "dataset", None),
        ("hf://datasets/acme/text/data/z.jsonl", "dataset", None),
        ("hf://datasets/acme/text/data/b.jsonl", "model", None),
    ]
    return dict(
        zip(
            [(given, kind, subset) for given, kind, subset in questions],
            ask(hub, home, *questions),
            strict=True,
        )
    )


def test_a_model_is_fetched_without_pickles_at_its_revision(online, hub):
    main, first = online["acme/model", "model", None], online["acme/model@v1", "model", None]
    assert main["files"] == {"config.json": 2, "model.safetensors": 3, "tokenizer.json": 2}
    assert first["files"]["model.safetensors"] == 5
    repository = hub.repositories["models/acme/model"]
    assert (main["revision"], first["revision"]) == (repository.commit("main"), repository.commit("v1"))


def test_convert_fetches_other_formats_too(online):
    assert set(online["acme/pickled", "model", None]["files"]) == {"config.json"}
    assert set(online["acme/pickled", "weights", None]["files"]) == {"config.json", "pytorch_model.bin"}


def test_one_file_is_fetched_by_its_name(online):
    files = online["acme/text#data/a.jsonl", "dataset", None]["files"]
    assert files["data/a.jsonl"] == len(LINES)
    assert "data/b.jsonl" not in files


def test_a_transfer_that_broke_off_is_resumed(online, hub):
    assert online["acme/text#data/big.txt", "dataset", None]["files"]["data/big.txt"] == len(BIG)
    ranges = [
        asked for method, path, asked in hub.requests if method == "GET" and path.endswith("/data/big.txt")
    ]
    assert ranges[0] == ""
    assert any(asked.startswith("bytes=") and not asked.startswith("bytes=0-") for asked in ranges[1:])


def test_what_is_missing_is_named(online):
    for question in (("acme/none", "model", None), ("acme/model@v9", "model", None)):
        answer = online[question]
        assert answer["code"] == 3
        assert f"'{question[0]}' is no local path, and the hub gave no such model" in answer["error"]
    assert online["acme/text#data/c.jsonl", "dataset", None]["code"] == 3


def test_a_subset_is_fetched_without_the_rest(online, hub):
    unchosen, misspelt = online["acme/several", "dataset", ""], online["acme/several", "dataset", "smal"]
    assert unchosen["code"] == misspelt["code"] == 3
    assert "the dataset has several subsets" in unchosen["error"]
    assert "no subset 'smal'" in misspelt["error"]
    assert "did you mean 'small'" in misspelt["error"]
    chosen = online["acme/several", "dataset", "small"]
    assert set(chosen["files"]) == {"README.md", "small/test.jsonl", "small/train.jsonl"}
    assert chosen["split"] == ["train.jsonl"]
    assert "large/0.jsonl" not in hub.fetched()


def test_single_files_are_read_by_address(online):
    found = online["hf://datasets/acme/text/data/b.jsonl", "dataset", None]
    assert (found["kind"], set(found["files"])) == ("remote", {"b.jsonl"})
    assert online["hf://datasets/acme/text/data/z.jsonl", "dataset", None]["code"] == 3
    assert "for data only" in online["hf://datasets/acme/text/data/b.jsonl", "model", None]["error"]


def test_offline_only_the_cache_is_used(online, hub, home):
    before = len(hub.requests)
    known, unknown, subset = ask(
        hub,
        home,
        ("acme/model", "model", None),
        ("acme/other", "model", None),
        ("acme/several", "dataset", "small"),
        offline=True,
    )
    assert known == online["acme/model", "model", None]
    assert "its local cache does not have it" in unknown["error"]
    assert subset.get("split", subset) == ["train.jsonl"]
    assert len(hub.requests) == before
