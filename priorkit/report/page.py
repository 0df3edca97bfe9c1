"""The HTML page: renders sections, and writes their plots and tables next to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from priorkit.core.interval import Interval
from priorkit.report import figures
from priorkit.report.blocks import Cell, Plot, Section, SignedInterval, Table, cell_text, plots_and_tables

PAGE = "report.html"


def headline(sections: Sequence[Section]) -> list[Table]:
    """The tables of the summary."""
    return [table for section in sections for table in section.headline]


def write(sections: Sequence[Section], title: str, folder: Path) -> None:
    """Write ``report.html``, ``plots/*.svg``, ``plots/*.png`` and ``tables/*.csv``.

    Args:
        sections: from :func:`priorkit.report.sections.base.build_sections`.
        title: the page's heading.
        folder: where to write.
    """
    svgs: dict[str, str] = {}
    for section in sections:
        for block in [b for outer in [*section.headline, *section.blocks] for b in plots_and_tables(outer)]:
            if isinstance(block, Plot):
                (folder / "plots").mkdir(exist_ok=True)
                svg = figures.to_svg(block.figure)
                (folder / "plots" / f"{block.name}.svg").write_bytes(svg)
                (folder / "plots" / f"{block.name}.png").write_bytes(figures.to_png(block.figure))
                svgs[block.name] = figures.inline(svg, block.caption, block.name)
            else:
                (folder / "tables").mkdir(exist_ok=True)
                (folder / "tables" / f"{block.name}.csv").write_text(block.csv(), encoding="utf-8")
    (folder / PAGE).write_text(render(sections, title, svgs), encoding="utf-8")


def render(sections: Sequence[Section], title: str, svgs: dict[str, str]) -> str:
    """The page as text.

    Args:
        sections: from :func:`priorkit.report.sections.base.build_sections`.
        title: the page's heading.
        svgs: plot name -> inline SVG made by :func:`priorkit.report.figures.inline`.
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
        svgs={name: Markup(svg) for name, svg in svgs.items()},
        style=Markup(style.replace("/* series */", figures.theme_css())),
    )


def _cell(cell: Cell) -> str:
    """A cell's text, with a no-break space that keeps the ends of an interval on one line."""
    text = cell_text(cell)
    return text.replace(", ", ",\N{NO-BREAK SPACE}") if isinstance(cell, Interval | SignedInterval) else text


def _has_pictures(cell: Any) -> bool:
    return hasattr(cell, "uris")
