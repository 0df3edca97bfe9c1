"""The help of the command line."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from priorkit import step_table
from priorkit.core.options import recipe
from priorkit.core.options.specs import option_specs

HEAVY = (
    "torch",
    "transformers",
    "tokenizers",
    "pandas",
    "scipy",
    "sklearn",
    "matplotlib",
    "pyarrow",
    "datasets",
    "PIL",
)

PROBE = """
import sys
from priorkit.cli.main import run
code = run(sys.argv[1:])
print("LOADED", [name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([step, "--help"] for step in step_table.STEPS)]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY), *arguments],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "LOADED []"
    assert done.stdout.strip()


def test_the_umbrella_lists_every_step_and_command(cli) -> None:
    text = cli("--help").out
    for name in (*step_table.STEPS, "recipe", "inspect", "verify", "diff", "push", "preload"):
        assert re.search(rf"^  {name} +\S", text, re.MULTILINE), name
    assert cli("-h").out == text


@pytest.mark.parametrize("step", step_table.STEPS)
def test_every_option_is_one_clear_sentence(step: str) -> None:
    model = step_table.load(step).settings
    for spec in option_specs(model).values():
        assert spec.help.endswith("."), f"{step} {spec.flag}: {spec.help!r}"
        assert "\n" not in spec.help


@pytest.mark.parametrize("step", step_table.STEPS)
def test_help_shows_every_option_and_both_examples(step: str, cli) -> None:
    model = step_table.load(step).settings
    text = cli(step, "--help-all").out
    assert text.startswith(f"Usage: priorkit {step} ")
    for spec in option_specs(model).values():
        assert (spec.metavar if spec.positional else spec.flag) in text
    for example in model.examples:
        assert example in text
    assert max(map(len, text[: text.index("Examples:")].splitlines())) <= 100


SHOWN = 25
"""How many options the help of a step may show."""


@pytest.mark.parametrize("step", step_table.STEPS)
def test_help_shows_the_main_options_and_how_to_get_the_rest(step: str, cli) -> None:
    specs = option_specs(step_table.load(step).settings).values()
    main = [spec for spec in specs if not spec.advanced]
    text = cli(step, "--help").out
    shown = set(re.findall(r"^  (--[\w-]+)", text, re.MULTILINE))
    assert shown == {spec.flag for spec in main if not spec.positional} | {"--recipe"}
    assert len(main) + 1 <= SHOWN
    assert not any(spec.required for spec in specs if spec.advanced)
    assert f"{len(specs) - len(main)} more options: priorkit {step} --help-all" in text
    assert "more options" not in cli(step, "--help-all").out


@pytest.mark.parametrize("step", step_table.STEPS)
def test_the_examples_use_options_that_exist(step: str) -> None:
    model = step_table.load(step).settings
    assert len(model.examples) == 2
    for example in model.examples:
        own = (
            example.split(" | ")[-1]
            if f"priorkit {step}" not in example.split(" | ")[0]
            else example.split(" | ")[0]
        )
        words = shlex.split(own)
        assert words[words.index("priorkit") + 1] == step
        known = {
            flag for spec in option_specs(model).values() for flag in (spec.flag, f"--no-{spec.flag[2:]}")
        }
        used = [word.split("=")[0] for word in words[words.index("priorkit") + 2 :] if word.startswith("--")]
        assert set(used) <= known | {"--recipe"}, example
        assert "--out" in used


FROZEN = Path(__file__).with_name("options.json")


def options_now() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for step in step_table.STEPS:
        model = step_table.load(step).settings
        specs = option_specs(model).values()
        found[step] = sorted(f"argument {spec.key}" if spec.positional else spec.flag for spec in specs)
    return found


def test_no_option_appears_or_vanishes_unnoticed() -> None:
    """Users' scripts rely on the names. A deliberate change goes into options.json with its reason."""
    now = options_now()
    frozen = json.loads(FROZEN.read_text(encoding="utf-8"))
    changes = [
        f"{step}: {sign} {name}"
        for step in sorted({*now, *frozen})
        for sign, ones, others in (("new", now, frozen), ("gone", frozen, now))
        for name in ones.get(step, [])
        if name not in others.get(step, [])
    ]
    assert not changes, "\n".join(
        [
            "the options differ from tests/contract/options.json:",
            *changes,
            "if that is meant, change the file too",
        ]
    )


def test_unknown_names_are_answered_with_the_nearest(cli) -> None:
    found = cli("pretrian")
    assert (found.code, found.out) == (2, "")
    assert "no step or command 'pretrian'" in found.err
    assert "did you mean 'pretrain'" in found.err
    found = cli("pretrain", "corpus", "--learning-rat", "1")
    assert found.code == 2
    assert "unknown option --learning-rat" in found.err
    assert "'--learning-rate'" in found.err
    assert cli().code == 2
    assert "Traceback" not in found.err


def test_a_value_may_begin_with_dashes(cli) -> None:
    found = cli("rank-e", "nowhere", "no", "--template", "--odd {}", "--out", "x")
    assert found.code == 3
    assert "unknown option" not in found.err


def test_recipe_commands(cli, tmp_path: Path) -> None:
    shown = cli("recipe", "show", "pretrain")
    assert shown.code == 0
    path = tmp_path / "r.toml"
    path.write_text(shown.out)
    checked = cli("recipe", "check", path)
    assert checked.code == 0, checked.err
    assert json.loads(cli("recipe", "schema", "mix").out)["additionalProperties"] is False
    path.write_text("[pretrain]\nlearning-rate = 'fast'\nsteps = 0\n[mixx]\n")
    wrong = cli("recipe", "check", path)
    assert wrong.code == 2
    assert f"{path}:2 [pretrain] learning_rate: should be a valid number, got 'fast'" in wrong.err
    assert f"{path}:3 [pretrain] steps" in wrong.err
    assert "did you mean 'mix'" in wrong.err
    assert cli("recipe", "schema", "mixx").code == 2
    assert cli("recipe", "show", "nothing").code == 3
    assert cli("recipe", "list").code == 0


FILES = [name for name, path in recipe.shipped().items() if isinstance(path, Path)]
GENERATED = [name for name in recipe.shipped() if name not in FILES]


@pytest.mark.parametrize("name", [*FILES, *GENERATED[::8]])
def test_every_shipped_recipe_is_valid(name: str, cli) -> None:
    found = cli("recipe", "check", name)
    assert found.code == 0, found.err
