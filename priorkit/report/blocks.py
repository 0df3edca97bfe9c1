"""What a section consists of: findings, tables, plots, notes, galleries of examples, and the lineage graph."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from priorkit.core.interval import Interval
from priorkit.report import numbers
from priorkit.scoring.answers.boxes import Box

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class SignedInterval:
    """A difference with its interval, shown with a sign."""

    interval: Interval


@dataclass(frozen=True, slots=True)
class FormattedNumber:
    """A number with its text: a p-value, a share, a duration."""

    value: float
    text: str


@dataclass(frozen=True, slots=True)
class CellImages:
    """Small images in a table's cell, as data URIs."""

    uris: tuple[str, ...]


Cell = str | int | float | Interval | SignedInterval | FormattedNumber | CellImages | None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: name of the CSV file, without suffix.
        caption: heading.
        columns: column headings.
        rows: cells, one per column.
        colors: series number of each column that belongs to an artifact, -1 for others.
        note: small print below.
        folded: whether it is collapsed at first.
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
        """The table without its empty columns."""
        columns = [n for n in range(len(self.columns)) if any(row[n] not in (None, "") for row in self.rows)]
        return replace(
            self,
            columns=[self.columns[n] for n in columns],
            rows=[[row[n] for n in columns] for row in self.rows],
            colors=[self.color(n) for n in columns],
        )

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers, which are right-aligned."""
        cells = [row[column] for row in self.rows if row[column] not in (None, "")]
        return bool(cells) and not any(isinstance(cell, str | CellImages) for cell in cells)

    def color(self, column: int) -> int:
        """The series number of a column, -1 if it has none."""
        return self.colors[column] if column < len(self.colors) else -1

    def csv(self) -> str:
        """The table with all digits; intervals take three columns."""
        has_interval = [
            any(isinstance(row[column], Interval | SignedInterval) for row in self.rows)
            for column in range(len(self.columns))
        ]
        included = [
            not any(isinstance(row[column], CellImages) for row in self.rows)
            for column in range(len(self.columns))
        ]
        heading: list[str] = []
        for column, title in enumerate(self.columns):
            if included[column]:
                heading += [title, f"{title} low", f"{title} high"] if has_interval[column] else [title]
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(heading)
        for row in self.rows:
            line: list[str] = []
            for column, cell in enumerate(row):
                if included[column]:
                    line += _csv_cells(cell) if has_interval[column] else _csv_cells(cell)[:1]
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
    if isinstance(cell, SignedInterval):
        cell = cell.interval
    if isinstance(cell, Interval):
        return ["" if math.isnan(value) else repr(value) for value in (cell.value, cell.low, cell.high)]
    if isinstance(cell, FormattedNumber):
        cell = cell.value
    if isinstance(cell, float):
        return ["" if math.isnan(cell) else repr(cell), "", ""]
    return ["" if cell is None else str(cell), "", ""]


def cell_text(cell: Cell) -> str:
    """The text of a cell."""
    match cell:
        case None | CellImages():
            return ""
        case Interval():
            return numbers.with_interval(cell)
        case SignedInterval():
            return numbers.with_interval(cell.interval, signed=True)
        case FormattedNumber():
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


def numbered(block: TableOrPlot, index: int, title: str = "") -> TableOrPlot:
    """One of several blocks of the same kind, with a unique file name and a caption that says what it belongs to.

    Args:
        block: the block.
        index: its position; the first keeps its name.
        title: put before the caption, if not empty.
    """
    return replace(
        block,
        name=f"{block.name}-{index + 1}" if index else block.name,
        caption=f"{title}: {block.caption}" if title else block.caption,
    )


@dataclass(frozen=True, slots=True)
class Note:
    """A paragraph."""

    text: str

    kind = "note"


@dataclass(frozen=True, slots=True)
class ExampleAnswer:
    """One model's answer to an example."""

    label: str
    color: int
    raw: str
    parsed: str
    correct: bool | None
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
    answers: tuple[ExampleAnswer, ...]
    box: Box | None = None


@dataclass(frozen=True)
class Gallery:
    """Examples, shown as cards."""

    examples: Sequence[Example]

    kind = "gallery"


@dataclass(frozen=True, slots=True)
class LineageNode:
    """An artifact or another input in the lineage, with its position in pixels."""

    label: str
    detail: str
    given: bool
    known: bool
    x: float
    y: float
    width: float


@dataclass(frozen=True)
class LineageGraph:
    """The lineage: nodes and the curves between them (SVG path data)."""

    nodes: Sequence[LineageNode]
    paths: Sequence[str]
    width: float
    height: float

    kind = "graph"


@dataclass(frozen=True)
class ClaimEffect:
    """A measure of a claim: its words and its small figure."""

    name: str
    text: str
    smallest: str
    figure: Plot


@dataclass(frozen=True)
class ClaimCard:
    """A claim with its verdict.

    Attributes:
        id: its short name.
        paper: where it is from.
        statement: the claim.
        comparison: what is compared.
        verdict: ``supported``, ``contradicted``, ``undecided`` or ``not run``.
        badge: the verdict as shown.
        reason: why.
        effects: the measures that decide.
        facts: seeds, items, cost.
        details: tables that are folded away at first.
    """

    id: str
    paper: str
    statement: str
    comparison: str
    verdict: str
    badge: str
    reason: str
    effects: Sequence[ClaimEffect]
    facts: Sequence[str]
    details: Sequence[Table]


@dataclass(frozen=True)
class ClaimList:
    """Claims with their verdicts, a card each.

    Attributes:
        counts: verdict -> number of claims.
        cards: the claims.
    """

    counts: Mapping[str, int]
    cards: Sequence[ClaimCard]

    kind = "claims"


@dataclass(frozen=True)
class Finding:
    """What was found, in plain sentences.

    Attributes:
        text: the sentences; every figure that has an interval stands with it.
        anchor: the section with the details, empty where there is none.
        picture: a small plot of it.
        example: an item that shows it.
    """

    text: str
    anchor: str = ""
    picture: Plot | None = None
    example: Example | None = None


@dataclass(frozen=True)
class FindingList:
    """What was found, with which the page opens."""

    findings: Sequence[Finding]

    kind = "findings"


Block = Table | Plot | Note | Gallery | LineageGraph | ClaimList | FindingList


def plots_and_tables(block: Block) -> list[Plot | Table]:
    """The plots and tables of a block, which are also written as files."""
    if isinstance(block, ClaimList):
        figures: list[Plot | Table] = [effect.figure for card in block.cards for effect in card.effects]
        return [*figures, *(table for card in block.cards for table in card.details)]
    if isinstance(block, FindingList):
        return [finding.picture for finding in block.findings if finding.picture is not None]
    return [block] if isinstance(block, Plot | Table) else []


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        anchor: its id on the page.
        title: its heading.
        intro: a paragraph below the heading.
        blocks: its content.
        headline: its tables for the summary, on the page and in the terminal.
        opening: whether it stands above the summary.
    """

    anchor: str
    title: str
    intro: str
    blocks: Sequence[Block]
    headline: Sequence[Table] = ()
    opening: bool = False
