"""The lineage graph: which artifact was made from which, laid out from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from priorkit.data.results.artifact_graph import Member, owner_of
from priorkit.report.blocks import LineageGraph, LineageNode

_ROW, _GAP, _HEIGHT = 58.0, 44.0, 42.0
_CHARACTER, _MARGIN = 6.9, 22.0
_LONGEST = 30


def lineage(members: Sequence[Member]) -> LineageGraph:
    """Lay out artifacts and their inputs in columns: those without inputs are leftmost."""
    names, details, edges = _graph(members)
    depth = _depths(len(names), edges)
    columns = [
        [node for node in range(len(names)) if depth[node] == level] for level in range(max(depth) + 1)
    ]
    columns = _ordered(columns, edges)
    widths = [max(_width(names[n], details[n]) for n in column) for column in columns]
    lefts = [1.0 + sum(widths[:level]) + _GAP * level for level in range(len(columns))]
    tallest = max(len(column) for column in columns)
    boxes: dict[int, tuple[float, float, float]] = {}
    for level, column in enumerate(columns):
        top = 1.0 + _ROW * (tallest - len(column)) / 2
        for row, node in enumerate(column):
            boxes[node] = (lefts[level], top + _ROW * row, widths[level])
    nodes = [
        LineageNode(
            _short(names[n]),
            _short(details[n]),
            n < len(members) and members[n].given,
            n < len(members),
            *boxes[n],
        )
        for n in range(len(names))
    ]
    paths = [_curve(boxes[start], boxes[end]) for start, end in edges]
    return LineageGraph(nodes, paths, lefts[-1] + widths[-1] + 1, _ROW * tallest - (_ROW - _HEIGHT) + 2)


def _graph(members: Sequence[Member]) -> tuple[list[str], list[str], list[tuple[int, int]]]:
    names = [member.label for member in members]
    details = [f"{member.step} \N{RIGHTWARDS ARROW} {member.artifact.kind}" for member in members]
    row = {member.artifact.digest: number for number, member in enumerate(members)}
    outside: dict[str, int] = {}
    edges: dict[tuple[int, int], None] = {}
    for end, member in enumerate(members):
        for record in member.artifact.manifest.inputs:
            owner = owner_of(record, members)
            if owner is not None:
                start = row[owner.artifact.digest]
            else:
                start = outside.setdefault(record.digest, len(names))
                if start == len(names):
                    names.append(Path(record.path).name or record.path)
                    details.append(record.kind)
            if start != end:
                edges[start, end] = None
    return names, details, list(edges)


def _depths(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The length of the longest path to each node; digests make cycles impossible."""
    depth = [0] * count
    for _ in range(count):
        before = list(depth)
        for start, end in edges:
            depth[end] = max(depth[end], depth[start] + 1)
        if depth == before:
            break
    # A source is placed in the column just before the first artifact made from it, so that its edge is short.
    for node in range(count):
        ends = [depth[end] for start, end in edges if start == node]
        if ends and not any(end == node for _, end in edges):
            depth[node] = min(ends) - 1
    return depth


def _ordered(columns: list[list[int]], edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Order each column by the mean position of its neighbors, alternating directions, to reduce crossings."""
    for forward in (True, False, True, False, True):
        row_of = {node: row - len(column) / 2 for column in columns for row, node in enumerate(column)}
        for column in columns:
            wish = {node: _mean_place(node, edges, row_of, forward) for node in column}
            column.sort(key=lambda node, wish=wish: wish[node])
            row_of.update({node: row - len(column) / 2 for row, node in enumerate(column)})
    return columns


def _mean_place(
    node: int, edges: Sequence[tuple[int, int]], row_of: dict[int, float], forward: bool
) -> float:
    near = (
        [row_of[s] for s, e in edges if e == node] if forward else [row_of[e] for s, e in edges if s == node]
    )
    return sum(near) / len(near) if near else row_of[node]


def _curve(start: tuple[float, float, float], end: tuple[float, float, float]) -> str:
    x1, y1 = start[0] + start[2], start[1] + _HEIGHT / 2
    x2, y2 = end[0], end[1] + _HEIGHT / 2
    bend = min(_GAP, (x2 - x1) / 2)
    return f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _width(name: str, detail: str) -> float:
    return max(len(_short(name)) * _CHARACTER * 1.08, len(_short(detail)) * _CHARACTER * 0.9) + _MARGIN
