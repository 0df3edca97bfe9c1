from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit import step_table
from priorkit.core.errors import InputError, UsageError
from priorkit.core.options import recipe
from priorkit.core.options.settings import Settings, StepSettings, argument, option
from priorkit.core.options.specs import build
from priorkit.core.options.values import Named, NamedNumbers

STEPS = ("toy", "other")


class Pace(Settings):
    group: ClassVar[str] = "pace of work"

    rate: float = option(0.5, "How fast.", gt=0)
    max_steps: int = option(3, "How long.")


class Toy(Pace, StepSettings):
    step: ClassVar[str] = "toy"
    kind: ClassVar[str] = "toy"
    examples: ClassVar[tuple[str, str]] = ("", "")

    source: str = argument("Where from.", accepts=("toy",))
    parts: Named = option({}, "Parts.", accepts=("toy",))
    models: tuple[str, ...] = option((), "Models.", accepts=("toy",))
    weight: NamedNumbers = option({}, "Weights.")
    title: str = option("", "A title.")
    words: tuple[str, ...] = option((), "Words.")
    from_toy: str | None = option(None, "Go on from.", flag="--from")
    deep: bool = option(False, "Go deep.")


def write(folder: Path, text: str) -> Path:
    path = folder / "r.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_step_reads_its_table_with_sub_tables(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "[other]\nx = 1\n[toy]\nsource = 'a'\nfrom = 'b'\nmax-steps = 5\n[toy.pace_of_work]\nrate = 2.0\n",
    )
    assert recipe.step_values(path, Toy, STEPS) == {
        "source": "a",
        "from_toy": "b",
        "max_steps": 5,
        "rate": 2.0,
    }


def test_unknown_keys_name_file_line_and_nearest_all_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "top = 1\n[toy]\ntitel = 'x'\n[toy.pace_of_work]\nrat = 1\n[tooy]\n")
    with pytest.raises(UsageError) as caught:
        recipe.step_values(path, Toy, STEPS)
    text = str(caught.value)
    assert f"{path}:1: the key 'top' is outside a step's table" in text
    assert f"{path}:3 [toy] titel: unknown key 'titel'" in text
    assert "did you mean 'title'?" in text
    assert f"{path}:5 [toy] rat: unknown key 'rat'" in text
    assert "did you mean 'rate'?" in text
    assert "unknown step 'tooy'" in text


def test_a_key_given_twice_in_two_spellings_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "[toy]\nmax_steps = 1\n[toy.pace_of_work]\nmax-steps = 2\n")
    with pytest.raises(UsageError, match="given twice"):
        recipe.step_values(path, Toy, STEPS)


@pytest.mark.parametrize("spelling", ["max_steps", "max-steps", '"max_steps"'])
def test_the_line_of_a_key_is_found_in_either_spelling(tmp_path: Path, spelling: str) -> None:
    path = write(tmp_path, f"[toy]\n\n{spelling} = 'x'\n")
    assert recipe.key_location(path, "toy", "max_steps") == f"{path}:3 [toy] max_steps"


def test_a_missing_table_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \[toy\] table; the file has \[other\]"):
        recipe.step_values(write(tmp_path, "[other]\nx = 1\n"), Toy, STEPS)
    with pytest.raises(UsageError, match="no table at all"):
        recipe.step_values(write(tmp_path, ""), Toy, STEPS)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, "[toy]\nx = \n")
    with pytest.raises(UsageError, match="line 2"):
        recipe.read_toml(path)
    with pytest.raises(InputError) as caught:
        recipe.read_toml(tmp_path / "rr.toml")
    assert "did you mean 'r.toml'?" in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        recipe.read_toml(tmp_path)


printable = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(deadline=None)
@given(title=printable, words=st.lists(printable, max_size=3), weights=st.dictionaries(
    printable.filter(lambda s: s.strip() == s != "" and "=" not in s and "," not in s),
    st.floats(0, 1e12), max_size=3), rate=st.floats(1e-12, 1e12), deep=st.booleans(),
    start=st.none() | printable)  # fmt: skip
def test_what_is_rendered_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    title: str,
    words: list[str],
    weights: dict[str, float],
    rate: float,
    deep: bool,
    start: str | None,
) -> None:
    made = build(
        Toy,
        {"source": "s", "title": title, "words": words, "weight": weights, "rate": rate, "deep": deep, "from_toy": start},
    )  # fmt: skip
    path = write(tmp_path_factory.getbasetemp(), recipe.render(made))
    assert build(Toy, recipe.step_values(path, Toy, STEPS)) == made


def test_inputs_are_rendered_by_label(tmp_path: Path) -> None:
    made = build(Toy, {"source": "s", "parts": ["a.b=x"], "models": ["m", "n"], "out": "o", "quiet": True})
    text = recipe.render(made, {"source": "/s", "parts.a.b": "/x", "models.1": "/n"})
    values = recipe.step_values(write(tmp_path, text), Toy, STEPS)
    assert values["source"] == "/s"
    assert values["parts"] == {"a.b": "/x"}
    assert values["models"] == ["m", "/n"]
    assert "out" not in values
    assert "quiet" not in values


@pytest.mark.parametrize("step", step_table.STEPS)
def test_the_template_of_every_step_parses_and_holds_its_defaults(step: str, tmp_path: Path) -> None:
    model = step_table.load(step).settings
    text = recipe.template(model)
    tomli.loads(text)
    values = recipe.step_values(write(tmp_path, text), model, step_table.STEPS)
    for name, value in values.items():
        default = model.model_fields[name].get_default(call_default_factory=True)
        assert json.loads(json.dumps(value)) == json.loads(json.dumps(default)), name


@pytest.mark.parametrize("step", step_table.STEPS)
def test_the_schema_of_every_step_forbids_unknown_keys(step: str) -> None:
    model = step_table.load(step).settings
    schema = recipe.settings_schema(model)
    assert schema["additionalProperties"] is False
    assert all(content["description"] for content in schema["properties"].values())
