"""Two evaluations compared on the items that both answered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from priorkit.analysis.disagreements import (
    Disagreement,
    changed_conditions,
    reason_of,
    sentences,
)
from priorkit.core.errors import InputError
from priorkit.core.interval import Interval, finite
from priorkit.data.results.evaluation_files import read_document, read_samples, shared_benchmarks
from priorkit.scoring.statistics.intervals import bootstrap_difference, mcnemar_exact, permutation_test

EXAMPLES = 20
"""Ids of items that only one of the two got right, kept for looking at."""


@dataclass(frozen=True)
class Paired:
    """One benchmark.

    Attributes:
        name: the benchmark.
        items: how many items both answered.
        unpaired: how many only one of them has, or has a score of.
        first: mean score of the first.
        second: mean score of the second.
        difference: first minus second, with its interval.
        p: exact McNemar test where scores are right or wrong, else the paired permutation test.
        test: which of them.
        detectable: differences under this are not detectable with these items.
        gained: ids of items on which the first scores more.
        lost: ids of items on which it scores less.
        same_answers: items whose written answers are the same.
        disagreements: the items whose scores differ, each with its reason.
    """

    name: str
    items: int
    unpaired: int
    first: float
    second: float
    difference: Interval
    p: float
    test: str
    detectable: float
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    same_answers: int
    disagreements: tuple[Disagreement, ...]

    @property
    def reasons(self) -> dict[str, dict[str, int]]:
        """By reason, the most frequent first: how many items the first scores more and less on."""
        counts = Counter(found.reason for found in self.disagreements)
        gained = set(self.gained)
        return {
            reason: {
                "items": count,
                "gained": sum(found.reason == reason and found.id in gained for found in self.disagreements),
            }
            for reason, count in counts.most_common()
        }


@dataclass(frozen=True)
class Comparison:
    """Two evaluations.

    Attributes:
        first: the one.
        second: the other.
        benchmarks: those of both.
        changed: what was different when they were asked, by name: the two values.
    """

    first: str
    second: str
    benchmarks: tuple[Paired, ...]
    changed: Mapping[str, Sequence[Any]]

    def to_json(self) -> dict[str, Any]:
        """As ``comparison.json`` holds it."""
        return {
            "first": self.first,
            "second": self.second,
            "changed": dict(self.changed),
            "benchmarks": {
                benchmark.name: {
                    "items": benchmark.items,
                    "unpaired": benchmark.unpaired,
                    "first": benchmark.first,
                    "second": benchmark.second,
                    "difference": benchmark.difference.to_dict(),
                    "p": benchmark.p,
                    "test": benchmark.test,
                    "detectable_difference": finite(benchmark.detectable),
                    "gained": len(benchmark.gained),
                    "lost": len(benchmark.lost),
                    "gained_items": list(benchmark.gained[:EXAMPLES]),
                    "lost_items": list(benchmark.lost[:EXAMPLES]),
                    "same_answers": benchmark.same_answers,
                    "reasons": benchmark.reasons,
                }
                for benchmark in self.benchmarks
            },
        }

    def write(self, folder: Path) -> None:
        """Write ``comparison.json``, and ``comparison.jsonl`` with a line per item whose scores differ."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False)
        (folder / "comparison.json").write_text(text + "\n", encoding="utf-8")
        with (folder / "comparison.jsonl").open("w", encoding="utf-8") as stream:
            for benchmark in self.benchmarks:
                for found in benchmark.disagreements:
                    row = {"benchmark": benchmark.name, **found.to_json()}
                    stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def compare(first: Path, second: Path, seed: int = 42, resamples: int = 1000) -> Comparison:
    """Pair the items of two evaluations by benchmark and id; by place where one has places for ids.

    Intervals resample images (clusters) where the samples name them. Tests are those of
    :mod:`priorkit.scoring.statistics.intervals`; nothing is corrected for the number of comparisons.

    Args:
        first: an evaluation's folder.
        second: another one's.
        seed: of the resampling.
        resamples: number of bootstrap samples.

    Raises:
        InputError: they have no benchmark in common, or its items have another truth.
    """
    ours, theirs = _samples(first), _samples(second)
    changed = changed_conditions(read_document(first), read_document(second))
    benchmarks = tuple(
        _paired(name, ours[name], theirs[other], second, seed, resamples, changed)
        for name, other in shared_benchmarks(list(ours), list(theirs), str(second))
    )
    return Comparison(_shown(first), str(second), benchmarks, changed)


def _shown(path: Path) -> str:
    return str(path).removesuffix(".partial")


