"""Files of claims: what is read, and how mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from priorkit.analysis.claims.reading import read_claims
from priorkit.core.errors import InputError, UsageError
from priorkit.core.options import recipe

GOOD = """
[claims.A1]
paper = "P"
statement = "S."
comparison = "C."

[[claims.A1.measures]]
name = "m"
kind = "difference"
smallest = 0.1
benchmarks = "naming"
where = { prior = "weak", in_text = true }
contrast = [{ evaluation = "a" }, { evaluation = "b", where = { prior = ["weak", "none"] }, weight = -1 }]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "claims.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_parts_have_what_they_leave_out_from_the_measure(tmp_path: Path) -> None:
    (claim,) = read_claims(written(tmp_path, GOOD))
    assert (claim.id, claim.stated.seeds, claim.controls) == ("A1", 3, [])
    first, second = claim.terms()
    assert first.benchmarks == second.benchmarks == ("naming",)
    assert first.value == "score"
    assert first.where == {"prior": ("weak",), "in_text": ("yes",)}
    assert second.where == {"prior": ("weak", "none"), "in_text": ("yes",)}
    assert claim.labels() == ["a", "b"]


def test_the_shipped_claims_are_the_eleven() -> None:
    claims = read_claims(recipe.shipped()["claims"])
    assert [claim.id for claim in claims] == [
        "V1",
        "V2",
        "V3",
        "L1",
        "L2",
        "L3",
        "S1",
        "S2",
        "S3",
        "S4",
        "S5",
    ]
    assert all(claim.stated.seeds >= 3 for claim in claims)
    assert all(measure.smallest for claim in claims for measure in claim.measures)
    assert [claim.id for claim in claims if claim.stated.gate] == ["L1", "L2", "L3"]


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ('statement = "S."', 'statment = "S."', ":4 [claims.A1]", "did you mean 'statement'"),
        ('paper = "P"\n', "", ":2 [claims.A1]", "missing key 'paper'"),
        (
            'comparison = "C."',
            'comparison = "C."\nseeds = 2',
            ":6 [claims.A1]",
            "greater than or equal to 3, got 2",
        ),
        ("smallest = 0.1\n", "", ":7 [claims.A1] measures 1", "missing key 'smallest'"),
        ("smallest = 0.1", "smallest = 0", ":10 [claims.A1] measures 1", "greater than 0, got 0"),
        ("smallest = 0.1", "smallest = true", ":10 [claims.A1] measures 1", "a valid number, got true"),
        ("smallest = 0.1", "smalest = 0.1", ":10 [claims.A1] measures 1", "did you mean 'smallest'"),
        ('"difference"', '"diference"', ":9 [claims.A1] measures 1", "did you mean 'difference'"),
        ('kind = "difference"\n', "", ":7 [claims.A1] measures 1", "missing key 'kind'"),
        ('benchmarks = "naming"\n', "", ":7 [claims.A1] measures 1", "missing key 'benchmarks'"),
        ("weight = -1", "wieght = -1", ":13 [claims.A1] measures 1", "did you mean 'weight'"),
        ("weight = -1", "weight = 1", ":7 [claims.A1] measures 1", "add up to 0, got 2"),
        (', { evaluation = "b"', ', { value = "scores", evaluation = "b"', ":13", "did you mean 'score'"),
        ("[[claims.A1.measures]]", "[[claims.A1.mesures]]", ":2 [claims.A1]", "no measure decides it"),
        ("[[claims.A1.measures]]", "[[claims.A1.mesures]]", ":7 [claims.A1]", "did you mean 'measures'"),
        ("[[claims.A1.measures]]", "[claims.A1.measures]", ":2 [claims.A1]", "a list of tables"),
        ('evaluation = "a"', 'evaluation = "a@1"', ":2 [claims.A1]", "write 'a'"),
        ("[claims.A1]", "[tune]\nsteps = 3\n[claims.A1]", "claims.toml", "unknown table 'tune'"),
    ],
)
def test_mistakes_are_named_with_their_place(
    tmp_path: Path, old: str, new: str, place: str, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        read_claims(written(tmp_path, GOOD.replace(old, new)))
    assert any(
        place in problem.where and message in f"{problem.what} {problem.hint}"
        for problem in caught.value.problems
    ), str(caught.value)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    second = GOOD.replace("A1", "A2").replace('"difference"', '"diference"')
    with pytest.raises(UsageError) as caught:
        read_claims(written(tmp_path, GOOD.replace("smallest", "smalest") + second))
    assert "smalest" in str(caught.value)
    assert "diference" in str(caught.value)


@pytest.mark.parametrize("text", ["", "claims = 3", "[claims]", "[claims]\nA1 = 3"])
def test_a_file_without_claims_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"states no claim|should be a table"):
        read_claims(written(tmp_path, text))


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not valid TOML"):
        read_claims(written(tmp_path, "[claims"))
    with pytest.raises(InputError, match="no such recipe"):
        read_claims(tmp_path / "none.toml")
