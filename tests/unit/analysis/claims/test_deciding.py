"""From artifacts to verdicts, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from priorkit.analysis.claims.deciding import decide_claims, prepare, store
from priorkit.analysis.claims.reading import read_claims
from priorkit.core.artifact import Artifact
from priorkit.core.errors import InputError
from priorkit.core.options import recipe
from priorkit.data.results.artifact_graph import gather
from priorkit.data.results.claim_results import ClaimResult
from tests.support.claim_fixtures import answered, artifacts_of, entities_table, evaluation, item
from tests.support.report_fixtures import Maker

HEAD = """
[claims.{id}]
paper = "P"
statement = "S."
comparison = "C."
{gate}

[[claims.{id}.measures]]
name = "m"
smallest = 0.05
benchmarks = "naming"
"""
DIFFERENCE = """kind = "difference"
contrast = [{ evaluation = "after" }, { evaluation = "before", weight = -1 }]
"""
GATE = 'gate = { evaluation = "base", benchmark = "naming", metric = "accuracy", least = 0.4 }'


def claim(body: str, id: str = "A", gate: str = "") -> str:
    return HEAD.format(id=id, gate=gate) + body


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "claims.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def decide(file: Path, given: Mapping[str, Artifact], entities: Path | None = None) -> dict[str, ClaimResult]:
    members = gather(given)
    prepared = prepare(file, members, entities)
    return {claim.id: claim for claim in decide_claims(prepared, members, seed=1, resamples=200)}


def arms(make: Maker, file: Path, **chances: float) -> dict[str, Artifact]:
    """Artifacts of three seeds for all labels of a file; chances of a correct answer by label."""
    return artifacts_of(make, read_claims(file), lambda label, _: chances.get(label, 0.5))


@pytest.mark.parametrize(
    ("after", "verdict"), [(0.9, "supported"), (0.1, "contradicted"), (0.53, "undecided")]
)
def test_a_difference_is_decided(make, file, after: float, verdict: str) -> None:
    path = file(claim(DIFFERENCE))
    found = decide(path, arms(make, path, after=after, before=0.5))["A"]
    assert found.verdict == verdict, found
    (measure,) = found.measures
    assert list(found.seeds) == ["1", "2", "3"]
    assert (measure.items, measure.units, measure.unit) == (180, 180, "image")
    assert measure.effect.value == pytest.approx(sum(measure.per_seed.values()) / 3)
    assert measure.effect.value == pytest.approx(measure.parts["after"].value - measure.parts["before"].value)
    # Six evaluations of 12 seconds each.
    assert found.seconds == 72


def test_columns_select_items_and_units(make, file) -> None:
    path = file(
        claim(
            """kind = "error-reduction"
