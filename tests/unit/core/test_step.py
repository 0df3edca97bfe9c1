from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from priorkit.core.options.settings import StepSettings, option
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work


class GreetSettings(StepSettings):
    step: ClassVar[str] = "greet"
    kind: ClassVar[str] = "greeting"
    examples: ClassVar[tuple[str, str]] = ("", "")

    name: str = option("you", "Whom to greet.")


def plan(settings: GreetSettings, inputs: Inputs) -> Plan[str]:
    return Plan(payload=f"hello {settings.name}")


def execute(settings: GreetSettings, work: Work[str]) -> None:
    (work.path / "greeting.txt").write_text(work.plan.payload)


STEP = Step(GreetSettings, plan, execute)


def test_a_step_passes_its_payload_from_plan_to_execute(tmp_path: Path) -> None:
    made = STEP.run(GreetSettings(name="Ada", out=str(tmp_path / "out")))
    assert STEP.name == "greet"
    assert made is not None
    assert (made.path / "greeting.txt").read_text() == "hello Ada"
    assert STEP.run(GreetSettings(out=str(tmp_path / "other"), check=True)) is None
