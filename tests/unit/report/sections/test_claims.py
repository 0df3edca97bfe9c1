"""Claims on the page: a card each, one picture of all, a table of everything; the rest of the page without their arms."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from priorkit.core.interval import Interval
from priorkit.data.results.artifact_graph import Members, gather
from priorkit.data.results.claim_results import ClaimResult, GateResult, MeasuredEffect
from priorkit.report import page
from priorkit.report.blocks import ClaimList, Plot, Table
from priorkit.report.sections.base import build_sections
from priorkit.report.sections.claims import claims_section


def effect(name: str, value: float, half: float, verdict: str | None = None) -> MeasuredEffect:
    return MeasuredEffect(
        name, "difference", Interval(value, value - half, value + half), 0.05 if verdict else None,
        verdict, "why", {"1": value - 0.01, "2": value, "3": value + 0.01}, {"arm": Interval(0.5, 0.4, 0.6)}, 0.4,
        240, 120, "image", ("3 items left out",),
    )  # fmt: skip  # pyright: ignore


SUPPORTED = ClaimResult(
    "V1", "VisPRE", "Priors <matter>.", "All else equal.", "supported", "both are large", ("1", "2", "3"), None,
    (effect("first", 0.2, 0.1, "supported"), effect("second", 0.4, 0.1, "supported")), (effect("control", 0.0, 0.1),),
    {"seen@1": "0" * 64}, 4321.0,
)  # fmt: skip
CONTRADICTED = replace(
    SUPPORTED,
    id="L 1",
    verdict="contradicted",
    measures=(effect("only", -3.0, 4.0, "contradicted"),),
    controls=(),
)
STOPPED = ClaimResult(
    "L2", "LION", "The aggregator helps.", "Same tokens.", "not run", "gate: base reaches 0.1 of the 0.2 needed",
    gate=GateResult("base", "grounding", "accuracy_at_0.5", 0.2, 0.1),
)  # fmt: skip


@pytest.fixture
def members(make) -> Members:
    answers = {"naming": [True, False] * 6}
    given = {name: make.evaluation(name[:4], answers) for name in ("seen@1", "other")}
    return Members(gather(given), seed=1, resamples=50, claims=(SUPPORTED, CONTRADICTED, STOPPED))


def test_without_claims_there_is_no_section(members: Members) -> None:
    assert claims_section(replace(members, claims=())) is None


def test_every_claim_has_a_card(members: Members, tmp_path: Path) -> None:
    section = claims_section(members)
    assert section is not None
    listed = section.blocks[0]
    assert isinstance(listed, ClaimList)
    assert listed.counts == {"supported": 1, "contradicted": 1, "not run": 1}
    assert [card.badge for card in listed.cards] == ["✓ supported", "✗ contradicted", "– not run: gate"]
    first, _, stopped = listed.cards
    assert [measure.text for measure in first.effects] == [
        "+0.200 [+0.100,\xa0+0.300]",
        "+0.400 [+0.300,\xa0+0.500]",
    ]
    assert list(first.facts) == ["3 seeds", "240 items", "resampled by image (120)", "72.0 min of computing"]
    assert stopped.effects == []
    assert list(stopped.facts) == ["gate not met: base 0.100 on grounding (accuracy_at_0.5), 0.2 needed"]


def test_page_and_files(members: Members, tmp_path: Path) -> None:
    sections = build_sections(members)
    page.write(sections, "Claims", tmp_path)
    text = (tmp_path / page.PAGE).read_text()
    assert "Priors &lt;matter&gt;." in text
    assert text.count('<article class="claim ') == 3
    for name in ("claim-V1", "claim-V1-2", "claim-L-1", "claims"):
        assert (tmp_path / "plots" / f"{name}.svg").is_file()
        assert 'aria-label="' in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    lines = (tmp_path / "tables" / "claim-effects.csv").read_text().splitlines()
    assert lines[0].startswith(
        "claim,verdict,measure,kind,effect,effect low,effect high,smallest of interest"
    )
    assert [line.split(",")[1] for line in lines[1:]] == ["supported", "supported", "control", "contradicted"]
    summary = (tmp_path / "tables" / "claims.csv").read_text()
    assert "not run" in summary


def test_the_rest_of_the_page_leaves_their_artifacts_out(members: Members) -> None:
    assert [member.label for member in members.beyond_claims().all] == ["other"]
    by_anchor = {section.anchor: section for section in build_sections(members)}
    accuracy = by_anchor["accuracy"].headline[0]
    assert "seen@1" not in " ".join(accuracy.columns)
    cost = by_anchor["cost"].blocks[0]
    assert isinstance(cost, Table)
    assert [row[0] for row in cost.rows] == ["seen@1", "other"]


def test_a_report_of_claims_only_has_no_empty_sections(members: Members) -> None:
    only = replace(members, all=[member for member in members.all if member.label == "seen@1"])
    assert [section.anchor for section in build_sections(only)] == [
        "findings",
        "claims",
        "cost",
        "provenance",
    ]


def test_undefined_effects_can_be_drawn(members: Members, tmp_path: Path) -> None:
    nan = float("nan")
    undefined = replace(effect("n", 0.0, 0.1, "undecided"), effect=Interval(nan, nan, nan), per_seed={})
    claim = replace(SUPPORTED, measures=(undefined,), controls=(), verdict="undecided")
    section = claims_section(replace(members, claims=(claim,)))
    assert section is not None
    assert not any(isinstance(block, Plot) for block in section.blocks)
    page.write([section], "Undefined", tmp_path)
    assert "n/a" in (tmp_path / page.PAGE).read_text()
