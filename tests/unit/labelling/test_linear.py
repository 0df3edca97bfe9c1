"""The linear labeller: learns from words, keeps proportions, is the same after a round trip."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from priorkit.core.errors import InputError
from priorkit.data.io.worker_processes import Workers
from priorkit.data.text.concepts import CONCEPTS
from priorkit.labelling import parallel_linear
from priorkit.labelling.label import compare_labels
from priorkit.labelling.linear import (
    CONFIG,
    WEIGHTS,
    check_linear_labeller,
    fit_linear_labeller,
    load_linear_labeller,
)

MARKS = {
    "visual_concept": "dog street tree house",
    "visual_attribute": "red striped tall shiny",
    "visual_relationship": "beside above inside behind",
    "code_reasoning": "def return loop ( ) [ ] {",
    "math_reasoning": "theorem = + proof ^ integer",
    "science_reasoning": "hypothesis measured sample decay",
}
FILLER = [
    "and",
    "then",
    "it",
    "was",
    "said",
    "that",
    "all",
    "of",
    "this",
    "is",
    "so",
    "because",
    "of",
    "what",
    "they",
    "had",
    "to",
    "do",
    "when",
]


def labelled(count: int, seed: int, rare: float = 0.25) -> tuple[list[str], np.ndarray]:
    """Texts in which each label's words are mixed with filler, if the text has the label."""
    draw = random.Random(seed)
    texts, labels = [], np.zeros((count, len(CONCEPTS)), dtype=bool)
    for row in range(count):
        words = [draw.choice(FILLER) for _ in range(40)]
        for column, name in enumerate(CONCEPTS):
            if draw.random() < (0.03 if name == "math_reasoning" else rare):
                labels[row, column] = True
                words += [draw.choice(MARKS[name].split()) for _ in range(3)]
        draw.shuffle(words)
        texts.append(" ".join(words))
    return texts, labels


@pytest.fixture(scope="module")
def linear():
    return fit_linear_labeller(*labelled(500, 1), 42)


def test_it_learns_from_words(linear) -> None:
    texts, labels = labelled(400, 2)
    rows = {
        row["label"]: row for row in compare_labels(labels, linear.score(texts).scores >= linear.thresholds)
    }
    assert set(rows) == {*CONCEPTS, "visual", "reasoning"}
    for name, row in rows.items():
        if name != "math_reasoning":  # 15 examples among 500
            assert row["kappa"] > 0.8, name
    assert rows["math_reasoning"]["f1"] > 0.5
    # The threshold keeps proportions: as many labels are predicted as are given, for the rare label too.
    assert all(abs(row["predicted"] - row["given"]) <= 0.05 * row["items"] for row in rows.values())


def test_scores_depend_only_on_the_text(linear) -> None:
    texts, _ = labelled(50, 3)
    once = linear.score(texts).scores
    assert (once == linear.score(texts[::-1]).scores[::-1]).all()
    assert (once[7] == linear.score([texts[7]]).scores[0]).all()
    assert ((once >= 0) & (once <= 1)).all()
    assert np.isfinite(linear.score([""]).scores).all()


def test_processes_share_the_texts(linear, tmp_path: Path) -> None:
    texts, _ = labelled(301, 4)
    linear.save(tmp_path, {})
    asked: list[int] = []

    class Counted(Workers):
        def _ask(self, task):
            asked.append(len(task["texts"]))
            return super()._ask(task)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parallel_linear, "Workers", Counted)
        with parallel_linear.in_processes(linear, tmp_path, 2) as parallel:
            found = parallel.score(texts).scores
            assert parallel.score([]).scores.shape == (0, len(CONCEPTS))
    assert sorted(asked) == [150, 151]
    assert found.dtype == np.float32
    assert (found == linear.score(texts).scores).all()
    with parallel_linear.in_processes(linear, tmp_path, 1) as single:
        assert single is linear


def test_the_same_sample_gives_the_same_bytes(linear, tmp_path: Path) -> None:
    again = fit_linear_labeller(*labelled(500, 1), 42)
    for name, labeller in (("a", linear), ("b", again)):
        labeller.save(tmp_path / name, {"learnt_from": 500})
    for file in (CONFIG, WEIGHTS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    loaded = load_linear_labeller(tmp_path / "a")
    texts, _ = labelled(20, 4)
    np.testing.assert_array_equal(loaded.score(texts).scores, linear.score(texts).scores)
    np.testing.assert_array_equal(loaded.thresholds, linear.thresholds)
    assert set(load_file(tmp_path / "a" / WEIGHTS)) == {"coefficients", "intercepts"}


def test_labels_that_all_or_none_have(linear) -> None:
    texts, labels = labelled(60, 5)
    labels[:, 0], labels[:, 1] = True, False
    found = fit_linear_labeller(texts, labels, 1)
    present = found.score(texts).scores >= found.thresholds
    assert present[:, 0].all()
    assert not present[:, 1].any()
    single = fit_linear_labeller(["one text"], np.ones((1, 6), dtype=bool), 1)
    assert (single.score(["another"]).scores >= single.thresholds).all()
    with pytest.raises(InputError, match="no labelled text"):
        fit_linear_labeller([], np.zeros((0, 6), dtype=bool), 1)


def test_a_damaged_labeller_is_refused(linear, tmp_path: Path) -> None:
    folder = tmp_path / "l"
    linear.save(folder, {})
    content = json.loads((folder / CONFIG).read_text())

    def refused(change: dict, match: str) -> None:
        (folder / CONFIG).write_text(json.dumps({**content, **change}))
        with pytest.raises(InputError, match=match):
            check_linear_labeller(folder)

    refused({"kind": "other"}, "of kind")
    refused({"labels": ["a"]}, "expected the labels")
    refused({"thresholds": {}}, "not a valid description")
    refused({"features": 12}, r"expected the tensor coefficients of shape \(6, 12\)")
    (folder / CONFIG).write_text(json.dumps(content))
    save_file({"coefficients": np.zeros((6, 3), dtype=np.float32)}, folder / WEIGHTS)
    with pytest.raises(InputError, match="expected the tensor coefficients"):
        load_linear_labeller(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match="missing"):
        check_linear_labeller(folder)
