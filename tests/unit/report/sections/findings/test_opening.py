"""The findings with which the page opens: what they say follows from the artifacts, and nothing else is said."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from priorkit.core.artifact import Artifact
from priorkit.core.interval import Interval
from priorkit.data.io.tables import write_table
from priorkit.data.results.artifact_graph import Members, gather, prior_groups
from priorkit.data.results.claim_results import ClaimResult, MeasuredEffect
from priorkit.report import page
from priorkit.report.blocks import Finding, FindingList
from priorkit.report.sections.base import build_sections
from priorkit.report.sections.findings.opening import BUILDERS, MOST, findings_section
from priorkit.report.sections.findings.wording import Effect, by_direction, direction, listed
from tests.support.claim_fixtures import evaluation
from tests.support.report_fixtures import ENTITIES, Maker, sample

BEFORE = [2.0, 3, 2, 4, 20, 25, 30, 18, 40, 55, 60, 48]
AFTER = [2.0, 3, 2, 4, 8, 9, 12, 7, 14, 20, 18, 15]


def members_of(given: Mapping[str, Artifact], resamples: int = 200) -> Members:
    found = gather(given)
    return Members(found, prior_groups(found), seed=1, resamples=resamples)


def found_in(members: Members) -> list[Finding]:
    section = findings_section(members)
    if section is None:
        return []
    (block,) = section.blocks
    assert isinstance(block, FindingList)
    return list(block.findings)


def texts_of(members: Members) -> list[str]:
    return [finding.text for finding in found_in(members)]


@pytest.fixture
def answers(make: Maker) -> Callable[..., Artifact]:
    """An evaluation of a model on 96 two-choice questions of two abilities."""
    models: dict[str, Artifact] = {}

    def answer(
        name: str, right: Callable[[str, int], bool], model: str = "model", **settings: Any
    ) -> Artifact:
        if model not in models:
            (make.root / model).mkdir()
            (make.root / model / "weights").write_text(model)
            models[model] = make.seal(model, "mllm", "tune")
        rows = []
        for number in range(96):
            row = sample("scenes", number, True, ENTITIES[number // 2 % 12])
            ability = row["groups"]["ability"]
            rows.append({**row, "score": float(right(ability, number // 2))})
        return evaluation(make, name, rows, {"model": models[model].path}, settings)

    return answer


def always(ability: str, number: int) -> bool:
    return True


def half(ability: str, number: int) -> bool:
    return number % 2 == 0


def only_perception(ability: str, number: int) -> bool:
    return ability == "perception" or half(ability, number)


def test_a_model_is_compared_with_guessing_and_with_itself_without_the_images(answers) -> None:
    members = members_of(
        {
            "seeing": answers("e1", only_perception),
            "other": answers("e2", always, model="another"),
            "blind": answers("e3", half, blind=True),
        }
    )
    finding = found_in(members)[0]
    assert finding.anchor == "accuracy"
    level, by_ability, images = re.split(r"(?<=\.) (?=[A-Z])", finding.text)
    assert level.startswith("seeing answers 0.750 [")
    assert level.endswith("(96 questions of scenes; guessing gets 0.500).")
    assert by_ability.startswith(
        "It lies above guessing in 1 of 2 abilities, perception (+0.500 [+0.500, +0.500]);"
    )
    assert re.search(r"undecided in counting \(0\.000 \[.0\.\d+, \+0\.\d+\]\)\.$", by_ability)
    assert images.startswith("The images add +0.250 [")
    assert "a gain in 1 of 2 abilities, perception (+0.500 [" in images
    assert "undecided in counting (0.000 [0.000, 0.000])" in images
    assert finding.picture is not None
    (axis,) = finding.picture.figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["counting", "perception"]
    assert len(axis.containers) == 2


@pytest.mark.parametrize(
    ("right", "said"),
    [
        (half, "Whether the images help it cannot be decided: 0.000"),
        (lambda *_: False, "The images lower it by −0.500"),
    ],
)
def test_images_that_do_not_help_are_not_said_to(answers, right, said: str) -> None:
    members = members_of({"a": answers("e1", right), "b": answers("e2", half, blind=True)})
    assert said in texts_of(members)[0]


def test_an_evaluation_without_images_alone_is_called_that(answers) -> None:
    (text,) = texts_of(members_of({"blind": answers("e1", half, blind=True)}))
    assert text.startswith("blind, without the images it is asked about, answers 0.500")
    assert "The images" not in text


def test_comparisons_that_cannot_be_decided_are_said(answers) -> None:
    def flipped(ability: str, number: int) -> bool:
        return number % 2 == 1

    members = members_of(
        {
            "a": answers("e1", half),
            "b": answers("e2", flipped, model="two"),
            "c": answers("e3", always, model="three"),
            "blind": answers("e4", half, blind=True),
        }
    )
    text = texts_of(members)[-1]
    decided, undecided = text.split("It cannot be decided which is better:")
    assert "c \N{MINUS SIGN} a +0.500 [" in decided
    assert "c \N{MINUS SIGN} b +0.500 [" in decided
    assert undecided.startswith(" b \N{MINUS SIGN} a 0.000 [")
    assert "blind" not in text


def test_ranks_by_prior_and_what_remediation_changed(make: Maker) -> None:
    world = make.world()
    before = make.ranks("r1", BEFORE, world.path / "images")
    finding = found_in(members_of({"before": before}))[0]
    assert finding.text.startswith("Rank_e in before is 2.75 [")
    assert finding.text.endswith("with no prior, among 12 names.")
    assert finding.picture is not None
    after = make.ranks("r2", AFTER, world.path / "images")
    text = texts_of(members_of({"before": before, "after": after}))[0]
    weak = np.mean(AFTER[4:8]) / np.mean(BEFORE[4:8])
    assert f"From before to after it is multiplied by {weak:.3f} [" in text
    assert text.endswith("; undecided: 1.00 [1.00, 1.00] with a strong prior.")
    same = texts_of(members_of({"before": before, "again": make.ranks("r3", BEFORE, world.path / "images")}))[
        0
    ]
    assert "Whether it differs in again cannot be decided" in same


def test_remediation_is_named_where_it_was_one(make: Maker) -> None:
    world = make.world()
    (make.root / "encoder").mkdir()
    encoder = make.seal("encoder", "encoder", "distill-encoder")
    before = make.ranks("r1", BEFORE, world.path / "images")
    after = make.ranks("r2", AFTER, world.path / "images")
    remade = make.seal(
        "r2",
        "scores",
        "rank-e",
        {"images": world.path / "images", "encoder": encoder.path},
        {"candidates": 12},
    )
    assert remade.path == after.path
    text = texts_of(members_of({"before": before, "after": remade}))[0]
    assert "Remediation (before to after) multiplies it by" in text


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.8, -0.4, "Accuracy follows priors"),
        (-0.7, 0.2, "Whether the accuracy of model follows priors cannot be decided"),
        (0.1, 0.9, "Accuracy goes against priors"),
    ],
)
def test_a_correlation_is_what_its_interval_allows(make: Maker, low: float, high: float, said: str) -> None:
    (make.root / "c").mkdir()
    entry = {"value": (low + high) / 2, "low": low, "high": high}
    partial = {"in_text": {"value": -0.1, "low": -0.3, "high": 0.1, "entities": 12}}
    measures: dict[str, Any] = {"mean_rank": {"spearman": entry, "kendall": entry}}
    content = {"evaluations": {"model": {"measures": measures, "entities": 12, "partial": partial}}}
    (make.root / "c" / "correlation.json").write_text(json.dumps(content))
    write_table({"entity": ENTITIES}, make.root / "c" / "table.parquet")
    members = members_of({"c": make.seal("c", "scores", "correlate")})
    (finding,) = [found for build in BUILDERS if (found := build(members)) is not None]
    assert finding.text.startswith(said)
    assert f"[{low:+.3f}, {high:+.3f}] over 12 entities".replace("-", "\N{MINUS SIGN}") in finding.text
    assert finding.text.endswith("given in_text it is −0.100 [−0.300, +0.100], whose interval holds 0.")
    unknown = {"value": None, "low": None, "high": None}
    measures["mean_rank"]["spearman"] = unknown
    (make.root / "c" / "correlation.json").write_text(json.dumps(content))
    assert all(build(members) is None for build in BUILDERS)


def effect(value: float) -> MeasuredEffect:
    return MeasuredEffect(
        "gain", "difference", Interval(value, value - 0.1, value + 0.1), 0.05, None, "why", {}, {}, 0.4, 240, 120,
        "image", (),
    )  # fmt: skip


def claim(name: str, verdict: Any, *effects: float) -> ClaimResult:
    return ClaimResult(
        name,
        "P",
        "S.",
        "C.",
        verdict,
        "why",
        ("1", "2", "3"),
        None,
        tuple(map(effect, effects)),
        (),
        {},
        None,
    )


def test_claims_come_first_with_their_verdicts() -> None:
    decided = (
        claim("A", "supported", 0.4, 0.3), claim("B", "undecided", 0.05), claim("C", "contradicted", -0.3),
        claim("D", "not run"), claim("E", "undecided", math.nan),
    )  # fmt: skip
    (text,) = texts_of(Members([], claims=decided))
    assert text == (
        "Of 5 claims that were stated, 1 is supported (A +0.300 [+0.200, +0.400]), 1 is contradicted "
        "(C −0.300 [−0.400, −0.200]), 2 are undecided (B +0.050 [−0.050, +0.150] and E) and 1 was not run (D)."
    )
    (text,) = texts_of(Members([], claims=decided[:1]))
    assert text == "The one claim that was stated is supported (A +0.300 [+0.200, +0.400])."


def test_one_artifact_of_any_kind_has_its_sentence(make: Maker, answers) -> None:
    world, corpus = make.world(), make.corpus()
    perplexity = {"facts": {"metrics": {"perplexity": {"value": 8.0, "low": 4.0, "high": 16.0}}, "items": 3}}
    (make.root / "d").mkdir()
    points = [
        {"share": share, "mean_rank": {"value": rank, "low": rank - 1, "high": rank + 1}}
        for share, rank in ((0.0, 25.0), (0.5, 12.0), (1.0, 10.0))
    ]
    encoder = make.seal("d", "encoder", "distill-encoder", metrics={"trade_off": points, "saved_share": 0.5})
    said = {
        "world": (world, "No measurement is among the artifacts: x (world made by glyph-world)."),
        "corpus": (corpus, "x holds 1,000 tokens: 70.0 % facts and 30.0 % code."),
        "llm": (make.llm(corpus), "In training the smoothed loss of x went from"),
        "text": (
            make.evaluation("t", {}, extra=perplexity),
            "x has a perplexity of 8.00 [4.00, 16.0] on facts",
        ),
        "encoder": (
            encoder,
            "(share 0.5), Rank_e on held-out images goes from 25.0 [24.0, 26.0] to 12.0 [11.0, 13.0].",
        ),
        "answers": (answers("e", always), "x answers 1.00 [1.00, 1.00] right"),
    }
    for artifact, sentence in said.values():
        (text,) = texts_of(members_of({"x": artifact}))
        assert sentence in text


def test_the_page_opens_with_at_most_four_findings_and_two_pictures(
    make: Maker, answers, tmp_path: Path
) -> None:
    world = make.world()
    text = {"facts": {"metrics": {"perplexity": {"value": 8.0, "low": 4.0, "high": 16.0}}, "items": 3}}
    members = members_of(
        {
            "before": make.ranks("r1", BEFORE, world.path / "images"),
            "<b>after</b>": make.ranks("r2", AFTER, world.path / "images"),
            "a": answers("e1", always),
            "b": answers("e2", half, model="other"),
            "blind": answers("e3", half, blind=True),
            "text": make.evaluation("t", {}, extra=text),
            "llm": make.llm(make.corpus()),
        }
    )
    members = replace(members, claims=(claim("A", "supported", 0.4),))
    found = found_in(members)
    assert len(found) == MOST
    assert [finding.anchor for finding in found] == ["claims", "accuracy", "rank-e", "differences"]
    assert [finding.picture is not None for finding in found] == [False, True, True, False]
    folder = tmp_path / "page"
    folder.mkdir()
    page.write(build_sections(members), "Title", folder)
    html = (folder / page.PAGE).read_text(encoding="utf-8")
    opening = html[html.index('<section id="findings">') : html.index('<section id="summary">')]
    assert opening.count("<li>") == MOST
    assert opening.count("<svg") == 2
    assert "&lt;b&gt;after&lt;/b&gt;" in opening
    assert '<a href="#rank-e">Rank_e: priors of the encoders</a>' in opening
    assert (folder / "plots" / "finding-accuracy.svg").is_file()
    space = "\N{NO-BREAK SPACE}"
    assert f'1.00{space}<span class="interval">[1.00,{space}1.00]</span>' in opening


def test_seeds_are_averaged_and_compared_seed_by_seed(make: Maker) -> None:
    """Student's t with two degrees of freedom: 4.302653 deviations of the mean."""
    rights = {"a@1": 4, "a@2": 5, "a@3": 6, "b@1": 8, "b@2": 9, "b@3": 10, "c@1": 4, "c@2": 7, "c@3": 5}
    given = {
        label: make.evaluation(label, {"naming": [number < right for number in range(12)]})
        for label, right in rights.items()
    }
    finding = found_in(members_of(given))[0]
    assert finding.anchor == "seeds"
    half = 4.302653 * (1 / 12) / 3**0.5
    low, high = (f"{5 / 12 + sign * half:.3f}" for sign in (-1, 1))
    assert finding.text.startswith(
        f"Over seeds, accuracy (naming) is 0.417 [{low}, {high}] for a (3 seeds), "
    )
    assert "the difference is b \N{MINUS SIGN} a +0.333 [+0.333, +0.333]." in finding.text
    assert "It cannot be decided over seeds: c \N{MINUS SIGN} a +0.028 [\N{MINUS SIGN}" in finding.text
    alone = found_in(members_of({"a@1": given["a@1"]}))[0]
    assert alone.anchor == "accuracy"


