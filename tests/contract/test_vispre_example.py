"""``examples/vispre.sh``: the differences of its arms, recorded by a fake command line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

EXAMPLES = Path(__file__).parents[2] / "examples"

STAND_IN = """#!{python} -IS
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
case "$1:$MATCH" in
  *naming_instructions.py:*) : >"$3" ;;
  *tuning_length.py:flops) echo "--steps 2750" ;;
  *) exec {python} "$@" ;;
esac
"""


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def arms(folder: Path, script: str = "vispre.sh", **given: str) -> dict[str, list[str]]:
    """The command lines of a run by what they make, below the folder of the script's results."""
    (folder / "bin").mkdir(exist_ok=True)
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
        ["bash", str(EXAMPLES / script), str(folder / "home")],
        env={
            **os.environ,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PRIORKIT_PRELOADED": "stand-in",
            **known,
            **given,
        },
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    home = folder / "home"
    return {str(Path(words[words.index("--out") + 1]).relative_to(home)): words for words in lines}


def value(words: list[str], flag: str) -> str | None:
    return words[words.index(flag) + 1] if flag in words else None


def test_the_arms_differ_only_in_what_they_are_named_for(tmp_path: Path) -> None:
    found = arms(tmp_path, SEEDS="7 8")
    bare, kept = found["encoder-bare-7"], found["encoder-kept-7"]
    assert value(bare, "--replay") == value(kept, "--replay") == "pairs"
    assert (value(bare, "--keep-weight"), value(kept, "--keep-weight")) == ("0", None)
    # Stage I and alignment take 60 s, tuning takes 40 s for 2000 steps: the control gets 3000 steps more.
    lengths = {name: value(found[name], "--steps") for name in found if name.startswith("tuned-")}
    expected = {"B": "5000", "C": "5000", "D": None, "E": None}
    assert lengths == {f"tuned-{arm}-{seed}": steps for arm, steps in expected.items() for seed in "78"}
    trained = {name[6]: value(found[name], "--train") for name in lengths}
    assert trained == {"B": "projector,llm", **dict.fromkeys("CDE", "projector,llm,encoder")}
    home = tmp_path / "home"
    starts = {name[6]: Path(found[name][1]).relative_to(home).name for name in lengths if name.endswith("8")}
    assert starts == {
        "B": "aligned-original-8",
        "C": "aligned-original-8",
        "D": "aligned-bare-8",
        "E": "aligned-kept-8",
    }
    assert found["scores-A-8"][1] == str(home / "aligned-original-8")
    assert found["scores-F-8"][1] == str(home / "aligned-kept-8")
    # All arms see the same data, every training has the seed of its arm.
    assert len({tuple(word for word in found[name] if "=" in word) for name in lengths}) == 1
    seeded = {
        name: value(words, "--seed")
        for name, words in found.items()
        if words[0] in ("tune", "align", "distill-encoder")
    }
    assert all(name.endswith(f"-{seed}") for name, seed in seeded.items())
    assert found["scores-blind-7"][1] == found["scores-C-7"][1]
    assert "--blind" in found["scores-blind-7"]
    for step in ("correlation", "report"):
        assert {word.split("=")[0] for word in found[step] if "@" in word} >= {
            f"{arm}@{s}" for arm in "ABCDEF" for s in "78"
        }


def test_the_length_of_the_arms_without_stage_one_can_be_set(tmp_path: Path) -> None:
    found = arms(tmp_path, SEEDS="1", LONGER="--epochs 1.5")
    assert (value(found["tuned-C-1"], "--epochs"), value(found["tuned-E-1"], "--epochs")) == ("1.5", None)


def test_a_base_model_of_ones_own_is_that_of_the_first_three_arms(tmp_path: Path) -> None:
    found = arms(tmp_path, SEEDS="1", BASE="llava")
    assert [found[name][1] for name in ("scores-A-1", "tuned-B-1", "tuned-C-1")] == ["llava"] * 3
    assert "aligned-original-1" not in found


