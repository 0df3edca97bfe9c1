from __future__ import annotations

from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from priorkit.core.errors import Problems, UsageError
from priorkit.core.options.settings import (
    RuntimeSettings,
    Settings,
    StepSettings,
    argument,
    option,
    redefault,
)
from priorkit.core.options.specs import (
    build,
    changed,
    flag_of,
    input_values,
    key_of,
    option_specs,
    refuse_changed,
    result_settings,
)
from priorkit.core.options.values import Count, Counts, Named, NamedNumbers, Numbers, Words, parse_count


class Group(Settings):
    group: ClassVar[str] = "pace"

    rate: float = option(0.5, "How fast, in steps per second.", gt=0, le=2)
    verbose: bool = option(True, "Say more.", changes_result=False)


class Toy(Group, StepSettings):
    step: ClassVar[str] = "toy"
    kind: ClassVar[str] = "toy"
    examples: ClassVar[tuple[str, str]] = ("", "")

    source: str = argument("Where from.", accepts=("toy",))
    parts: Named = option({}, "Parts by name.", accepts=("toy",))
    models: tuple[str, ...] = option((), "Models.", accepts=("llm",), hub="model")
    mode: Literal["fast", "slow"] = option("fast", "Which way.")
    length: Count | None = option(None, "How long.", metavar="N", ge=1)
    words: Words = option((), "Words.")
    numbers: Numbers = option((), "Numbers.")
    counts: Counts = option((), "Counts.")
    weight: NamedNumbers = option({}, "Weights.")
    from_toy: str | None = option(None, "Go on from.", flag="--from")
    rate: float = redefault(Group, "rate", 1.5)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("50B", 50 * 10**9),
        ("1.5M", 1_500_000),
        ("2k", 2000),
        ("2K", 2000),
        ("3G", 3 * 10**9),
        ("1T", 10**12),
        ("1.1B", 1_100_000_000),
        ("0.000001M", 1),
        (" 7 ", 7),
        ("1e7", 10_000_000),
        ("1.5E+3k", 1_500_000),
        ("10_000", 10_000),
        (12, 12),
    ],
)
def test_counts_are_exact(text: object, count: int) -> None:
    assert parse_count(text) == count


@given(st.integers(0, 10**18))
def test_any_integer_is_itself(number: int) -> None:
    assert parse_count(str(number)) == number


@pytest.mark.parametrize(
    "text", ["1.5", "0.0001k", "5X", "B", "", "-3", "1e", "1e-3", "1e999999999", "1 000"]
)
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--length: should be a whole number"):
        build(Toy, {"source": "s", "length": text})


def test_numbers_from_a_recipe_may_be_written_as_floats() -> None:
    assert build(Toy, {"source": "s", "length": 1e6}).length == 1_000_000


def test_lists_and_names_are_understood() -> None:
    made = build(
        Toy,
        {
            "source": "s",
            "words": ["a,b", "c"],
            "numbers": "1,2.5",
            "counts": ["1k", "2"],
            "weight": ["x=1", "y=2.5,z=0"],
            "parts": ["p=dir/a=b", "q = c"],
        },
    )
    assert made.words == ("a", "b", "c")
    assert made.numbers == (1.0, 2.5)
    assert made.counts == (1000, 2)
    assert made.weight == {"x": 1.0, "y": 2.5, "z": 0.0}
    assert made.parts == {"p": "dir/a=b", "q": "c"}


@pytest.mark.parametrize("items", [["a"], ["=b"], ["a="], ["a=1", "a=2"]])
def test_names_without_value_or_twice_are_refused(items: list[str]) -> None:
    with pytest.raises(UsageError, match="--parts"):
        build(Toy, {"source": "s", "parts": items})


