"""Diagnoses: what holds entities back, the worst of them with images, and what to run."""

from __future__ import annotations

from typing import Any

from priorkit.core.errors import InputError
from priorkit.core.interval import Interval
from priorkit.core.json_text import parse_json
from priorkit.data.results.artifact_graph import Member, Members
from priorkit.report.blocks import Block, Cell, CellImages, Plot, Section, SignedInterval, Table, numbered
from priorkit.report.pictures import entity_pictures
from priorkit.report.plots.diagnosis import entity_map

WORST = 8
_STRENGTHS = (
    (("encoder_separability", "separability behind the encoder"), ("rank_e", "1 / Rank_e, mean")),
    (("name_log_probability", "log-probability of the name"), ("fact_margin", "margin of facts")),
)
"""Measures of the map's two axes: the first that an artifact has."""


def diagnosis_section(members: Members) -> Section | None:
    """Verdicts, map, measures, worst entities and remedies of every diagnosis."""
    blocks: list[Block] = []
    headline: list[Table] = []
    found = members.diagnoses()
    for index, member in enumerate(found):
        title = member.label if len(found) > 1 else ""
        results = read_results_of(member)
        verdicts = _verdicts(member, results)
        headline.append(numbered(verdicts, index, title))
        tables = [verdicts, *_map(member, results), _measures(results), _worst(member), *_remedies(results)]
        blocks += [numbered(block, index, title) for block in tables]
    if not blocks:
        return None
    intro = (
        "For each entity the part that is at fault, or none; what the data does not carry is not decidable. Where a "
        "false-discovery rate is stated, at most this share of the entities given to a part is expected to be wrong. "
        "95 % intervals resample entities."
    )
    return Section("diagnosis", "What holds the model back", intro, blocks, headline)


def read_results_of(member: Member) -> dict[str, Any]:
    """Read ``results.json`` of a diagnosis.

    Raises:
        InputError: it is missing or damaged.
    """
    file = member.artifact.path / "results.json"
    try:
        return parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"not a readable diagnosis: {error}", where=str(file)) from None


def _verdicts(member: Member, results: dict[str, Any]) -> Table:
    table = member.table
    by_verdict: dict[str, list[float]] = {verdict: [] for verdict in results["verdicts"]}
    for verdict, accuracy in zip(table["verdict"], table["accuracy"], strict=True):
        if accuracy is not None:
            by_verdict[str(verdict)].append(float(accuracy))
    rows: list[list[Cell]] = [
        [verdict, count, sum(by_verdict[verdict]) / len(by_verdict[verdict]) if by_verdict[verdict] else None]
        for verdict, count in results["verdicts"].items()
    ]
    note = f"By {results['verdicts_by']}, compared with {results['control_entities']} entities that work."
    if "false_discovery_rate" in results:
        note += f" False-discovery rate {results['false_discovery_rate']:g} within each part."
    left_out: dict[str, str] = results.get("left_out", {})
    note += "".join(f" Left out: {name.replace('_', ' ')} ({why})." for name, why in left_out.items())
    return Table("verdicts", "Entities by verdict", ["verdict", "entities", "mean accuracy"], rows, note=note)


def _map(member: Member, results: dict[str, Any]) -> list[Plot]:
    table = member.table
    across, up = (next((pair for pair in choices if pair[0] in table), None) for choices in _STRENGTHS)
    if across is None or up is None:
        return []
    (first, x_title), (second, y_title) = across, up
    shown = [
        row
        for row in range(len(table["entity"]))
        if None not in (table[first][row], table[second][row], table["accuracy"][row])
    ]
    if not shown:
        return []
    figure = entity_map(
        [table[first][row] for row in shown],
        [table[second][row] for row in shown],
        [table["accuracy"][row] for row in shown],
        [str(table["verdict"][row]) for row in shown],
        list(results["verdicts"]),
        (f"encoder: {x_title}", f"language model: {y_title}"),
    )
    return [Plot("entity-map", "Every dot is an entity (equal strengths are jittered)", figure)]


def _measures(results: dict[str, Any]) -> Table:
    """Measures over all entities, and those of the model."""
    rows: list[list[Cell]] = [
        [name.replace("_", " "), Interval.from_dict(entry)] for name, entry in results["means"].items()
    ]
    rows.append(["correct given attempted", Interval.from_dict(results["correct_given_attempted"])])
    if results["knowledge_gap"] is not None:
        rows.append(["knowledge gap", SignedInterval(Interval.from_dict(results["knowledge_gap"]))])
    for k, entry in results["neighbor_overlap"].items():
        rows.append([f"neighbor overlap across the projector, k = {k}", Interval.from_dict(entry)])
    for place, entry in results["readout_gap"].items():
        rows.append([f"readout gap at {place}", SignedInterval(Interval.from_dict(entry))])
    arbitration = results["arbitration"]
    for layer, entry in zip(arbitration["layers"], arbitration["margin"], strict=True):
        rows.append([f"arbitration margin at layer {layer}", SignedInterval(Interval.from_dict(entry))])
    return Table("diagnosis-measures", "Measures over all entities", ["measure", "value"], rows, folded=True)


def _worst(member: Member) -> Table:
    """The entities with a cause that are named right least, with images."""
    table = member.table
    rows = [
        row
        for row, verdict in enumerate(table["verdict"])
        if table["probability"][row] is not None and table["accuracy"][row] is not None and verdict != "none"
    ]
    rows = sorted(rows, key=lambda row: (table["accuracy"][row], -table["probability"][row]))[:WORST]
    names = [str(table["entity"][row]) for row in rows]
    pictures = entity_pictures(member.artifact, names)
    cells: list[list[Cell]] = [
        [
            CellImages(pictures.get(name, ())),
            name,
            str(table["verdict"][row]),
            float(table["probability"][row]),
            Interval(
                *(float(table[column][row]) for column in ("accuracy", "accuracy_low", "accuracy_high"))
            ),
            ", ".join(table["confused_with"][row] or []),
        ]
        for row, name in zip(rows, names, strict=True)
    ]
    heading = ["images", "entity", "verdict", "probability", "accuracy", "confused with"]
    pictured = any(pictures.values())
    return Table(
        "diagnosed-worst",
        "Entities with a cause that are named right least",
        heading if pictured else heading[1:],
        cells if pictured else [row[1:] for row in cells],
    )


def _remedies(results: dict[str, Any]) -> list[Table]:
    rows: list[list[Cell]] = [
        [
            part,
            remedy["entities"],
            "; ".join(remedy["commands"]),
            remedy["data"],
            SignedInterval(Interval.from_dict(remedy["expected_gain"])) if remedy["expected_gain"] else None,
        ]
        for part, remedy in results["remedies"].items()
    ]
    if not rows:
        return []
    table = Table(
        "remedies",
        "What to run (also in remedies/commands.sh of the artifact, with the names of each cause)",
        ["cause", "entities", "commands", "data", "expected gain"],
        rows,
    )
    return [table.without_empty()]
