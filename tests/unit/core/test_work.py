from __future__ import annotations

from pathlib import Path

from priorkit.core.inputs import Input
from priorkit.core.work import Inputs, Plan, Work


def inputs() -> Inputs:
    labels = ("corpus", "teacher.0", "teacher.1", "sources.facts", "sources.code", "teachers.0")
    found = {label: Input(label, label, Path(label), "file") for label in labels}
    found["sources.images"] = Input("sources.images", "x", Path("x"), "files", files=("a.png",))
    return Inputs(found)


def test_inputs_by_the_option_that_gives_them() -> None:
    found = inputs()
    assert found.one("corpus").path == Path("corpus")
    assert found.optional("corpus") is found.one("corpus")
    assert found.optional("judge") is None
    assert [item.given for item in found.many("teacher")] == ["teacher.0", "teacher.1"]
    assert found.many("candidates") == []


def test_named_inputs_keep_their_order_and_leave_out_files_named_by_a_table() -> None:
    assert list(inputs().named("sources")) == ["facts", "code"]


def test_inputs_are_a_mapping_by_label() -> None:
    found = inputs()
    assert len(found) == 7
    assert "teacher.1" in found
    assert found["sources.facts"] is found.named("sources")["facts"]


def test_a_plan_without_payload_and_a_scratch_folder(tmp_path: Path) -> None:
    plan: Plan[None] = Plan([("rows", "3")])
    work = Work(tmp_path, inputs(), plan)
    assert plan.payload is None
    assert work.scratch.is_dir()
    assert not work.state.exists()
