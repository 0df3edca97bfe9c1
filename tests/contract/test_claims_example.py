"""``examples/claims.sh``: every claim gets the arms it names, recorded by a fake command line."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

from priorkit.analysis.claims.arms import not_begun
from priorkit.analysis.claims.reading import Claim, read_claims
from priorkit.core.options import recipe

EXAMPLES = Path(__file__).parents[2] / "examples"
CLAIMS = {claim.id: claim for claim in read_claims(recipe.find("claims"))}

STAND_IN = """#!{python}
import json, pathlib, sys
words = sys.argv[1:]
out = words[words.index("--out") + 1]
with open({log!r}, "a") as stream:
    stream.write(json.dumps(words) + "\\n")
pathlib.Path(out).mkdir(parents=True, exist_ok=True)
print(out)
"""

PYTHON = """#!/bin/sh
case "$1" in
  *naming_instructions.py) : >"$3" ;;
  *scarce_images.py) mkdir "$3" ;;
  *) exec {python} "$@" ;;
esac
"""


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def commands(folder: Path, **given: str) -> tuple[int, str, dict[str, list[str]]]:
    """Exit code, messages, and the command lines of a run by the name of what they make."""
    (folder / "bin").mkdir()
    log = folder / "log"
    log.touch()
    executable(folder / "bin" / "priorkit", STAND_IN.format(python=sys.executable, log=str(log)))
    executable(folder / "bin" / "python", PYTHON.format(python=shlex.quote(sys.executable)))
    done = subprocess.run(
        ["bash", str(EXAMPLES / "claims.sh"), str(folder / "home")],
        env={
            **os.environ,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PRIORKIT_PRELOADED": "stand-in",
            **given,
        },
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return (
        done.returncode,
        done.stderr,
        {str(Path(words[words.index("--out") + 1]).relative_to(folder / "home")): words for words in lines},
    )


def labels(found: dict[str, list[str]]) -> dict[str, set[str]]:
    """The seeds of each label that the report gets; none for one that serves for all."""
    result: dict[str, set[str]] = {}
    for word in found["report"][1:]:
        if word.startswith("--"):
            break
        label, _, path = word.partition("=")
        assert Path(path).is_dir(), word
        name, _, seed = label.partition("@")
        result.setdefault(name, set()).update({seed} - {""})
    return result


def value(words: list[str], flag: str) -> str | None:
    return words[words.index(flag) + 1] if flag in words else None


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.id)
def test_a_claim_by_itself_gets_all_its_artifacts(claim: Claim, tmp_path: Path) -> None:
    code, messages, found = commands(tmp_path, CLAIMS=claim.id, SEEDS="4 5 6")
    assert code == 0, messages
    given = labels(found)
    assert set(claim.labels()) <= set(given)
    for other in CLAIMS.values():  # none is begun and lacks artifacts, which the report would refuse
        begun = not not_begun(other, list(CLAIMS.values()), {label: {} for label in given})
        assert not begun or set(other.labels()) <= set(given), other.id
    shared = {"ranks", "base"}
    assert all(given[label] == {"4", "5", "6"} for label in claim.labels() if label not in shared)


@pytest.fixture(scope="module")
def every_claim(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    code, messages, found = commands(tmp_path_factory.mktemp("claims"))
    assert code == 0, messages
    return found


def test_arms_that_are_compared_differ_in_one_thing(every_claim: dict[str, list[str]]) -> None:
    found = every_claim
    baseline, aggregator = found["lion-baseline-1"], found["lion-aggregator-1"]
    assert (value(baseline, "--recipe"), value(aggregator, "--recipe")) == (
        "lion/baseline",
        "lion/aggregator",
    )
    assert value(baseline, "--queries") == "40"
    assert value(aggregator, "--queries") is None
    for name in ("--steps", "--batch-size", "--subset", "--seed"):
        assert value(baseline, name) == value(aggregator, name) is not None
    stages = [
        int(value(found[f"lion-{name}-2"], "--steps") or 0) for name in ("stage1", "stage2", "three-stages")
    ]
    assert sum(stages) == int(value(found["lion-one-stage-2"], "--steps") or 0)
    controls = {
        name: found[f"first-{name}-3"]
        for name in ("blind-tuned", "text-tuned", "tuned-twice", "shuffled-tuned")
    }
    assert [value(words, "--control") for words in controls.values()] == [
        "none",
        "text",
        "sighted",
        "shuffled",
    ]
    assert len({(words[1], value(words, "--steps")) for words in controls.values()}) == 1
    table = tomli.loads((EXAMPLES.parent / "recipes" / "pocket.toml").read_text(encoding="utf-8"))
    shorter, longer = (
        int(value(found[f"tuned-{name}-1"], "--steps") or 0) for name in ("remediated", "tuned-longer")
    )
    distillation = table["distill-encoder"]["optimisation"]
    images = distillation["steps"] * distillation["batch_size"]
    patches, words, encoder, llm = 577, 100, 0.3, 7.0  # tokens and billions of parameters, as VisPRE's models
    per_image = 2 * 6 * encoder * patches / (6 * llm * (patches - 1 + words) + 2 * encoder * patches)
    assert longer - shorter == pytest.approx(images * per_image / 16, rel=0.02)
    weights = {
        name: value(found[f"corpus-{name}"], "--weight")
        for name in ("plain-text", "reasoning-text", "visual-0")
    }
    assert weights == {
        "plain-text": "visual=0.2,facts=0.2,arithmetic=0,logic=0,code=0,python-source=0.3,python-docs=0.3",
        "reasoning-text": "visual=0.2,facts=0.2,arithmetic=0.2,logic=0.2,code=0.2,python-source=0,python-docs=0",
        "visual-0": "visual=0,facts=0.2,arithmetic=0,logic=0,code=0,python-source=0.4,python-docs=0.4",
    }


def test_nothing_is_made_twice(every_claim: dict[str, list[str]], tmp_path: Path) -> None:
    assert len(every_claim) == len({" ".join(words) for words in every_claim.values()})


def test_real_models_and_data_are_taken_instead_of_the_world(tmp_path: Path) -> None:
    code, messages, found = commands(
        tmp_path,
        SCALE="real",
        DATA="birds",
        LLM="an/llm",
        ENCODER="an/encoder",
        CLAIMS="V1 L1",
        RECIPE="own.toml",
    )
    assert code == 0, messages
    assert not {"world", "llm", "encoder"} & set(found)
    assert found["aligned-base-1"][1:4] == ["an/llm", "an/encoder", "birds/captions/train.parquet"]
    assert value(found["aligned-base-1"], "--recipe") == "own.toml"


@pytest.mark.parametrize(
    ("scale", "words"), [("large", "SCALE is 'world' or 'real'"), ("real", "laid out as a glyph world")]
)
def test_a_wrong_scale_is_refused(scale: str, words: str, tmp_path: Path) -> None:
    code, messages, found = commands(tmp_path, SCALE=scale)
    assert code != 0
    assert words in messages
    assert not found
