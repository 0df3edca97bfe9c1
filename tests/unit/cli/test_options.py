from __future__ import annotations

import io
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from priorkit import step_table
from priorkit.cli.options import read_settings, render_help, step_command
from priorkit.core.errors import InputError, UsageError
from priorkit.core.options.settings import StepSettings, argument, option
from priorkit.core.options.values import Named


class Toy(StepSettings):
    step: ClassVar[str] = "mix"
    kind: ClassVar[str] = "toy"
    examples: ClassVar[tuple[str, str]] = ("priorkit mix a", "priorkit mix b")

    sources: Named = argument("Where from.", accepts=("toy",))
    models: tuple[str, ...] = option(("m",), "Which models.", accepts=("llm",))
    mode: Literal["fast", "slow"] = option("fast", "Which way.")
    deep: bool = option(False, "Go deep.")
    wide: bool = option(True, "Go wide.")
    note: str | None = option(None, "A note.")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"models": None}, ("r",)),
        ({"models": []}, ("r",)),
        ({"models": ()}, ("r",)),
        ({"models": ["c", "d"]}, ("c", "d")),
    ],
)
def test_lists_of_the_command_line_replace_those_of_the_recipe(
    tmp_path: Path, given: dict[str, object], expected: tuple[str, ...]
) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[mix]\nmodels = ['r']\n[mix.sources]\na = 'b'\n")
    assert read_settings(Toy, {"recipe": str(path), **given}).model_dump()["models"] == expected


@pytest.mark.parametrize(
    "text", ["up/stream\n", "noise\nup/stream\n", '{"path": "up/stream", "kind": "x"}\n']
)
def test_a_dash_is_the_path_of_the_step_before(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    made = read_settings(Toy, {"sources": ["a=-", "b=x"]})
    assert made.model_dump()["sources"] == {"a": "up/stream", "b": "x"}


@pytest.mark.parametrize("text", ["", "\n", "{", '{"kind": 1}', "{}"])
def test_a_dash_without_a_path_is_reported(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    with pytest.raises(InputError, match="standard input"):
        read_settings(Toy, {"sources": ["a=-"]})


def test_two_dashes_are_one_too_many() -> None:
    with pytest.raises(UsageError, match="only one input can be '-'"):
        read_settings(Toy, {"sources": ["a=-"], "note": "-"})


def test_help_is_derived_from_the_settings() -> None:
    text = render_help(Toy, "Mix things.\n\nMore of it.", "priorkit mix")
    assert text.startswith(
        "Usage: priorkit mix NAME=VALUE... --out DIR [options]\n\nMix things.\n\nMore of it.\n"
    )
    assert "--mode fast|slow" in text
    assert "Which way. [default: fast]" in text
    assert "--deep/--no-deep" in text
    assert "--wide/--no-wide" in text
    assert "--force/" not in text
    assert "[default: on]" in text
    assert text.rstrip().endswith("priorkit mix a\n  priorkit mix b")
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Inputs:", "What to do:", "Output:", "Examples:"]


@pytest.mark.parametrize(
    ("words", "deep", "wide"), [((), False, True), (("--deep", "--no-wide"), True, False)]
)
def test_switches_have_both_spellings(words: tuple[str, ...], deep: bool, wide: bool) -> None:
    seen: list[Toy] = []
    command = step_command(Toy, seen.append, "Mix.")
    command.main(args=["a=b", *words], standalone_mode=False)
    assert (seen[0].deep, seen[0].wide) == (deep, wide)


def test_every_step_of_the_table_is_there() -> None:
    for name in step_table.STEPS:
        step = step_table.load(name)
        assert step.name == step.settings.step == name
        summary = step_table.summary(name)
        assert summary
        assert len(summary) < 120


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("priorkit pretr", "pretrain"),
        ("priorkit recipe ", "show"),
        ("priorkit pretrain --schedule ", "cosine"),
    ],
)
def test_the_shell_completes_steps_and_choices(
    line: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from priorkit.cli.main import run

    monkeypatch.setenv("_PRIORKIT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    with pytest.raises(SystemExit):
        run([])
    assert expected in capsys.readouterr().out.split()
