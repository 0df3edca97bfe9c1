"""Which of several models is better, and which comparison cannot be decided."""

from __future__ import annotations

from collections.abc import Sequence

from priorkit.core.interval import Interval
from priorkit.data.results.artifact_graph import Members
from priorkit.report.blocks import Finding
from priorkit.report.sections.evaluations.comparison import compared_pairs, paired_items
from priorkit.report.sections.findings.seeing import images_withheld
from priorkit.report.sections.findings.wording import direction, known, listed, signed
from priorkit.report.shared_items import mean_difference


def comparison_finding(members: Members) -> Finding | None:
    """Paired differences between models that saw the images: those that can be decided, and those that cannot."""
    evaluated = [
        member
        for member in members.evaluations()
        if member.evaluation.countable and not images_withheld(member)
    ]
    differences: list[tuple[str, Interval]] = []
    for first, second in compared_pairs(evaluated):
        items = [pair for pairs in paired_items(first, second).values() for pair in pairs]
        if not items:
            continue
        interval = mean_difference([one for one, _ in items], [other for _, other in items], members)
        if known(interval):
            title = f"{second.label} \N{MINUS SIGN} {first.label}"
            differences.append((f"{title} {signed(interval)} ({len(items):,} questions)", interval))
    decided = [difference for difference in differences if direction(difference[1])]
    undecided = [difference for difference in differences if not direction(difference[1])]
    sentences: list[str] = []
    if decided:
        largest_first = sorted(decided, key=lambda difference: -abs(difference[1].value))
        sentences.append(f"Accuracy differs on the same questions: {_listed(largest_first)}.")
    if undecided:
        sentences.append(f"It cannot be decided which is better: {_listed(undecided)}.")
    return Finding(" ".join(sentences), "differences") if sentences else None


def _listed(differences: Sequence[tuple[str, Interval]]) -> str:
    return listed([text for text, _ in differences])
