"""What was trained and on what, for reports without measurements."""

from __future__ import annotations

import numpy as np

from priorkit.data.results.artifact_graph import Members
from priorkit.report import numbers
from priorkit.report.blocks import Finding
from priorkit.report.sections.findings.wording import listed
from priorkit.report.sections.runs import read_curve


def training_finding(members: Members) -> Finding | None:
    """How far the loss of the given models fell."""
    texts = [
        f"the smoothed loss of {member.label} went from {numbers.fixed(float(smooth[0]))} to "
        f"{numbers.fixed(float(smooth[-1]))} in {int(np.asarray(curve.x)[-1]):,} steps of {member.step}"
        for member in members.all
        if member.given and (curve := read_curve(member)) is not None
        for smooth in [np.asarray(curve.smooth)]
    ]
    return Finding(f"In training {listed(texts)}.", "training") if texts else None


def corpora_finding(members: Members) -> Finding | None:
    """What the given corpora consist of."""
    texts = [
        f"{member.label} holds {int(member.metrics.get('tokens', 0)):,} tokens: "
        + listed([f"{numbers.share(share)} {source}" for source, share in shares.items()], most=len(shares))
        for member in members.all
        if member.given and member.artifact.kind == "corpus" and (shares := member.metrics.get("shares"))
    ]
    return Finding(f"{'; '.join(texts)}.", "mixtures") if texts else None


def no_measurements(members: Members) -> list[Finding]:
    """That the given artifacts hold no figures to report."""
    given = [
        f"{member.label} ({member.artifact.kind} made by {member.step})"
        for member in members.all
        if member.given
    ]
    if not given:
        return []
    return [Finding(f"No measurement is among the artifacts: {listed(given)}.", "lineage")]
