"""How it was made: lineage, mixtures, training curves, cost and versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError
from priorkit.core.json_text import parse_json
from priorkit.data.results.artifact_graph import Member, Members
from priorkit.report import numbers
from priorkit.report.blocks import Cell, FormattedNumber, Plot, Section, Table
from priorkit.report.lineage import lineage
from priorkit.report.plots.runs import LossCurve, loss_curves, mixture_shares

SMOOTHING = 0.012
"""Width (one standard deviation) of the smoothed loss's window, as a share of the run."""


def lineage_section(members: Members) -> Section:
    """Which artifact was made from which."""
    intro = (
        "Which artifact was made from which, by content digests. Filled boxes: artifacts given to the report; outlined: "
        "artifacts found as their inputs; dashed: other inputs."
    )
    return Section("lineage", "Lineage", intro, [lineage(members.all)])


def mixture_section(members: Members) -> Section | None:
    """Realised shares of the corpora."""
    corpora = [
        member for member in members.all if member.artifact.kind == "corpus" and member.metrics.get("shares")
    ]
    if not corpora:
        return None
    rows: list[list[Cell]] = [
        [
            member.label,
            source,
            FormattedNumber(part, numbers.share(part)),
            round(part * member.metrics.get("tokens", 0)),
            float(member.metrics.get("epochs", {}).get(source, float("nan"))),
        ]
        for member in corpora
        for source, part in member.metrics["shares"].items()
    ]
    figure = mixture_shares({member.label: member.metrics["shares"] for member in corpora})
    return Section(
        "mixtures",
        "Corpora",
        "Realized shares of tokens, and the number of epochs over each source.",
        [
            Plot("mixtures", "Sources of each corpus", figure),
            Table("mixtures", "Shares", ["corpus", "source", "share", "tokens", "epochs"], rows),
        ],
    )


def training_section(members: Members) -> Section | None:
    """Loss curves of all training steps."""
    trained = [(member, curve) for member in members.all if (curve := read_curve(member)) is not None]
    if not trained:
        return None
    rows: list[list[Cell]] = [
        [
            member.label,
            member.step,
            int(np.asarray(curve.x)[-1]),
            float(np.asarray(curve.smooth)[0]),
            float(np.asarray(curve.smooth)[-1]),
            float(np.asarray(curve.raw).min()),
        ]
        for member, curve in trained
    ]
    return Section(
        "training",
        "Training",
        "Loss over steps: raw values pale, smoothed values strong. The vertical scales differ.",
        [
            Plot("loss", "Training loss", loss_curves([curve for _, curve in trained])),
            Table(
                "training",
                "Losses (first and last smoothed, lowest raw)",
                ["artifact", "step", "steps", "first", "last", "lowest"],
                rows,
            ),
        ],
    )


def read_curve(member: Member) -> LossCurve | None:
    """The loss curve of a training step; None where the artifact has none.

    Raises:
        InputError: a line of ``metrics.jsonl`` cannot be read.
    """
    file = member.artifact.path / "metrics.jsonl"
    if not file.is_file():
        return None
    steps, losses = _read_losses(file)
    if not steps:
        return None
    raw = np.array(losses)
    return LossCurve(f"{member.label} ({member.step})", np.array(steps), raw, smoothed(raw))


def _read_losses(file: Path) -> tuple[list[int], list[float]]:
    steps: list[int] = []
    losses: list[float] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = parse_json(line)
            if row.get("loss") is not None:
                steps.append(int(row["step"]))
                losses.append(float(row["loss"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not a line of training metrics: {error!r}", where=f"{file}:{number}") from None
    return steps, losses


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian moving average around each step; near the ends it averages over what is there.

    Args:
        values: [steps].
    """
    width = max(1.0, SMOOTHING * len(values))
    reach = min(len(values) - 1, round(3 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    middle = slice(reach, reach + len(values))
    sums = np.convolve(values, kernel)[middle]
    return np.asarray(sums / np.convolve(np.ones(len(values)), kernel)[middle], dtype=np.float64)


_MANY = 40
"""Tables with more rows are folded away."""

_RATES = ("tokens_per_second", "images_per_second", "items_per_second")


def cost_section(members: Members) -> Section | None:
    """Time, throughput and memory of every step."""
    costly = [member for member in members.all if member.artifact.manifest.cost]
    if not costly:
        return None
    rates = [name for name in _RATES if any(name in member.artifact.manifest.cost for member in costly)]
    rows: list[list[Cell]] = []
    for member in costly:
        cost = member.artifact.manifest.cost
        peak = cost.get("peak_memory_bytes")
        rows.append(
            [
                member.label,
                member.step,
                _duration(cost.get("seconds")),
                _duration(cost.get("training_seconds")),
                *(cost.get(name) for name in rates),
                None if peak is None else FormattedNumber(peak, numbers.size_in_bytes(peak)),
                _energy(cost.get("energy_joules")),
                _size(member),
            ]
        )
    total = sum(member.artifact.manifest.cost.get("seconds", 0.0) for member in costly)
    return Section(
        "cost",
        "Cost",
        f"All steps shown here took {numbers.seconds(total)} in total.",
        [
            Table(
                "cost",
                "Time, throughput, peak memory of the process, energy of the processors, and size on disk",
                [
                    *("artifact", "step", "time", "of which training"),
                    *(name.replace("_per_second", "/s") for name in rates),
                    *("peak memory", "energy", "size"),
                ],
                rows,
                folded=len(rows) > _MANY,
            ).without_empty()
        ],
    )


def _energy(joules: float | None) -> FormattedNumber | None:
    return None if joules is None else FormattedNumber(joules, f"{joules / 3600:.3g} Wh")


def _duration(value: float | None) -> FormattedNumber | None:
    return None if value is None else FormattedNumber(value, numbers.seconds(value))


def _size(member: Member) -> FormattedNumber:
    size = sum(record.size for record in member.artifact.manifest.files.values())
    return FormattedNumber(size, f"{size / 2**20:,.1f} MiB")


def versions_section(members: Members) -> Section:
    """Versions of what decides results, and the artifacts' digests."""
    seen: dict[str, dict[str, list[str]]] = {}
    for member in members.all:
        for name, version in member.artifact.manifest.versions.items():
            seen.setdefault(name, {}).setdefault(version, []).append(member.label)
    differing = [name for name, versions in seen.items() if len(versions) > 1]
    rows: list[list[Cell]] = [
        [name, version, "all" if len(versions) == 1 else ", ".join(labels)]
        for name, versions in seen.items()
        for version, labels in versions.items()
    ]
    digests: list[list[Cell]] = [
        [
            member.label,
            member.artifact.kind,
            member.step,
            "" if member.artifact.manifest.seed is None else str(member.artifact.manifest.seed),
            member.artifact.manifest.created.replace("T", " ").removesuffix("+00:00"),
            member.artifact.digest[:16],
        ]
        for member in members.all
    ]
    intro = (
        f"The artifacts were made with different versions of {_enumerated(differing)}."
        if differing
        else "All artifacts were made with the same versions."
    )
    return Section(
        "provenance",
        "Versions and digests",
        intro,
        [
            Table(
                "artifacts",
                "Artifacts",
                ["artifact", "kind", "step", "seed", "made (UTC)", "digest"],
                digests,
                folded=len(digests) > _MANY,
            ),
            Table("versions", "Versions", ["package", "version", "artifacts"], rows, folded=True),
        ],
    )


def _enumerated(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
