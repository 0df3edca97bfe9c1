"""Kinds of values: every option of every step, in every form that a recipe can give a value in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import tomli_w

from priorkit import step_table
from priorkit.core.errors import InputError, UsageError
from priorkit.core.options import recipe
from priorkit.core.options.settings import Settings, option
from priorkit.core.options.specs import OptionSpec, build, key_of, option_specs
from priorkit.core.options.value_kinds import place, shown
from priorkit.evaluation.presets.loading import read_preset

WRONG: dict[Any, tuple[Any, ...]] = {
    bool: (1, 0, 1.0, "true", "yes", "1"),
    int: (True, False),
    float: (True, False),
}
"""For each type of value, what pydantic would convert in silence."""


def written_forms(spec: OptionSpec, value: Any) -> list[Any]:
    """A wrong value in all places where a recipe can have it."""
    nested = [[value], {"name": value}, [["x", value]]] if spec.multiple else [[value]]
    return [value, *nested]


def read(step: str, key: str, value: Any, folder: Path) -> Any:
    """The settings of a recipe with one key."""
    path = folder / "r.toml"
    path.write_bytes(b"\xef\xbb\xbf" + tomli_w.dumps({step: {key: value}}).encode())
    model = step_table.load(step).settings
    values = recipe.step_values(path, model, step_table.STEPS)
    required = {
        spec.name: ["name=value"] if spec.multiple else "value"
        for spec in option_specs(model).values()
        if spec.required
    }
    return build(
        model,
        {**required, **values},
        lambda name: recipe.key_location(path, step, key_of(model, name)),
    )


def options(step: str) -> list[OptionSpec]:
    return list(option_specs(step_table.load(step).settings).values())


@pytest.mark.parametrize("step", step_table.STEPS)
def test_another_kind_is_refused_with_file_line_key_expected_and_got(step: str, tmp_path: Path) -> None:
    for spec in options(step):
        for value in WRONG.get(spec.value_type, ()):
            for form in written_forms(spec, value):
                with pytest.raises(UsageError) as caught:
                    read(step, spec.key, form, tmp_path)
                text = str(caught.value)
                assert "r.toml:" in text
                assert f"[{step}] {spec.key}: " in text
                assert "should be " in text
                assert f"got {shown(value)}" in text


@pytest.mark.parametrize("step", step_table.STEPS)
def test_a_table_or_a_nested_list_is_no_single_value(step: str, tmp_path: Path) -> None:
    for spec in options(step):
        values: list[Any] = [{"a": {"b": 1}}, [[["a"]]]]
        if not spec.multiple:
            values += [{"a": 1}, ["a"], [1], []]
        for value in values:
            with pytest.raises(UsageError, match=rf"\[{step}\] {spec.key}: "):
                read(step, spec.key, value, tmp_path)


@pytest.mark.parametrize("step", step_table.STEPS)
def test_a_single_value_serves_for_a_list(step: str, tmp_path: Path) -> None:
    examples = {int: 3, float: 0.5, str: "a"}
    for spec in options(step):
        if not isinstance(spec.default, tuple):
            continue
        value = spec.choices[0] if spec.choices else examples[spec.value_type]
        single, several = (read(step, spec.key, form, tmp_path) for form in (value, [value]))
        assert getattr(single, spec.name) == getattr(several, spec.name) == (value,), spec.name


class Toy(Settings):
    group: ClassVar[str] = "what to do"

    stage: Literal["1", "2", "all"] | None = option(None, "Stage.")
    rate: float = option(0.5, "Rate.")
    count: int = option(1, "Count.")
    words: tuple[str, ...] = option((), "Words.")


def test_text_is_a_number_and_a_number_the_choice_spelled_like_it() -> None:
    assert build(Toy, {"rate": "1e-3", "count": "7", "stage": 2}) == Toy(rate=1e-3, count=7, stage="2")
    for wrong in ({"stage": 3}, {"stage": True}, {"count": "seven"}, {"rate": ""}, {"words": [1]}):
        with pytest.raises(UsageError, match=r"should be .*, got "):
            build(Toy, wrong)


def test_the_place_within_an_option_is_named() -> None:
    assert place(()) == ""
    assert place(("facts",)) == "facts: "
    assert place((1,)) == "value 2: "
    with pytest.raises(UsageError, match=r"--words: value 2: should be a valid string, got true"):
        build(Toy, {"words": ["a", True]})


def test_two_tables_of_a_step_and_a_value_for_a_group(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[[mix]]\nseed = 1\n[[mix]]\nseed = 2\n")
    model = step_table.load("mix").settings
    with pytest.raises(UsageError, match=r"r\.toml:1: should be one table \[mix\], got a list"):
        recipe.step_values(path, model, step_table.STEPS)
    path.write_text("mix = 5\n")
    with pytest.raises(UsageError, match=r"r\.toml:1: should be one table \[mix\], got 5"):
        recipe.step_values(path, model, step_table.STEPS)
    path.write_text("[pretrain]\nruntime = 5\n")
    with pytest.raises(UsageError, match=r"r\.toml:2 \[pretrain\] runtime: should be a table, got 5"):
        recipe.step_values(path, step_table.load("pretrain").settings, step_table.STEPS)


def test_a_recipe_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes("[mix]\nseed = 1\n".encode("utf-16"))
    with pytest.raises(UsageError, match=r"not UTF-8 text"):
        recipe.read_toml(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version = true", "version: should be a valid integer, got true"),
        ("version = 1\n[data]\nitems = true", "data.items: should be a valid integer, got true"),
        (
            "version = 1\n[scoring]\nfull_score = true",
            "scoring.full_score: should be a valid number, got true",
        ),
        ("version = 1\n[scoring]\ncircular = 1", "scoring.circular: should be true or false, got 1"),
    ],
)
def test_the_same_in_a_benchmarks_file(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f'about = "a"\ntask = "vqa"\n{text}\n[columns]\nquestion = "q"\n')
    with pytest.raises(InputError, match=words):
        read_preset(path)
