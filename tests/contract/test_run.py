"""Streams, exit codes, re-running, recipes: each by a real run of a step."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from priorkit.core import artifact

SHORT = ("--steps", 3, "--batch-size", 4, "--precision", "fp32", "--device", "cpu")


def snapshot(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(root.rglob("*"))}


def test_standard_output_carries_only_the_path(artifacts, shell, cli, tmp_path: Path) -> None:
    out = tmp_path / "llm"
    found = shell("pretrain", artifacts.corpus, "--preset", "pocket-tiny", *SHORT, "--out", out)
    assert found.code == 0, found.err
    assert found.out == f"{out}\n"
    quiet = cli(
        "pretrain",
        artifacts.corpus,
        "--preset",
        "pocket-tiny",
        *SHORT,
        "--out",
        tmp_path / "q",
        "--quiet",
        "--json",
    )
    assert quiet.err == ""
    manifest = json.loads(quiet.out)
    assert manifest["path"] == str(tmp_path / "q")
    assert manifest["kind"] == "llm"
    assert manifest["digest"] == artifact.open_artifact(out).digest
    assert manifest["metrics"]["steps"] == 3


def test_the_same_command_again_is_up_to_date_in_no_time(artifacts, shell, cli, tmp_path: Path) -> None:
    command = ("pretrain", artifacts.corpus, "--preset", "pocket-tiny", *SHORT, "--out", tmp_path / "llm")
    assert cli(*command).code == 0
    before = snapshot(tmp_path)
    begun = time.monotonic()
    again = shell(*command)
    assert (again.code, again.out) == (0, f"{tmp_path / 'llm'}\n")
    assert "up to date" in again.err
    assert time.monotonic() - begun < 5
    assert snapshot(tmp_path) == before
    other = cli(*command, "--learning-rate", "1e-4")
    assert other.code == 2
    assert "learning_rate is 0.0003, now 0.0001" in other.err
    assert snapshot(tmp_path) == before


def test_the_recipe_of_an_artifact_recreates_it(artifacts, cli, tmp_path: Path) -> None:
    found = cli("pretrain", "--recipe", artifacts.llm / "recipe.toml", "--out", tmp_path / "llm")
    assert found.code == 0, found.err
    assert artifact.open_artifact(found.path).digest == artifact.open_artifact(artifacts.llm).digest
    same = cli("diff", artifacts.llm, found.path)
    assert same.out == "no difference\n"


@pytest.mark.parametrize("name", ["world", "tokenizer", "corpus", "llm", "encoder", "mllm", "scores"])
def test_artifacts_can_be_inspected(name: str, artifacts, cli) -> None:
    path = getattr(artifacts, name)
    shown = cli("inspect", path)
    assert shown.code == 0
    assert f"{name} made by" in shown.out
    assert json.loads(cli("inspect", path, "--json").out)["kind"] == name
    assert cli("verify", path).code == 0
    assert "kind" in cli("diff", path, artifacts.world if name != "world" else artifacts.llm).out


def test_a_damaged_manifest_is_refused_everywhere(artifacts, cli, tmp_path: Path) -> None:
    copied = tmp_path / "corpus"
    shutil.copytree(artifacts.corpus, copied)
    path = copied / "priorkit.json"
    content = path.read_text()
    assert '"tokens": ' in content
    path.write_text(content.replace('"tokens": ', '"tokens": 1'))
    for command in (
        ("inspect", copied), ("inspect", copied, "--json"), ("verify", copied), ("diff", artifacts.corpus, copied),
        ("pretrain", copied, "--preset", "pocket-tiny", "--out", tmp_path / "llm"),
        ("pretrain", copied, "--preset", "pocket-tiny", "--out", tmp_path / "llm", "--check"),
        ("report", copied, "--out", tmp_path / "report"),
    ):  # fmt: skip
        found = cli(*command)
        assert (found.code, found.out) == (3, ""), found.err
        assert f"{path}: the manifest was changed or damaged" in found.err
    assert [item.name for item in tmp_path.iterdir()] == ["corpus"]


def test_artifacts_from_before_the_checksum_stay_in_use(artifacts, cli, tmp_path: Path) -> None:
    for name in ("corpus", "llm"):
        shutil.copytree(getattr(artifacts, name), tmp_path / name)
        path = tmp_path / name / "priorkit.json"
        manifest = json.loads(path.read_text())
        assert manifest.pop("manifest_sha256")
        path.write_text(json.dumps(manifest, indent=2) + "\n")
        found = cli("verify", tmp_path / name)
        assert found.code == 0
        assert "the manifest itself cannot be checked" in found.out
        assert f"{path} was written before manifests had a checksum" in found.err
        assert cli("diff", tmp_path / name, getattr(artifacts, name)).out == "no difference\n"
    recipe = tmp_path / "llm" / "recipe.toml"
    found = cli("pretrain", tmp_path / "corpus", "--recipe", recipe, "--out", tmp_path / "llm")
    assert (found.code, found.path) == (0, tmp_path / "llm")
    assert "up to date" in found.err


def test_files_added_to_an_artifact_are_named(artifacts, cli, tmp_path: Path) -> None:
    copied = tmp_path / "llm"
    shutil.copytree(artifacts.llm, copied)
    (copied / "merges.txt").write_text("")
    for command in (
        ("verify", copied),
        ("blind-tune", copied, artifacts.instructions, "--out", tmp_path / "x", "--check"),
    ):
        found = cli(*command)
        assert found.code == 0
        assert "1 file was added after the artifact was made and cannot be checked: merges.txt" in found.err


def test_command_line_over_recipe_over_default(artifacts, cli, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f"[tokenizer]\nvocab-size = 350\ntext_column = 'text'\n[tokenizer.sources]\nfacts = '{artifacts.facts}'\n"
    )
    one = cli("tokenizer", "--recipe", recipe, "--out", tmp_path / "one", "--json")
    assert one.code == 0, one.err
    settings = json.loads(one.out)["settings"]
    assert (settings["vocab_size"], settings["max_documents"]) == (350, 0)
    two = cli(
        "tokenizer",
        "--recipe",
        recipe,
        "--vocab-size",
        360,
        f"f={artifacts.facts}",
        "--out",
        tmp_path / "two",
        "--json",
    )
    settings = json.loads(two.out)["settings"]
    assert (settings["vocab_size"], list(settings["sources"])) == (360, ["f"])


def test_a_switch_of_a_recipe_can_be_turned_off(artifacts, cli, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text("[pretrain]\ncompile = true\npreset = 'pocket-tiny'\nsteps = 1\nbatch_size = 2\n")
    found = cli(
        "pretrain", artifacts.corpus, "--recipe", recipe, "--no-compile", "--out", tmp_path / "llm", "--json"
    )
    assert found.code == 0, found.err
    assert json.loads(found.out)["settings"]["compile"] is False


def test_errors_of_a_recipe_name_file_line_and_nearest(artifacts, cli, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text("[pretrain]\nlearning_rat = 1\n")
    found = cli("pretrain", artifacts.corpus, "--recipe", recipe, "--out", tmp_path / "x")
    assert found.code == 2
    assert f"{recipe}:2 [pretrain] learning_rat: unknown key" in found.err
    assert "did you mean 'learning_rate'" in found.err
    recipe.write_text("[pretrain]\nlearning-rate = -1\nfrom = 3\n")
    found = cli("pretrain", artifacts.corpus, "--recipe", recipe, "--steps", "x", "--out", tmp_path / "x")
    assert found.code == 2
    assert f"{recipe}:2 [pretrain] learning_rate: should be greater than 0, got -1" in found.err
    assert f"{recipe}:3 [pretrain] from" in found.err
    assert "--steps: should be a whole number such as 512, 20k, 1.5M or 2B, got 'x'" in found.err


def test_steps_compose_in_a_pipe(artifacts, tmp_path: Path) -> None:
    python = f"{sys.executable} -m priorkit"
    script = (
        f"{python} mix facts={artifacts.facts} --tokenizer {artifacts.tokenizer} --context-length 32 --out corpus | "
        f"{python} pretrain - --preset pocket-tiny --steps 1 --batch-size 2 --out llm"
    )
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "llm\n"


@pytest.mark.parametrize("form", ["{}\n", '{{"kind": "corpus", "path": "{}"}}'])
def test_a_pipe_carries_a_path_or_a_manifest(
    artifacts, cli, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(form.format(artifacts.corpus)))
    found = cli("pretrain", "-", "--preset", "pocket-tiny", "--out", tmp_path / "x", "--check", "--json")
    assert found.code == 0, found.err
    assert "rows of 32 tokens" in json.loads(found.out)["plan"]["corpus"]


def test_bad_standard_input_is_reported(shell, cli, tmp_path: Path) -> None:
    found = shell("pretrain", "-", "--preset", "pocket-tiny", "--out", tmp_path / "x", input="")
    assert found.code == 3
    assert "standard input is empty" in found.err
    found = shell("pretrain", "-", "--out", tmp_path / "x", input='{"kind": "corpus"}')
    assert found.code == 3
    assert "without a 'path'" in found.err
    assert shell("rank-e", "-", "-", "--out", tmp_path / "x", input="x").code == 2
    assert cli("pretrain", "", "--preset", "pocket-tiny", "--out", tmp_path / "x").code == 3


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = f"{sys.executable} -m priorkit recipe show pretrain | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


CHECKS = {
    "glyph-world": lambda artifacts: ("--strong", 24),
    "tokenizer": lambda artifacts: (f"facts={artifacts.facts}",),
    "mix": lambda artifacts: (f"facts={artifacts.facts}", "--tokenizer", artifacts.tokenizer),
    "pretrain": lambda artifacts: (artifacts.corpus, "--preset", "pocket-tiny"),
    "pretrain-encoder": lambda artifacts: (artifacts.pairs,),
    "distill-encoder": lambda artifacts: (artifacts.encoder, artifacts.images),
    "align": lambda artifacts: (artifacts.llm, artifacts.encoder, artifacts.captions),
    "tune": lambda artifacts: (artifacts.mllm, artifacts.instructions),
    "blind-tune": lambda artifacts: (artifacts.llm, artifacts.instructions),
    "rank-e": lambda artifacts: (artifacts.encoder, artifacts.images),
}


@pytest.mark.parametrize("step", CHECKS)
def test_check_plans_and_writes_nothing(step: str, artifacts, cli, tmp_path: Path) -> None:
    found = cli(step, *CHECKS[step](artifacts), "--out", tmp_path / "out", "--check")
    assert (found.code, found.out) == (0, ""), found.err
    assert "makes  " in " ".join(found.err.split(" ")) or "makes" in found.err
    assert list(tmp_path.iterdir()) == []
    plan = json.loads(
        cli(step, *CHECKS[step](artifacts), "--out", tmp_path / "out", "--check", "--json").out
    )["plan"]
    assert plan["step"] == step


def test_a_bug_shows_its_traceback(tmp_path: Path) -> None:
    code = (
        "import sys; from priorkit.core.step import Step; from priorkit.cli.main import main\n"
        "def run(self, *settings): raise ZeroDivisionError('a bug')\n"
        "Step.run = run\n"
        "sys.argv = ['priorkit', 'tokenizer', 'a=b', '--out', 'x']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: a bug" in done.stderr


@pytest.mark.parametrize(
    "error", ["MemoryError()", "RuntimeError('DefaultCPUAllocator: can\\'t allocate memory')"]
)
def test_out_of_memory_is_the_machines_fault(tmp_path: Path, error: str) -> None:
    code = (
        "import sys; from priorkit.core.step import Step; from priorkit.cli.main import main\n"
        f"def run(self, *settings): raise {error}\n"
        "Step.run = run\n"
        "sys.argv = ['priorkit', 'tokenizer', 'a=b', '--out', 'x']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 4
    assert "out of memory" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_device_is_the_machines_fault(artifacts, cli, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    found = cli(
        "pretrain", artifacts.corpus, "--preset", "pocket-tiny", "--device", "cuda", "--out", tmp_path / "x"
    )
    assert found.code == 4
    assert "--device cuda: no usable CUDA device" in found.err
    assert list(tmp_path.iterdir()) == []


def test_the_guard_stops_a_divergence(artifacts, cli, tmp_path: Path) -> None:
    found = cli(
        "pretrain", artifacts.corpus, "--preset", "pocket-tiny", *SHORT, "--learning-rate", "1e30", "--out", tmp_path / "x"
    )  # fmt: skip
    assert found.code == 5
    assert re.search(
        r"step 2: loss \S+; the first non-finite tensor is the (output|gradient|weight)", found.err
    )
    assert "samples " in found.err
    assert "lower --learning-rate" in found.err
    assert "the state before this step is kept" in found.err
    assert [path.name for path in (tmp_path / "x.partial" / "state").glob("step-*")] == ["step-00000001"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.partial"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_saves_a_checkpoint_and_resumes(
    artifacts, cli, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "llm"
    command = (
        "pretrain", artifacts.corpus, "--preset", "pocket-tiny", "--steps", 60, "--batch-size", 4,
        "--checkpoint-every", 1, "--precision", "fp32", "--device", "cpu", "--out", out,
    )  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "priorkit", *map(str, command)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    state = tmp_path / "llm.partial" / "state"
    deadline = time.monotonic() + 60
    while not list(state.glob("step-*[0-9]")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "the state is saved" in stderr
    assert "run the same command again" in stderr
    assert not out.exists()
    assert list(state.glob("step-*"))
    again = cli(*command)
    assert again.code == 0, again.err
    assert "resuming at step" in again.err
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 61))
    assert not (tmp_path / "llm.partial").exists()


def test_a_stop_before_training_leaves_nothing(artifacts, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from dataclasses import replace; from priorkit.steps import tokenizer\n"
        "from priorkit.cli.main import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it\n"
        "real = tokenizer.execute\n"
        "def execute(settings, work):\n"
        "    (work.path / 'half').write_text('half'); os.kill(os.getpid(), signal.SIGINT); real(settings, work)\n"
        "tokenizer.STEP = replace(tokenizer.STEP, execute=execute)\n"
        f"sys.argv = ['priorkit', 'tokenizer', 'a={artifacts.facts}', '--out', 'x']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 130
    assert "interrupted; nothing was half-written" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_same_settings_give_the_same_bytes(artifacts, cli, tmp_path: Path) -> None:
    for step in ("pretrain", "pretrain-encoder"):
        digests = set()
        for name in "ab":
            shape = (*CHECKS[step](artifacts)[:1], "--preset", "pocket-tiny", *SHORT)
            found = cli(step, *shape, "--out", tmp_path / (step + name))
            assert found.code == 0, found.err
            digests.add(artifact.open_artifact(found.path).digest)
        assert len(digests) == 1


def test_a_path_of_the_environment_does_not_matter(
    artifacts, cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(artifacts.world.parent)
    found = cli("verify", os.path.relpath(artifacts.world))
    assert found.code == 0


@pytest.mark.parametrize("step", ["pretrain-encoder", "align"])
def test_workers_do_not_change_the_result(step: str, artifacts, cli, tmp_path: Path) -> None:
    for name, workers in (("a", 0), ("b", 2)):
        shape = ("--preset", "pocket-tiny", "--vocab-size", 400) if step == "pretrain-encoder" else ()
        found = cli(
            step, *CHECKS[step](artifacts), *shape, *SHORT, "--workers", workers, "--out", tmp_path / name
        )
        assert found.code == 0, found.err
    assert artifact.open_artifact(tmp_path / "a").digest == artifact.open_artifact(tmp_path / "b").digest
