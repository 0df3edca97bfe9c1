from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import priorkit as pk
from priorkit.api.errors import parameter_names
from priorkit.api.steps import parameters
from priorkit.step_table import STEPS, load
from tests.support.step_stub import STUB, formatted, render


def test_a_step_is_a_function_of_its_options(artifacts, tmp_path: Path) -> None:
    made = pk.steps.mix(
        {"facts": artifacts.facts},
        tokenizer=artifacts.tokenizer,
        tokens=2000,
        held_out=0.1,
        out=tmp_path / "corpus",
    )
    assert made.path == tmp_path / "corpus"
    assert made.kind == "corpus"
    assert made.metrics == made.manifest.metrics
    again = pk.steps.mix(sources={"facts": artifacts.facts}, tokenizer=str(artifacts.tokenizer), tokens="2k", held_out=0.1,
                         out=made)  # fmt: skip
    assert again.digest == made.digest


def test_a_repeated_option_takes_one_value_or_several(artifacts, tmp_path: Path) -> None:
    one = pk.steps.rank_e(artifacts.encoder, artifacts.images, template="a {}", out=tmp_path / "one")
    two = pk.steps.rank_e(artifacts.encoder, images=artifacts.images, template=["a {}"], out=tmp_path / "two")
    assert one.digest == two.digest
    table = one.table()
    assert {"entity", "mean_rank"} <= set(table.columns)
    assert len(one.table("images")) == table["images"].sum()
    with pytest.raises(pk.InputError, match="no table 'imagse'"):
        one.table("imagse")


def test_a_plan_without_a_run(artifacts, tmp_path: Path) -> None:
    plan = pk.check("rank-e", artifacts.encoder, artifacts.images, out=tmp_path / "out")
    assert plan["step"] == "rank-e"
    assert list(tmp_path.iterdir()) == []


def test_errors_name_parameters(artifacts, tmp_path: Path) -> None:
    def message(call: Any, *arguments: Any, **options: Any) -> str:
        with pytest.raises(pk.Error) as error:
            call(*arguments, **options)
        assert "--" not in str(error.value)
        return str(error.value)

    assert message(pk.steps.rank_e, artifacts.encoder, artifacts.images).startswith("out is missing")
    assert "rank_e" in message(pk.steps.rank_e, artifacts.encoder, artifacts.images)
    assert "encoder is missing" in message(pk.steps.rank_e, out=tmp_path / "x")
    text = message(
        pk.steps.rank_e, artifacts.encoder, artifacts.images, template="a photo", out=tmp_path / "x"
    )
    assert text == "template: a template needs {} where the name goes"
    text = message(pk.steps.rank_e, artifacts.encoder, artifacts.images, bach_size=3, out=tmp_path / "x")
    assert "unknown key 'bach_size'" in text
    assert "did you mean 'batch_size'" in text
    assert message(pk.steps.mix, {"a": "none.txt"}, tokenizer=artifacts.tokenizer, out="x").startswith(
        "sources: "
    )


def test_wrong_calls() -> None:
    with pytest.raises(TypeError, match="2 positional arguments but 3"):
        pk.steps.rank_e("a", "b", "c")  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="multiple values for argument 'encoder'"):
        pk.steps.rank_e("a", encoder="b")  # pyright: ignore[reportCallIssue]
    with pytest.raises(AttributeError, match="there is no step 'mixx'"):
        pk.steps.mixx  # noqa: B018


def test_options_in_a_text_become_parameters() -> None:
    rename = parameter_names(load("pretrain").settings)
    assert rename("--learning-rate: too large") == "learning_rate: too large"
    assert rename("use --device cpu or --no-compile") == "use device='cpu' or compile=False"
    assert rename("--from LLM needs --unknown") == "from_llm LLM needs --unknown"
    assert rename("CORPUS is missing") == "corpus is missing"
    assert rename("a/CORPUS.txt") == "a/CORPUS.txt"
    assert rename("priorkit pretrain --help") == "see help(priorkit.steps.pretrain)"


@pytest.mark.parametrize("step", STEPS)
def test_signature_and_help(step: str) -> None:
    function = getattr(pk.steps, step.replace("-", "_"))
    signature = inspect.signature(function)
    names = [spec.name for spec in parameters(load(step))]
    assert list(signature.parameters) == names
    assert all(f"    {name}: " in function.__doc__ for name in names)
    assert function.__name__ in dir(pk.steps)


def test_the_stub_declares_what_the_functions_take() -> None:
    """``python -m tests.support.step_stub`` writes it again."""
    assert STUB.read_text(encoding="utf-8") == formatted(render())


def test_modules_of_steps_are_still_modules() -> None:
    import importlib

    from priorkit.steps import mix

    assert mix.STEP.name == "mix"
    assert importlib.import_module("priorkit.steps.mix") is mix
    assert callable(pk.steps.mix)
