"""Examples: items with their images, the true answer, and the models' answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from priorkit.data.results.artifact_graph import Member, Members
from priorkit.data.results.evaluations import ScoredItem
from priorkit.report.blocks import Example, ExampleAnswer, Gallery, Section
from priorkit.report.pictures import item_pictures
from priorkit.report.sections.evaluations.accuracy import asks_questions, question_evaluations
from priorkit.scoring.answers.boxes import Box

PER_BENCHMARK = 3
MOST = 36
LONGEST = 400

Answers = Mapping[str, Mapping[tuple[str, str], ScoredItem]]


def examples_section(members: Members) -> Section | None:
    """A few items of each benchmark; those on which the models differ come first."""
    evaluated = question_evaluations(members)
    answers: Answers = {
        member.label: {
            (sample.benchmark, sample.id): sample
            for sample in member.evaluation.samples
            if asks_questions(member.evaluation.benchmarks[sample.benchmark])
        }
        for member in evaluated
    }
    chosen = _choose(evaluated, answers)
    if not chosen:
        return None
    wanted: dict[str, list[str]] = {}
    for benchmark, key in chosen:
        wanted.setdefault(benchmark, []).append(key)
    pictures = item_pictures([member.artifact for member in evaluated], wanted)
    examples = [_example(key, evaluated, answers, pictures.get(key, "")) for key in chosen]
    intro = (
        "Items on which the models differ come first. For grounding, the solid box is the truth and the dashed one "
        "the answer."
    )
    return Section("examples", "Examples", intro, [Gallery(examples)])


def _choose(evaluated: Sequence[Member], answers: Answers) -> list[tuple[str, str]]:
    keys = dict.fromkeys(key for by_key in answers.values() for key in by_key)
    by_benchmark: dict[str, list[tuple[str, str]]] = {}
    for key in keys:
        by_benchmark.setdefault(key[0], []).append(key)

    def differ(key: tuple[str, str]) -> bool:
        scores = [answers[member.label][key].score for member in evaluated if key in answers[member.label]]
        return len(set(scores)) > 1

    chosen: list[tuple[str, str]] = []
    for items in by_benchmark.values():
        ranked = sorted(items, key=lambda key: not differ(key))
        chosen += ranked[:PER_BENCHMARK]
    return chosen[:MOST]


def example_of(sample: ScoredItem, member: Member) -> Example:
    """One item with the answer of one evaluation, and its image where it is still at hand."""
    key = sample.benchmark, sample.id
    pictures = item_pictures([member.artifact], {sample.benchmark: [sample.id]})
    return _example(key, [member], {member.label: {key: sample}}, pictures.get(key, ""))


def _example(key: tuple[str, str], evaluated: Sequence[Member], answers: Answers, image: str) -> Example:
    having = [member for member in evaluated if key in answers[member.label]]
    first = answers[having[0].label][key]
    shown = ("ability", "entity", "prior", "size", "sub_task")
    return Example(
        benchmark=key[0],
        id=key[1],
        prompt=_text(first.row.get("prompt")).replace("<image>", "").strip(),
        truth=_truth(first.row),
        groups=" \N{MIDDLE DOT} ".join(first.groups[name] for name in shown if first.groups.get(name)),
        image=image,
        box=_box(first.row.get("box", first.row.get("answer"))),
        answers=tuple(_answer(member, answers[member.label][key]) for member in having),
    )


def _answer(member: Member, sample: ScoredItem) -> ExampleAnswer:
    parsed = sample.row.get("parsed")
    exact = sample.score in (0.0, 1.0)
    return ExampleAnswer(
        label=member.label,
        color=member.color,
        raw=_text(sample.row.get("prediction")),
        parsed="unparsed" if parsed is None else _text(_choice(parsed, sample.row)),
        correct=bool(sample.score) if exact else None,
        box=_box(parsed),
    )


def _truth(row: Mapping[str, Any]) -> str:
    """The true answer, or all accepted ones."""
    for name in ("answer", "answers", "references"):
        value = row.get(name)
        if isinstance(value, list):
            return _text(" | ".join(map(str, value)))
        if value is not None:
            return _text(_choice(value, row))
    return _text(row.get("box"))


def _choice(value: Any, row: Mapping[str, Any]) -> Any:
    """A choice's text instead of its index, if the choices are known."""
    choices = row.get("choices")
    if isinstance(choices, list) and isinstance(value, int) and 0 <= value < len(choices):
        return choices[value]
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(part, float | int) for part in value):
        value = [round(part, 3) for part in value]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else text[:LONGEST] + " \N{HORIZONTAL ELLIPSIS}"


def _box(value: Any) -> Box | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(isinstance(part, int | float) and 0 <= part <= 1 for part in value):
        return None
    return Box(*map(float, value))