def test_words_for_directions() -> None:
    effects = [
        Effect(name, Interval(value, value - 0.1, value + 0.1))
        for name, value in (("a", 0.2), ("b", -0.3), ("c", 0.05), ("d", 0.4))
    ]
    assert by_direction(effects, "parts", "up", "down") == (
        "up in 2 of 4 parts, from +0.200 [+0.100, +0.300] (a) to +0.400 [+0.300, +0.500] (d); "
        "down in b (−0.300 [−0.400, −0.200]); undecided in c (+0.050 [−0.050, +0.150])"
    )
    assert by_direction(effects[1:2], "parts", "up", "down").startswith("up in none of 1 parts; down in b")
    assert by_direction(effects[::3], "parts", "up", "down").startswith("up in all 2 parts, from")
    assert [direction(effect.interval) for effect in effects] == [1, -1, 0, 1]
    assert direction(Interval(0.5, 0.4, 0.9), null=1.0) == -1
    assert direction(Interval(0.0, math.nan, math.nan)) == 0
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c", "d"], most=2) == "a, b and 2 more"


def box_rows(overlaps: list[float | None]) -> list[dict[str, Any]]:
    """Questions for boxes, each with the overlap of the answer, None where it could not be read."""
    return [
        {
            "id": f"grounding-{number}", "benchmark": "grounding", "prompt": "<image>\nWhere is the anchor?",
            "prediction": "" if iou is None else "[...]", "parsed": None if iou is None else [0.1, 0.2, 0.3, 0.4],
            "box": [0.0, 0.0, 0.5, 0.5], "iou": iou or 0.0, "score": float((iou or 0) >= 0.5),
            "groups": {"ability": "grounding"},
        }
        for number, iou in enumerate(overlaps)
    ]  # fmt: skip