GRID = {
    "ENCODERS": "clip=org/clip",
    "LLMS": "vicuna=vicuna qwen=org/qwen",
    "SEEDS": "1 2",
    "NAMING": "birds_vqa",
}


def test_the_grid_runs_every_pair_of_models_with_every_seed(tmp_path: Path) -> None:
    found = arms(tmp_path, "vispre_grid.sh", **GRID)
    tuned = {name: words for name, words in found.items() if "/tuned-C" in name}
    assert set(tuned) == {f"clip-{llm}/tuned-C-{seed}" for llm in ("vicuna", "qwen") for seed in "12"}
    assert {value(words, "--steps") for words in tuned.values()} == {"2750"}
    kept = tmp_path / "home" / "clip" / "encoder-kept-2"
    assert found["clip-qwen/aligned-kept-2"][1:3] == ["org/qwen", str(kept)]
    # Stage I and the ranks do not depend on the language model.
    shared = {"clip/ranks"} | {f"clip/encoder-{name}-{seed}" for name in ("bare", "kept") for seed in "12"}
    assert {name for name in found if "encoder-" in name or name.endswith("/ranks")} == shared
    report = found["clip-qwen/report"]
    assert f"E@2={tmp_path / 'home/clip-qwen/scores-E-2'}" in report
    # That of an earlier run over fewer seeds is no reason to stop.
    assert "--force" in report


def test_a_killed_grid_goes_on(tmp_path: Path) -> None:
    """The same command lines again, which finished steps answer at once; the length of the controls is kept."""
    small = {**GRID, "ENCODERS": "clip=org/clip siglip=org/siglip", "LLMS": "qwen=org/qwen", "SEEDS": "1"}
    first = arms(tmp_path, "vispre_grid.sh", **{**small, "ENCODERS": "clip=org/clip"})
    (tmp_path / "home" / "clip-qwen" / "tuning-length").write_text("--steps 2999\n")
    again = arms(tmp_path, "vispre_grid.sh", **small)
    assert set(first) < set(again)
    assert value(again["clip-qwen/tuned-C-1"], "--steps") == "2999"
    assert value(again["siglip-qwen/tuned-C-1"], "--steps") == "2750"


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


def test_flops_are_those_of_the_encoder_and_of_the_manifests(artifacts, tmp_path: Path) -> None:
    """Stage I: 6 N per token for the student, 2 N for the original; tuning: FLOPs per token, whatever the time."""
    encoder = shutil.copytree(artifacts.encoder, tmp_path / "encoder")
    stage_one = {"batch_size": 8, "replay": "pairs", "replay_weight": 1.0, "replay_per_image": 1}
    stage_one |= {"keep_weight": 1.0, "keep_class_weight": 0.0, "keep_pooled_weight": 0.0}
    written = {
        "encoder": ("distill-encoder", {"steps": 10}, {}, stage_one),
        "aligned": ("align", {"tokens": 0}, {"model_flops_per_second": 1.0, "tokens_per_second": 1.0}, {}),
    }
    weights = load_file(artifacts.encoder / "model.safetensors")
    images = sum(tensor.numel() for name, tensor in weights.items() if not name.startswith("text"))
    stage = 160 * (6 + 2) * images * 10
    tuning = {"model_flops_per_second": stage / 50, "tokens_per_second": 2.0}
    written["tuned"] = ("tune", {"tokens": 100}, tuning, {"steps": 100})
    for name, (step, metrics, cost, settings) in written.items():
        (tmp_path / name).mkdir(exist_ok=True)
        manifest = {"step": step, "metrics": metrics, "cost": cost, "settings": settings}
        (tmp_path / name / "priorkit.json").write_text(json.dumps(manifest))
    done = subprocess.run(
        [sys.executable, EXAMPLES / "tuning_length.py", tmp_path / "tuned", encoder, tmp_path / "aligned", "--by", "flops"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "--steps 200"
