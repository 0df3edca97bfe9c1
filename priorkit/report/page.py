"""The page: sections put together, rendered, and their plots and tables written beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from priorkit.core.interval import Interval
from priorkit.data.results.artifact_graph import Members
from priorkit.report import figures
from priorkit.report.blocks import Cell, Plot, Section, Signed, Table, cell_text
from priorkit.report.sections.abilities import abilities_section
from priorkit.report.sections.accuracy import accuracy_section
from priorkit.report.sections.comparison import differences_section, language_section
from priorkit.report.sections.correlation import correlation_section
from priorkit.report.sections.examples import examples_section
from priorkit.report.sections.grounding import grounding_section
from priorkit.report.sections.mle import mle_section
from priorkit.report.sections.ranks import off_domain_section, ranks_section
from priorkit.report.sections.runs import (
    cost_section,
    lineage_section,
    mixture_section,
    training_section,
    versions_section,
)
from priorkit.report.sections.seeds import seeds_section
from priorkit.report.sections.trade_off import trade_off_section

PAGE = "report.html"

SECTIONS: tuple[Callable[[Members], Section | None], ...] = (
    ranks_section,
    off_domain_section,
    seeds_section,
    trade_off_section,
    accuracy_section,
    mle_section,
    grounding_section,
    differences_section,
    correlation_section,
    abilities_section,
    language_section,
    examples_section,
    lineage_section,
    mixture_section,
    training_section,
    cost_section,
    versions_section,
)
"""Findings first, then how they were made."""


def build(members: Members) -> list[Section]:
    """The sections for which there are artifacts, in the page's order.

    Raises:
        InputError: an artifact's file is missing or damaged.
    """
    return [section for make in SECTIONS if (section := make(members)) is not None]


def headline(sections: Sequence[Section]) -> list[Table]:
    """The tables that belong into the summary."""
    return [table for section in sections for table in section.headline]


def write(sections: Sequence[Section], title: str, folder: Path) -> None:
    """Write ``report.html``, ``plots/*.svg``, ``plots/*.png`` and ``tables/*.csv``.

    Args:
        sections: from :func:`build`.
        title: the page's heading.
        folder: where to write.
    """
    drawn: dict[str, str] = {}
    for section in sections:
        for block in [*section.headline, *section.blocks]:
            if isinstance(block, Plot):
                (folder / "plots").mkdir(exist_ok=True)
                svg = figures.to_svg(block.figure)
                (folder / "plots" / f"{block.name}.svg").write_bytes(svg)
                (folder / "plots" / f"{block.name}.png").write_bytes(figures.to_png(block.figure))
                drawn[block.name] = figures.inline(svg, block.caption, block.name)
            elif isinstance(block, Table):
                (folder / "tables").mkdir(exist_ok=True)
                (folder / "tables" / f"{block.name}.csv").write_text(block.csv(), encoding="utf-8")
    (folder / PAGE).write_text(render(sections, title, drawn), encoding="utf-8")


def render(sections: Sequence[Section], title: str, drawn: dict[str, str]) -> str:
    """The page as text.

    Args:
        sections: from :func:`build`.
        title: the page's heading.
        drawn: plot name -> inline SVG made by :func:`priorkit.report.figures.inline`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("priorkit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    environment.tests["pictures"] = _has_pictures
    style = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.jinja").render(
        title=title,
        sections=sections,
        headline=headline(sections),
        drawn={name: Markup(svg) for name, svg in drawn.items()},
        style=Markup(style.replace("/* series */", figures.theme_css())),
    )


def _cell(cell: Cell) -> str:
    """A cell's text; where there is no room for it in a line, an interval's ends stay together."""
    text = cell_text(cell)
    return text.replace(", ", ",\N{NO-BREAK SPACE}") if isinstance(cell, Interval | Signed) else text


def _has_pictures(cell: Any) -> bool:
    return hasattr(cell, "uris")