def test_boxes_are_shown_by_the_middle_one_of_those_that_are_right(make: Maker) -> None:
    overlaps = [0.9, 0.1, None, 0.6, 0.7]
    members = members_of(
        {
            "seeing": evaluation(make, "e1", box_rows(overlaps), settings={}),
            "blind": evaluation(make, "e2", box_rows([0.0] * 5), settings={"blind": True}),
        }
    )
    (finding,) = [finding for finding in found_in(members) if finding.anchor == "examples"]
    assert finding.text.startswith("Of 5 boxes that seeing was asked for, 0.600 [")
    assert "; without the images 0.000 [" in finding.text
    assert finding.text.endswith("the one in the middle of these (IoU 0.70); its true box is solid.")
    assert finding.example is not None
    assert finding.example.id == "grounding-4"
    assert finding.example.box is not None
    assert [answer.label for answer in finding.example.answers] == ["seeing"]
    assert finding.example.answers[0].box is not None


def test_without_a_right_box_there_is_no_example(make: Maker) -> None:
    members = members_of({"seeing": evaluation(make, "e1", box_rows([None, 0.4]), settings={})})
    (finding,) = [finding for finding in found_in(members) if finding.text.startswith("Of 2 boxes")]
    assert finding.example is None


def test_the_example_stands_at_the_top_of_the_page(make: Maker, tmp_path: Path) -> None:
    members = members_of({"seeing": evaluation(make, "e1", box_rows([0.9, 0.1, 0.6]), settings={})})
    (tmp_path / "page").mkdir()
    page.write(build_sections(members), "Boxes", tmp_path / "page")
    html = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    opening = html[html.index('id="findings"') :]
    assert "grounding-0" in opening[: opening.index("</section>")]
