"""The example scripts ask steps for settings that their recipes hold, and for options that exist."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import tomli

from priorkit import step_table
from priorkit.core.options import recipe
from priorkit.core.options.specs import option_specs

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.sh"))
WITH_RECIPE = [script for script in SCRIPTS if "make()" in script.read_text("utf-8")]

OF_OTHERS = {"--no-deps", "--dest", "--packages", "--asked", "--by"}
"""Options of pip and of scripts in examples/."""


def test_there_are_scripts() -> None:
    assert {script.stem for script in WITH_RECIPE} == {
        "pocket",
        "vispre",
        "lsbs",
        "lion",
        "diagnose",
        "claims",
        "real_weights",
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_shell_can_read_it(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", WITH_RECIPE, ids=lambda script: script.stem)
def test_every_step_that_takes_the_recipe_has_a_table_in_it(script: Path) -> None:
    text = script.read_text("utf-8")
    name = re.search(r"recipe=\$\{\w+:-([\w-]+)\}|--recipe ([\w-]+)", text)
    assert name is not None
    settings = tomli.loads(recipe.find(name[1] or name[2]).read_text("utf-8"))
    commands = re.findall(r"(?<![\w-])make ([a-z][a-z-]*)", re.sub(r"^#.*$", "", text, flags=re.MULTILINE))
    assert commands
    assert set(commands) <= set(settings)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_option_exists(script: Path) -> None:
    code = re.sub(r"^ *#.*$", "", script.read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    known = {
        spec.flag
        for step in step_table.STEPS
        for spec in option_specs(step_table.load(step).settings).values()
        if not spec.positional
    }
    known |= {f"--no-{flag[2:]}" for flag in known} | {"--recipe", "--help"} | OF_OTHERS
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)) <= known


PARALLEL = """set -euo pipefail
source {parallel}
work() {{ echo "start $1" >>{log}; sleep "$2"; [ "$1" != bad ]; echo "end $1" >>{log}; }}
run_in_parallel {commands}
"""


def in_parallel(folder: Path, *commands: str, processes: str = "2") -> tuple[int, list[str]]:
    """Exit code and what the commands wrote, in order."""
    log = folder / "log"
    script = PARALLEL.format(
        parallel=EXAMPLES / "parallel.sh", log=log, commands=" ".join(shlex.quote(word) for word in commands)
    )
    environment = {
        **os.environ,
        "PRIORKIT_PRELOADED": "stand-in",
        "PROCESSES": processes,
        "TMPDIR": str(folder),
    }
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert not list(folder.glob("tmp.*"))
    return done.returncode, log.read_text().split("\n")[:-1]


@pytest.mark.parametrize("processes", ["1", "2", "3"])
def test_commands_are_shared_out_to_processes(processes: str, tmp_path: Path) -> None:
    commands = [f'work "{name}" 0.2' for name in "abcdef"]
    code, lines = in_parallel(tmp_path, *commands, processes=processes)
    assert code == 0
    assert sorted(lines) == sorted(f"{what} {name}" for what in ("start", "end") for name in "abcdef")
    depth = [sum(1 if line.startswith("start") else -1 for line in lines[: n + 1]) for n in range(len(lines))]
    assert max(depth) == int(processes)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_command_that_fails_ends_the_script(processes: str, tmp_path: Path) -> None:
    code, lines = in_parallel(tmp_path, "work bad 0.1", "work long 0.5", "work never 5", processes=processes)
    assert code == 1
    assert "end bad" not in lines
    assert "end never" not in lines


def test_a_failure_in_the_background_starts_nothing_more(tmp_path: Path) -> None:
    """The first process knows the groups of the others, which know none."""
    either = "if ((${#groups[@]})); then work long 1; else work bad 0.1; fi"
    code, lines = in_parallel(tmp_path, either, either, "work never 5")
    assert code == 1
    assert sorted(lines) == ["end long", "start bad", "start long"]


@pytest.mark.parametrize("processes", ["0", "two"])
def test_a_number_of_processes_that_is_none(processes: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PRIORKIT_PRELOADED": "stand-in", "PROCESSES": processes}
    done = subprocess.run(
        ["bash", str(EXAMPLES / "pocket.sh")], env=environment, cwd=tmp_path,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, f"PROCESSES is a number from 1 up, got '{processes}'\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_goes_on_after_the_script_is_stopped(number: signal.Signals, tmp_path: Path) -> None:
    """A terminal's Ctrl-C reaches the script's process group, in which the second command is not."""
    log = tmp_path / "log"
    script = PARALLEL.format(
        parallel=EXAMPLES / "parallel.sh", log=log, commands="'work one 3' 'work two 3' 'work three 3'"
    )
    environment = {**os.environ, "PRIORKIT_PRELOADED": "stand-in", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(["bash", "-c", script], env=environment, start_new_session=True) as running:
        deadline = time.monotonic() + 30
        while not (log.exists() and log.read_text().count("start") == 2):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(running.pid, number)
        assert running.wait(timeout=30) != 0
    time.sleep(4)
    assert sorted(log.read_text().split("\n")[:-1]) == ["start one", "start two"]
