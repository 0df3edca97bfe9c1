"""Ability groups over models: the matrix, its intervals, and when it is left out."""

from __future__ import annotations

import json

import pytest

from priorkit.data.results.artifact_graph import Members, gather, prior_groups
from priorkit.report.blocks import Table
from priorkit.report.sections.evaluations.abilities import abilities_section


def members_of(given: dict) -> Members:
    found = gather(given)
    return Members(found, prior_groups(found), seed=1, resamples=100)


def table(section, name: str) -> Table:
    return next(block for block in section.blocks if isinstance(block, Table) and block.name == name)


def test_abilities_that_rise_together_and_apart(make) -> None:
    """Perception gets right what counting gets wrong: rho -1 over six models."""
    given = {}
    for number in range(6):
        right = [bool(place % 2) == (place // 2 < number) for place in range(12)]
        given[f"m{number}"] = make.evaluation(f"e{number}", {"naming": right})
    section = abilities_section(members_of(given))
    assert section is not None
    ((name, pairs, rho, _),) = table(section, "ability-pairs").rows
    assert sorted(str(name).split(", ")) == ["counting", "perception"]
    assert pairs == 6
    assert rho.interval.value == pytest.approx(-1.0)
    square = table(section, "ability-correlations").rows
    assert square[0][1] is None
    assert square[0][2].value == pytest.approx(-1.0)


def test_suites_come_first_and_few_models_give_no_section(make) -> None:
    given = {}
    for number in range(5):
        made = make.evaluation(f"s{number}", {"naming": [True] * 12})
        file = made.path / "results.json"
        values = json.loads(file.read_text())
        groups = {"general": {"value": number / 10}, "knowledge": {"value": number / 5 + 0.1}}
        values["suites"] = {"lsbs-vision": {"overall": {"value": 0.1}, "groups": groups}}
        file.write_text(json.dumps(values))
        given[f"m{number}"] = made
    section = abilities_section(members_of(given))
    assert section is not None
    assert table(section, "ability-pairs").rows[0][0] == "general, knowledge"
    assert table(section, "ability-pairs").rows[0][2].interval.value == pytest.approx(1.0)
    assert abilities_section(members_of(dict(list(given.items())[:4]))) is None