unit = "entity"
gains = [{ before = "before", after = "after", where = { prior = "weak" } }]
"""
        )
    )
    found = decide(path, arms(make, path, after=0.9, before=0.2))["A"]
    (measure,) = found.measures
    assert (measure.items, measure.units, measure.unit) == (60, 12, "entity")
    assert found.verdict == "supported"
    assert 0.7 < measure.effect.value < 1


def test_what_was_not_run_is_said_to_be_so(make, file) -> None:
    path = file(claim(DIFFERENCE) + claim(DIFFERENCE.replace("after", "other"), "B"))
    made = arms(make, path, after=0.9)
    # B shares 'before' with A; without an artifact of its own it was not run.
    found = decide(path, {label: value for label, value in made.items() if not label.startswith("other")})
    assert found["A"].verdict == "supported"
    assert found["B"].verdict == "not run"
    assert found["B"].reason == "no artifacts of other"
    nothing = decide(path, {"unrelated": made["before@1"]})
    assert {claim.verdict for claim in nothing.values()} == {"not run"}
    assert nothing["A"].reason == "none of its artifacts were given"


def test_a_claim_without_artifacts_of_its_own_needs_its_benchmarks_too(make, file) -> None:
    elsewhere = claim(DIFFERENCE, "B").replace('"naming"', '"grounding"')
    made = arms(make, file(claim(DIFFERENCE)), after=0.9)
    found = decide(file(claim(DIFFERENCE) + elsewhere), made)
    # Both claims need the same labels: what is there decides.
    assert found["A"].verdict == "supported"
    assert found["B"].reason == "after was not evaluated on grounding; before was not evaluated on grounding"


def test_answers_without_a_score_are_counted(make, file) -> None:
    path = file(claim(DIFFERENCE))
    made = arms(make, path, after=0.9)
    rows = [answered(item("naming", number), True) for number in range(180)]
    rows[5] = {**rows[5], "score": None}
    folder = evaluation(
        make,
        "unscored",
        [row for row in rows if row["score"] is not None],
        settings={"seed": 2, "choices": "text"},
    ).path
    (folder / "samples.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    made["after@2"] = make.seal("unscored", "evaluation", "evaluate", settings={"seed": 2, "choices": "text"})
    (measure,) = decide(path, made)["A"].measures
    assert list(measure.notes) == ["1 answers without 'score' left out"]


def test_a_gate_comes_first(make, file) -> None:
    path = file(claim(DIFFERENCE, gate=GATE))
    made = arms(make, path, after=0.9, base=0.2)
    stopped = decide(path, made)["A"]
    assert (stopped.verdict, stopped.measures) == ("not run", ())
    assert stopped.gate is not None
    assert not stopped.gate.met
    assert f"{stopped.gate.value:.3f} of the 0.4 needed" in stopped.reason
    only_base = {label: value for label, value in made.items() if label.startswith("base")}
    assert decide(path, only_base)["A"].reason == stopped.reason


def test_a_gate_that_is_met_is_reported(make, file) -> None:
    path = file(claim(DIFFERENCE, gate=GATE))
    found = decide(path, arms(make, path, after=0.9, base=0.6))["A"]
    assert found.verdict == "supported"
    assert found.gate is not None
    assert found.gate.met


def refusal(path: Path, given: Mapping[str, Artifact], entities: Path | None = None) -> str:
    with pytest.raises(InputError) as caught:
        prepare(path, gather(given), entities)
    return str(caught.value)


def test_missing_arms_and_seeds_are_named_all_at_once(make, file) -> None:
    third = DIFFERENCE.replace('"before", weight = -1', '["before", "third"], weight = -1')
    path = file(claim(third))
    made = arms(make, path)
    given = {label: value for label, value in made.items() if label in ("after@1", "after@2", "before@1")}
    text = refusal(path, given)
    assert "claim A: no artifact 'third' was given" in text
    assert "claim A: 'before' lacks seed 2" in text
    assert "claim A: 3 seeds are stated, got 2 (1, 2)" in text


def test_seeds_may_differ_in_nothing_else(make, file) -> None:
    path = file(claim(DIFFERENCE))
    made = arms(make, path)
    rows = [answered(item("naming", number), True) for number in range(180)]
    made["after@3"] = evaluation(make, "other-settings", rows, settings={"seed": 3, "choices": "letter"})
    text = refusal(path, made)
    assert (
        "'after' differs in more than its seed: evaluate: choices is text, then letter (seed 1, then seed 3)"
        in text
    )


def test_what_seeds_were_made_from_may_differ_only_in_seeds(make, file) -> None:
    path = file(claim(DIFFERENCE))
    made = arms(make, path)
    rows = [answered(item("naming", number), True) for number in range(180)]
    for seed, steps in ((1, 100), (2, 100), (3, 120)):
        folder = make.root / f"model-{seed}"
        folder.mkdir()
        (folder / "weights").write_text(str(seed))
        settings = {"seed": seed, "steps": steps, "workers": seed}
        model = make.seal(folder.name, "mllm", "tune", settings=settings)
        made[f"after@{seed}"] = evaluation(
            make,
            f"scored-{seed}",
            rows,
            inputs={"model": model.path},
            settings={"seed": 1, "model": str(folder)},
        )
    members = gather(made)
    with pytest.raises(InputError) as caught:
        prepare(path, members, None, ignored={"workers"})
    text = str(caught.value)
    assert "tune: steps is 100, then 120 (seed 1, then seed 3)" in text
    assert "seed 2" not in text
    assert "workers" not in text
    assert len(caught.value.problems) == 1


def test_arms_must_have_the_same_items(make, file) -> None:
    path = file(claim(DIFFERENCE))
    made = arms(make, path)
    rows = [answered(item("naming", number), True) for number in range(170)]
    made["after@2"] = evaluation(make, "fewer", rows, settings={"seed": 2, "choices": "text"})
    text = refusal(path, made)
    assert (
        "'after@1' and 'after@2' have different items of 'naming': 180 and 170, 10 in only one of them"
        in text
    )
    assert "naming-170, naming-171, naming-172, ..." in text
    other = [{**row, "answer": 1} for row in rows] + [
        answered(item("naming", n), True) for n in range(170, 180)
    ]
    made["after@2"] = evaluation(make, "other-truth", other, settings={"seed": 2, "choices": "text"})
    assert "item naming-0 of 'naming' has another truth in 'after@2' than in 'after@1'" in refusal(path, made)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (DIFFERENCE + 'where = { priors = "weak" }', "have no column 'priors'"),
        (DIFFERENCE + 'where = { prior = "week" }', "no item of 'naming' has prior = week"),
        (DIFFERENCE + 'value = "iou"', "has the value 'iou'"),
        (DIFFERENCE + 'unit = "photographer"', "no 'photographer', by which items are resampled"),
        (DIFFERENCE + 'balance = "entity"', "has no number in 'entity', got 'sign 00'"),
    ],
)
def test_what_samples_lack_is_named(make, file, body: str, message: str) -> None:
    path = file(claim(body))
    text = refusal(path, arms(make, path))
    assert message in text
    assert "claim A, m: " in text


def test_other_kinds_of_artifact_are_refused(make, file) -> None:
    path = file(claim(DIFFERENCE))
    made = arms(make, path)
    made["after@2"] = make.corpus()
    assert "'after@2' should be an evaluation, got corpus made by mix" in refusal(path, made)


def test_a_column_of_entities_needs_their_table(make, file) -> None:
    body = """kind = "partial-correlation"
