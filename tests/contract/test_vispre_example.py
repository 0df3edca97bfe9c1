"""``examples/vispre.sh``: the differences of its arms, recorded by a fake command line."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

STAND_IN = """#!{python}
import json, pathlib, sys
words = sys.argv[1:]
with open({log!r}, "a") as stream:
    stream.write(json.dumps(words) + "\\n")
out = pathlib.Path(words[words.index("--out") + 1])
out.mkdir(parents=True, exist_ok=True)
seconds = {{"distill-encoder": 50.0, "align": 10.0, "tune": 40.0}}.get(words[0], 1.0)
manifest = {{"cost": {{"training_seconds": seconds}}, "settings": {{"steps": 2000, "epochs": None}}}}
(out / "priorkit.json").write_text(json.dumps(manifest))
print(out)
"""

PYTHON = """#!/bin/sh
case "$1" in
  *naming_instructions.py) : >"$3" ;;
  *) exec {python} "$@" ;;
esac
"""


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def arms(folder: Path, **given: str) -> dict[str, list[str]]:
    """The command lines of a run by the name of what they make."""
    (folder / "bin").mkdir()
    log = folder / "log"
    executable(folder / "bin" / "priorkit", STAND_IN.format(python=sys.executable, log=str(log)))
    executable(folder / "bin" / "python", PYTHON.format(python=shlex.quote(sys.executable)))
    names = (
        "LLM",
        "ENCODER",
        "CAPTIONS",
        "QUESTIONS",
        "IMAGES",
        "HELD_OUT",
        "PAIRS",
        "PAIRS_TEST",
        "BENCHMARKS",
    )
    known = {name: name.lower() for name in names}
    done = subprocess.run(
        ["bash", str(EXAMPLES / "vispre.sh"), str(folder / "home")],
        env={**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", **known, **given},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {Path(words[words.index("--out") + 1]).name: words for words in lines}


def value(words: list[str], flag: str) -> str | None:
    return words[words.index(flag) + 1] if flag in words else None


def test_the_arms_differ_only_in_what_they_are_named_for(tmp_path: Path) -> None:
    found = arms(tmp_path)
    bare, kept = found["encoder-bare"], found["encoder-kept"]
    assert value(bare, "--replay") == value(kept, "--replay") == "pairs"
    assert (value(bare, "--keep-weight"), value(kept, "--keep-weight")) == ("0", None)
    # Stage I and alignment take 60 s, tuning takes 40 s for 2000 steps: the control gets 3000 steps more.
    lengths = {name: value(found[name], "--steps") for name in found if name.startswith("tuned")}
    assert lengths == {"tuned-bare": None, "tuned-kept": None, "tuned-frozen": "5000", "tuned": "5000"}
    assert value(found["tuned-frozen"], "--train") == "projector,llm"
    assert {value(found[name], "--train") for name in ("tuned", "tuned-bare", "tuned-kept")} == {
        "projector,llm,encoder"
    }


def test_the_length_of_the_arms_without_stage_one_can_be_set(tmp_path: Path) -> None:
    found = arms(tmp_path, LONGER="--epochs 1.5")
    assert (value(found["tuned"], "--epochs"), value(found["tuned-kept"], "--epochs")) == ("1.5", None)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"steps": 100, "epochs": None}, "--steps 175"),
        ({"tokens": 1000}, "--tokens 1750"),
        ({"epochs": 2.0}, "--epochs 3.5"),
        ({}, "--epochs 1.75"),
    ],
)
def test_the_length_is_scaled_in_its_unit(settings: dict, expected: str, tmp_path: Path) -> None:
    for name, seconds in (("tuned", 8.0), ("encoder", 5.0), ("aligned", 1.0)):
        (tmp_path / name).mkdir()
        manifest = {"cost": {"training_seconds": seconds}, "settings": settings}
        (tmp_path / name / "priorkit.json").write_text(json.dumps(manifest))
    done = subprocess.run(
        [sys.executable, EXAMPLES / "tuning_length.py", *(tmp_path / n for n in ("tuned", "encoder", "aligned"))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == expected
