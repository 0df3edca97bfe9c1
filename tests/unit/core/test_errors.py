from __future__ import annotations

import pytest

from priorkit.core.errors import (
    GuardError,
    InputError,
    Interrupted,
    PriorkitError,
    Problem,
    Problems,
    ResourceError,
    UsageError,
    library_reads,
    nearest,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError, 2), (InputError, 3), (ResourceError, 4), (GuardError, 5), (Interrupted, 130)],
)
def test_each_class_has_the_exit_code_of_the_contract(error: type[PriorkitError], code: int) -> None:
    assert error.exit_code == code


def test_a_problem_names_where_what_and_what_to_do() -> None:
    assert Problem("is wrong").lines() == ["is wrong"]
    assert Problem("is wrong", "a.toml:3").lines() == ["a.toml:3: is wrong"]
    assert Problem("is wrong", "a.toml:3", "mend it").lines() == ["a.toml:3: is wrong", "  -> mend it"]


def test_problems_are_reported_together_and_in_order() -> None:
    problems = Problems(InputError)
    problems.raise_if_any()
    problems.add("first", where="a")
    problems.extend(InputError("second", hint="go on"))
    assert len(problems) == 2
    with pytest.raises(InputError) as caught:
        problems.raise_if_any()
    assert str(caught.value) == "a: first\nsecond\n  -> go on"


def test_nearest_names_close_spellings_else_all() -> None:
    assert nearest("learning_rat", ["learning_rate", "steps"]) == "did you mean 'learning_rate'?"
    assert nearest("xyz", ["a", "b", "a"]) == "valid: a, b"
    assert nearest("xyz", ["a", "b"], only_close=True) == ""
    assert nearest("xyz", []) == "nothing is valid here"
    assert nearest("xyz", [str(n) for n in range(13)]).endswith(", ...")


def test_an_error_at_a_place() -> None:
    error = InputError([Problem("no column", hint="add it"), Problem("empty", "row 3")]).at("a.parquet")
    assert isinstance(error, InputError)
    assert error.problems == (
        Problem("no column", "a.parquet", "add it"),
        Problem("empty", "a.parquet: row 3"),
    )
    assert error.what == "no column; empty"


def test_errors_of_the_kind_are_collected_and_others_pass() -> None:
    problems = Problems(InputError)
    with problems.collecting():
        raise InputError("one")
    with problems.collecting("b.json"):
        raise InputError("two")
    with pytest.raises(UsageError), problems.collecting():
        raise UsageError("three")
    with pytest.raises(InputError, match=r"one\nb\.json: two"):
        problems.raise_if_any()


class PanicException(BaseException):
    """As Rust's libraries raise it."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a  wrong\nvalue"),
        TypeError(),
        KeyError("vocab"),
        RecursionError("deep"),
        PanicException("panic"),
    ],
)
def test_what_a_library_raises_on_a_file_is_the_files_fault(error: BaseException) -> None:
    with (
        pytest.raises(InputError, match="the model cannot be loaded: ") as caught,
        library_reads("the model cannot be loaded", "folder"),
    ):
        raise error
    assert caught.value.problems[0].where == "folder"
    assert "\n" not in caught.value.what


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        KeyboardInterrupt(),
        SystemExit(1),
        UsageError("ours"),
        RuntimeError("can't allocate memory"),
    ],
)
def test_what_is_not_the_files_fault_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, library_reads("the model cannot be loaded", "folder"):
        raise error
    assert caught.value is error