x = { ranks = "ranks", column = "mean_rank", weight = -1 }
y = { evaluation = "after" }
given = [{ column = "in_text" }]
"""
    path = file(claim(body))
    made = arms(make, path, after=0.5)
    assert "give --entities FILE" in refusal(path, made)
    table = entities_table(make)
    assert "did you mean 'in_text'" in refusal(file(claim(body.replace("in_text", "in_texts"))), made, table)
    found = decide(file(claim(body)), made, table)["A"]
    (measure,) = found.measures
    assert (measure.units, measure.unit) == (36, "entity")
    assert "nothing held fixed" in measure.parts


def world(label: str, row: Mapping[str, Any]) -> float:
    """A world in which all that the papers claim is true, except that three stages do not help."""
    groups = row["groups"]
    number = int(groups["entity"].removeprefix("sign "))
    by_prior = {
        "questions-only": {"strong": 0.95, "weak": 0.35},
        "remediated": {"strong": 0.85, "weak": 0.85},
        "tuned-longer": {"strong": 0.75, "weak": 0.35},
    }
    if label == "tuned-mle-bench":
        return 0.9 if groups["sub_task"] == "existence_30-60" else 0.5
    if label == "blind-tuned":
        return 0.25 if row["answer"] == "no" else 0.9
    if label in by_prior:
        return by_prior[label].get(groups["prior"], 0.5)
    visual = {"visual-0": 0.2, "visual-0.1": 0.85, "visual-0.2": 0.9, "visual-0.3": 0.9, "visual-0.4": 0.9}
    fixed = {
        "tuned": 1 - 0.8 * number / 36, "tuned-blind": 0.25, "untuned": 0.3, "base": 0.5, "one-stage": 0.8,
        "three-stages": 0.4, "baseline": 0.2, "aggregator": 0.6, "aggregator-all-tokens": 0.7,
        "hard-tags-0.3": 0.4, "hard-tags-0.6": 0.2, "soft-tags-0.3": 0.7, "soft-tags-0.6": 0.7,
        "reasoning-text": 0.8, "plain-text": 0.4, "text-tuned": 0.5, "tuned-twice": 0.5, "shuffled-tuned": 0.5,
        "sight-a-text-a": 0.9, "sight-a-text-b": 0.88, "sight-b-text-a": 0.3, "sight-b-text-b": 0.28, **visual,
    }  # fmt: skip
    return fixed.get(label, 0.5)


@pytest.mark.slow
def test_the_shipped_claims_can_be_decided(make, tmp_path: Path) -> None:
    path = recipe.shipped()["claims"]
    made = artifacts_of(make, read_claims(path), world, items=108)
    found = decide(path, made, entities_table(make))
    verdicts = {name: claim.verdict for name, claim in found.items()}
    assert verdicts == {name: "contradicted" if name == "L1" else "supported" for name in found}
    store(list(found.values()), tmp_path)
    document = json.loads((tmp_path / "claims.json").read_text())
    assert list(document["claims"]) == list(found)
    assert document["schema"] == 1
    assert "low > 0" in document["rule"]
    entry = document["claims"]["V3"]
    assert [measure["verdict"] for measure in entry["measures"]] == ["supported", "supported"]
    assert entry["controls"][0]["verdict"] is None
    assert entry["artifacts"]["remediated@1"] == made["remediated@1"].digest
    assert "seconds" not in json.dumps(document)


def test_the_same_artifacts_give_the_same_bytes(make, file, tmp_path: Path) -> None:
    path = file(claim(DIFFERENCE))
    made = arms(make, path, after=0.6)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        store(list(decide(path, made).values()), tmp_path / name)
    assert (tmp_path / "one/claims.json").read_bytes() == (tmp_path / "two/claims.json").read_bytes()
