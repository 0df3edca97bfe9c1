"""Where models fail: how many entities each part holds back."""

from __future__ import annotations

from priorkit.core.interval import Interval
from priorkit.data.results.artifact_graph import Members
from priorkit.report import numbers
from priorkit.report.blocks import Finding
from priorkit.report.sections.diagnosis import read_results_of
from priorkit.report.sections.findings.wording import listed

_NO_PART = ("none", "not decidable")


def diagnosis_finding(members: Members) -> Finding | None:
    """What the first diagnosis that was given says of its entities."""
    found = members.diagnoses()
    if not found:
        return None
    member = found[0]
    results = read_results_of(member)
    counts: dict[str, int] = results["verdicts"]
    accuracy = Interval.from_dict(results["means"]["accuracy"])
    at_fault = sorted(
        ((verdict, count) for verdict, count in counts.items() if count and verdict not in _NO_PART),
        key=lambda pair: -pair[1],
    )
    named = [f"{verdict} {count}" for verdict, count in at_fault] or ["none was found"]
    sentences = [
        f"In {member.label}, {numbers.with_interval(accuracy)} of the images of {sum(counts.values())} entities are "
        f"named right.",
        f"Parts at fault ({results['verdicts_by']}), in number of entities: {listed(named, most=len(named))}; for "
        f"{counts.get('none', 0)} there is none.",
    ]
    if open_ones := counts.get("not decidable", 0):
        # Diagnoses made before do not say how many.
        several: int = results.get("several_weak_parts", 0)
        why = f", {several} of them as several parts look weak" if several else ""
        sentences.append(f"{open_ones} are not decidable{why}.")
    return Finding(" ".join(sentences), "diagnosis")
