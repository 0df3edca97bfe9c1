"""``priorkit report --claims`` as its users meet it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from priorkit.analysis.claims.reading import read_claims
from tests.support.claim_fixtures import artifacts_of
from tests.support.report_fixtures import Maker

CLAIMS = """
[claims.A]
paper = "P"
statement = "After is better than before."
comparison = "The same items."

[[claims.A.measures]]
name = "gain"
kind = "difference"
smallest = 0.05
benchmarks = "naming"
contrast = [{ evaluation = "after" }, { evaluation = "before", weight = -1 }]

[claims.B]
paper = "P"
statement = "Another."
comparison = "Others."

[[claims.B.measures]]
name = "gain"
kind = "error-reduction"
smallest = 0.05
benchmarks = "naming"
gains = [{ before = "before", after = "never-run" }]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list[str]]:
    """A file of claims, and the arguments for artifacts of three seeds that decide the first of them."""
    root = tmp_path_factory.mktemp("claims")
    file = root / "claims.toml"
    file.write_text(CLAIMS, encoding="utf-8")
    artifacts = artifacts_of(
        Maker(root), read_claims(file)[:1], lambda label, _: {"after": 0.9}.get(label, 0.4), items=72
    )
    return file, [f"{label}={artifact.path}" for label, artifact in artifacts.items()]


def test_a_claim_is_decided_without_the_others(cli, made, tmp_path: Path) -> None:
    file, artifacts = made
    found = cli("report", *artifacts, "--claims", file, "--resamples", 200, "--out", tmp_path / "page")
    assert found.code == 0, found.err
    document = json.loads((tmp_path / "page" / "claims.json").read_text())
    assert document["claims"]["A"]["verdict"] == "supported"
    assert document["claims"]["A"]["seeds"] == ["1", "2", "3"]
    assert document["claims"]["B"]["verdict"] == "not run"
    manifest = json.loads((tmp_path / "page" / "priorkit.json").read_text())
    assert manifest["metrics"]["claims"] == {"A": "supported", "B": "not run"}
    assert "After is better than before." in (tmp_path / "page" / "report.html").read_text()
    assert "supported" in found.err
    again = cli("report", *artifacts, "--claims", file, "--resamples", 200, "--out", tmp_path / "page")
    assert (again.code, again.out) == (0, found.out)
    assert "up to date" in again.err
    file_with_other_rule = tmp_path / "claims.toml"
    file_with_other_rule.write_text(CLAIMS.replace("smallest = 0.05", "smallest = 0.3"))
    changed = cli(
        "report", *artifacts, "--claims", file_with_other_rule, "--resamples", 200, "--out", tmp_path / "page"
    )
    assert changed.code == 2
    assert "the input claims" in changed.err


def test_a_broken_claim_is_refused_also_by_check(cli, made, tmp_path: Path) -> None:
    file, artifacts = made
    given = [word for word in artifacts if not word.startswith("before@3")]
    for check in ([], ["--check"]):
        found = cli("report", *given, "--claims", file, *check, "--out", tmp_path / "page")
        assert found.code == 3
        assert "claim A: 'before' lacks seed 3" in found.err
    assert not (tmp_path / "page").exists()


def test_the_plan_says_which_claims_can_be_decided(cli, made, tmp_path: Path) -> None:
    file, artifacts = made
    found = cli("report", *artifacts, "--claims", file, "--check", "--out", tmp_path / "page")
    assert found.code == 0, found.err
    text = found.out + found.err
    assert "claim A" in text
    assert "can be decided" in text
    assert "no artifacts of never-run" in text


def test_a_wrong_file_of_claims_is_refused(cli, made, tmp_path: Path) -> None:
    _, artifacts = made
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(CLAIMS.replace("smallest", "smalest").replace("comparison", "comparision"))
    found = cli("report", *artifacts, "--claims", wrong, "--out", tmp_path / "page")
    assert found.code == 2
    assert "wrong.toml:10 [claims.A] measures 1: unknown key 'smalest'" in found.err
    assert "did you mean 'comparison'?" in found.err
    assert cli("recipe", "check", wrong).code == 2
    missing = cli("report", *artifacts, "--claims", "clams", "--out", tmp_path / "page")
    assert missing.code == 3
    assert "did you mean 'claims'" in missing.err


def test_the_shipped_claims_go_by_name(cli, made, tmp_path: Path) -> None:
    _, artifacts = made
    found = cli("report", *artifacts, "--claims", "claims", "--out", tmp_path / "page")
    assert found.code == 0, found.err
    claims = json.loads((tmp_path / "page" / "claims.json").read_text())["claims"]
    assert len(claims) == 11
    assert {claim["verdict"] for claim in claims.values()} == {"not run"}