def _samples(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The samples by benchmark and id."""
    samples: dict[str, dict[str, dict[str, Any]]] = {}
    for _, row in read_samples(folder):
        samples.setdefault(str(row.get("benchmark")), {})[str(row.get("id"))] = row
    return samples


def _paired(
    name: str,
    ours: dict[str, dict[str, Any]],
    theirs: dict[str, dict[str, Any]],
    where: Path,
    seed: int,
    resamples: int,
    changed: Mapping[str, Sequence[Any]],
) -> Paired:
    by_place = not ours.keys() & theirs.keys()
    if by_place:
        theirs = _by_place(theirs, list(ours)) or theirs
        ours = ours if ours.keys() & theirs.keys() else _by_place(ours, list(theirs)) or ours
    ids = [item for item in ours if item in theirs]
    if not ids:
        raise InputError(f"no item of '{name}' in common", where=str(where), hint="are the ids the same?")
    # What has no finite score, an impossible text's likelihood say, cannot be compared.
    ids = [item for item in ids if None not in (ours[item].get("score"), theirs[item].get("score"))]
    if not ids:
        raise InputError(f"no item of '{name}' has a score in both", where=str(where))
    for item in ids:
        if by_place and not _same_question(ours[item], theirs[item]):
            raise InputError(
                f"no item of '{name}' in common by id, and the item at the place of '{item}' asks another question",
                where=str(where),
                hint="are they the same items in the same order?",
            )
        if not _same_truth(ours[item], theirs[item]):
            raise InputError(
                f"the item '{item}' of '{name}' has another truth", where=str(where), hint="another version?"
            )
    one = np.array([float(ours[item]["score"]) for item in ids])
    other = np.array([float(theirs[item]["score"]) for item in ids])
    clusters = [str(ours[key].get("cluster") or f"#{key}") for key in ids]
    interval = bootstrap_difference(one, other, seed=seed, clusters=clusters, resamples=resamples)
    binary = bool(np.isin(one, (0, 1)).all() and np.isin(other, (0, 1)).all())
    p = mcnemar_exact(one, other) if binary else permutation_test(one, other, seed=seed)
    return Paired(
        name,
        len(ids),
        len(ours) + len(theirs) - 2 * len(ids),
        float(one.mean()),
        float(other.mean()),
        interval,
        p,
        "McNemar" if binary else "permutation",
        (interval.high - interval.low) / 2,
        tuple(item for item, a, b in zip(ids, one, other, strict=True) if a > b),
        tuple(item for item, a, b in zip(ids, one, other, strict=True) if a < b),
        sum(ours[item].get("prediction") == theirs[item].get("prediction") for item in ids),
        tuple(
            Disagreement(item, reason_of(ours[item], theirs[item], changed), ours[item], theirs[item])
            for item, a, b in zip(ids, one, other, strict=True)
            if a != b
        ),
    )


def _by_place(samples: dict[str, dict[str, Any]], ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Samples that have places in the data set for ids, as lmms-eval's logs do, by the ids at these places.

    Returns:
        Nothing where an id is no place.
    """
    places = {str(place): item for place, item in enumerate(ids)}
    if not samples.keys() <= places.keys():
        return {}
    return {places[place]: row for place, row in samples.items()}


def _same_question(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether what one was asked holds the other's question; true where a question or a prompt is not recorded."""
    pairs = [(ours.get("question"), theirs.get("prompt")), (theirs.get("question"), ours.get("prompt"))]
    return all(
        " ".join(question.split()) in " ".join(prompt.split())
        for question, prompt in pairs
        if isinstance(question, str) and isinstance(prompt, str) and prompt
    )


def _same_truth(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    keys = ("choices", "answer", "answers", "references", "box")
    return all(_bare(ours[key]) == _bare(theirs[key]) for key in keys if key in ours and key in theirs)


def _bare(truth: Any) -> Any:
    """A truth without the white space around options, which harnesses' logs keep or drop."""
    if isinstance(truth, list):
        return [text.strip() if isinstance(text, str) else text for text in truth]
    return truth


def lines_of(comparison: Comparison) -> Sequence[str]:
    """A line per benchmark for people."""
    lines = [f"against {comparison.second}, on the items of both"]
    if comparison.changed:
        lines.append(f"  asked differently: {', '.join(comparison.changed)}")
    for benchmark in comparison.benchmarks:
        verdict = (
            "differs"
            if benchmark.difference.low > 0 or benchmark.difference.high < 0
            else "cannot be distinguished"
        )
        lines.append(
            f"{benchmark.name}: {benchmark.second:.4g} -> {benchmark.first:.4g}, {benchmark.difference.value:+.4g} "
            f"[{benchmark.difference.low:+.4g}, {benchmark.difference.high:+.4g}], {len(benchmark.gained)} gained, "
            f"{len(benchmark.lost)} lost, p {benchmark.p:.3g} ({benchmark.test}), {benchmark.items} items: {verdict}"
        )
        if verdict != "differs":
            lines.append(
                f"  differences under about {benchmark.detectable:.3g} cannot be distinguished with these {benchmark.items} items"
            )
        for reason, sentence in zip(benchmark.reasons, sentences(list(benchmark.reasons)), strict=True):
            lines.append(f"  {benchmark.reasons[reason]['items']} items: {sentence} ({reason})")
    return lines
