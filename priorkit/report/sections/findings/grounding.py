"""How well a model says where things are, with an example of its boxes."""

from __future__ import annotations

from priorkit.data.results.artifact_graph import Member, Members
from priorkit.data.results.evaluations import BenchmarkResult, ScoredItem
from priorkit.report import numbers
from priorkit.report.blocks import Finding
from priorkit.report.sections.evaluations.accuracy import question_evaluations
from priorkit.report.sections.evaluations.examples import example_of
from priorkit.report.sections.findings.seeing import images_withheld

_RIGHT = 0.5
_METRIC = f"accuracy_at_{_RIGHT}"


def grounding_finding(members: Members) -> Finding | None:
    """About the last evaluation that saw the images and was asked for boxes; the one without them is named too."""
    evaluated = [
        (member, benchmark)
        for member in question_evaluations(members)
        for benchmark in member.evaluation.benchmarks.values()
        if _METRIC in benchmark.metrics
    ]
    sighted = [(member, benchmark) for member, benchmark in evaluated if not images_withheld(member)]
    if not sighted:
        return None
    member, benchmark = sighted[-1]
    text = f"Of {benchmark.items:,} boxes that {member.label} was asked for, {_share(benchmark)} overlap the true one "
    text += "by half or more (IoU)"
    without = [(other, result) for other, result in evaluated if images_withheld(other)]
    if without:
        text += f"; without the images {_share(without[-1][1])}"
    sample = typical(member, benchmark)
    if sample is None:
        return Finding(f"{text}.", "accuracy")
    text += (
        f". The example is the one in the middle of these (IoU {_iou(sample):.2f}); its true box is solid."
    )
    return Finding(text, "examples", example=example_of(sample, member))


def _share(benchmark: BenchmarkResult) -> str:
    return numbers.with_interval(benchmark.metrics[_METRIC])


def typical(member: Member, benchmark: BenchmarkResult) -> ScoredItem | None:
    """The item whose box has the median overlap of those counted as right; None where none is."""
    right = [
        sample
        for sample in member.evaluation.by_benchmark.get(benchmark.name, [])
        if isinstance(sample.row.get("iou"), float) and _iou(sample) >= _RIGHT
    ]
    ranked = sorted(right, key=lambda sample: (_iou(sample), sample.id))
    return ranked[len(ranked) // 2] if ranked else None


def _iou(sample: ScoredItem) -> float:
    return float(sample.row["iou"])