def test_all_problems_come_at_once_with_option_value_and_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        build(Toy, {"mode": "fats", "rate": 9, "lenght": 3, "verbose": "perhaps"})
    text = str(caught.value)
    assert "SOURCE is missing (where from)" in text
    assert "--mode: should be 'fast' or 'slow', got 'fats' (did you mean 'fast'?)" in text
    assert "--rate: should be less than or equal to 2, got 9" in text
    assert "unknown key 'lenght'" in text
    assert "did you mean 'length'" in text
    assert "--verbose" in text
    assert len(caught.value.problems) == 5


def test_non_finite_numbers_are_refused() -> None:
    with pytest.raises(UsageError, match="finite"):
        build(Toy, {"source": "s", "rate": "nan"})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        build(Toy, {"source": "s"}).rate = 1.0  # pyright: ignore[reportAttributeAccessIssue]


def test_one_declaration_gives_flag_key_help_group_and_default() -> None:
    specs = option_specs(Toy)
    assert specs["from_toy"].flag == "--from"
    assert flag_of(Toy, "from_toy") == "--from"
    assert key_of(Toy, "from_toy") == "from"
    assert key_of(Toy, "json_output") == "json"
    assert key_of(Toy, "nothing") == "nothing"
    assert specs["source"].positional
    assert specs["source"].required
    assert specs["source"].group == "inputs"
    assert specs["rate"].help == "How fast, in steps per second."
    assert specs["rate"].group == "pace"
    assert specs["mode"].choices == ("fast", "slow")
    assert specs["mode"].metavar == "fast|slow"
    assert specs["verbose"].is_flag
    assert specs["models"].multiple
    assert specs["models"].hub == "model"
    groups = [spec.group for spec in specs.values()]
    assert groups[0] == "inputs"
    assert groups[-1] == "output"
    assert len(set(groups)) == sum(a != b for a, b in zip(groups, [*groups[1:], ""], strict=True))


def test_another_default_keeps_help_and_checks() -> None:
    assert option_specs(Toy)["rate"].default == 1.5
    assert option_specs(Group)["rate"].default == 0.5
    assert build(Toy, {"source": "s"}).rate == 1.5
    for wrong in (0, 2.5):
        with pytest.raises(UsageError, match="--rate"):
            build(Toy, {"source": "s", "rate": wrong})


def test_the_seed_fits_every_generator() -> None:
    assert build(RuntimeSettings, {"seed": 2**32 - 1}).seed == 2**32 - 1
    for wrong in (-1, 2**32):
        with pytest.raises(UsageError, match="--seed"):
            build(RuntimeSettings, {"seed": wrong})


def test_results_depend_on_neither_talk_nor_paths() -> None:
    plain = result_settings(build(Toy, {"source": "a"}))
    other = result_settings(
        build(
            Toy, {"source": "b", "verbose": False, "out": "o", "quiet": True, "force": True, "parts": ["p=x"]}
        )
    )
    assert plain == other
    assert result_settings(build(Toy, {"source": "a", "mode": "slow"})) != plain


def test_inputs_are_listed_by_label() -> None:
    made = build(Toy, {"source": "s", "parts": ["p=x", "q=y"], "models": ["m", "n"]})
    assert [(label, value) for _, label, value in input_values(made)] == [
        ("source", "s"),
        ("parts.p", "x"),
        ("parts.q", "y"),
        ("models.0", "m"),
        ("models.1", "n"),
    ]


def test_options_that_would_have_no_effect_are_refused() -> None:
    class Toy(Settings):
        group: ClassVar[str] = "what to do"
        learning_rate: float = option(0.1, "Step size.")
        labels: tuple[str, ...] = option((), "Labels.")

    problems = Problems(UsageError)
    refuse_changed(Toy(), ("learning_rate", "labels"), problems, "nothing is trained")
    assert len(problems) == 0
    assert changed(Toy(labels=("a",)), ("learning_rate", "labels")) == ["labels"]
    refuse_changed(Toy(learning_rate=1), ("learning_rate",), problems, "nothing is trained", "leave it out")
    with pytest.raises(UsageError, match="--learning-rate: nothing is trained\n  -> leave it out"):
        problems.raise_if_any()
