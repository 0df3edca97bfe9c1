"""What a section is made of: tables, plots, notes, trees and galleries, and a section's files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from priorkit.core.interval import Interval
from priorkit.report import numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Signed:
    """A difference with its interval; shown with its sign."""

    interval: Interval


@dataclass(frozen=True, slots=True)
class Shown:
    """A number that is shown in its own way: a p-value, a share, a duration."""

    value: float
    text: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """Small images in a table's cell, as data URIs."""

    uris: tuple[str, ...]


Cell = str | int | float | Interval | Signed | Shown | Pictures | None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: the CSV file's name without suffix; also the anchor.
        caption: what it shows.
        columns: headings.
        rows: cells, one per column.
        colors: the series number of a column whose heading is an artifact, -1 elsewhere.
        note: small print below.
        folded: whether it is closed until the reader opens it.
    """

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    colors: Sequence[int] = ()
    note: str = ""
    folded: bool = False

    kind = "table"

    def without_empty(self) -> Table:
        """The table without the columns that hold nothing in any row."""
        kept = [n for n in range(len(self.columns)) if any(row[n] not in (None, "") for row in self.rows)]
        return replace(
            self,
            columns=[self.columns[n] for n in kept],
            rows=[[row[n] for n in kept] for row in self.rows],
            colors=[self.color(n) for n in kept],
        )

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers and so is aligned to the right."""
        cells = [row[column] for row in self.rows if row[column] not in (None, "")]
        return bool(cells) and not any(isinstance(cell, str | Pictures) for cell in cells)

    def color(self, column: int) -> int:
        """The series number of a column, -1 where it has none."""
        return self.colors[column] if column < len(self.colors) else -1

    def csv(self) -> str:
        """The table with all digits; an interval takes three columns."""
        wide = [
            any(isinstance(row[column], Interval | Signed) for row in self.rows)
            for column in range(len(self.columns))
        ]
        shown = [
            not any(isinstance(row[column], Pictures) for row in self.rows)
            for column in range(len(self.columns))
        ]
        heading: list[str] = []
        for column, title in enumerate(self.columns):
            if shown[column]:
                heading += [title, f"{title} low", f"{title} high"] if wide[column] else [title]
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(heading)
        for row in self.rows:
            line: list[str] = []
            for column, cell in enumerate(row):
                if shown[column]:
                    line += _csv_cells(cell) if wide[column] else _csv_cells(cell)[:1]
            writer.writerow(line)
        return stream.getvalue()

    def text(self) -> str:
        """The table as plain text for a terminal."""
        grid = [list(self.columns), *([cell_text(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[column]) for row in grid) for column in range(len(self.columns))]
        right = [self.numeric(column) for column in range(len(self.columns))]
        lines = [
            "  ".join(
                value.rjust(width) if to_right else value.ljust(width)
                for value, width, to_right in zip(row, widths, right, strict=True)
            ).rstrip()
            for row in grid
        ]
        return "\n".join([self.caption, *(f"  {line}" for line in lines)])


def _csv_cells(cell: Cell) -> list[str]:
    if isinstance(cell, Signed):
        cell = cell.interval
    if isinstance(cell, Interval):
        return ["" if math.isnan(value) else repr(value) for value in (cell.value, cell.low, cell.high)]
    if isinstance(cell, Shown):
        cell = cell.value
    if isinstance(cell, float):
        return ["" if math.isnan(cell) else repr(cell), "", ""]
    return ["" if cell is None else str(cell), "", ""]


def cell_text(cell: Cell) -> str:
    """A cell as people read it."""
    match cell:
        case None | Pictures():
            return ""
        case Interval():
            return numbers.with_interval(cell)
        case Signed():
            return numbers.with_interval(cell.interval, signed=True)
        case Shown():
            return cell.text
        case int():
            return f"{cell:,}"
        case float():
            return numbers.plain(cell)
        case str():
            return cell


@dataclass(frozen=True)
class Plot:
    """A figure with its caption; the name is that of its files."""

    name: str
    caption: str
    figure: Figure

    kind = "plot"


TableOrPlot = TypeVar("TableOrPlot", bound=Table | Plot)


def told_apart(block: TableOrPlot, place: int, title: str = "") -> TableOrPlot:
    """One of several blocks of the same sort: a file name of its own, and a caption that says whose it is.

    Args:
        block: the block under its plain name.
        place: its number; the first keeps its name.
        title: what stands before the caption; nothing where empty.
    """
    return replace(
        block,
        name=f"{block.name}-{place + 1}" if place else block.name,
        caption=f"{title}: {block.caption}" if title else block.caption,
    )


@dataclass(frozen=True, slots=True)
class Note:
    """A paragraph."""

    text: str

    kind = "note"


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on an image, normalised x1, y1, x2, y2."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to an example."""

    label: str
    color: int
    raw: str
    parsed: str
    right: bool | None
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One item of a benchmark with every model's answer."""

    benchmark: str
    id: str
    prompt: str
    truth: str
    groups: str
    image: str
    answers: tuple[Answer, ...]
    box: Box | None = None


@dataclass(frozen=True)
class Gallery:
    """Examples as cards."""

    examples: Sequence[Example]

    kind = "gallery"


@dataclass(frozen=True, slots=True)
class Node:
    """An artifact or another input in the lineage, placed on a grid of pixels."""

    label: str
    detail: str
    given: bool
    known: bool
    x: float
    y: float
    width: float


@dataclass(frozen=True)
class Graph:
    """The lineage: nodes and the curves between them (SVG path data)."""

    nodes: Sequence[Node]
    paths: Sequence[str]
    width: float
    height: float

    kind = "graph"


Block = Table | Plot | Note | Gallery | Graph


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        anchor: its address within the page.
        title: its heading.
        intro: a paragraph that says what is shown.
        blocks: what it shows.
        headline: its tables that belong into the summary, on the page and in the terminal.
    """

    anchor: str
    title: str
    intro: str
    blocks: Sequence[Block]
    headline: Sequence[Table] = ()
