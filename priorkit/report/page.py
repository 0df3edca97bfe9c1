"""The HTML page: renders sections, and writes their plots and tables next to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorkit.core.interval import Interval
from priorkit.report import figures
from priorkit.report.blocks import (
    Cell,
    FindingList,
    Plot,
    Section,
    SignedInterval,
    Table,
    cell_text,
    plots_and_tables,
)

if TYPE_CHECKING:
    from markupsafe import Markup

PAGE = "report.html"


def headline(sections: Sequence[Section]) -> list[Table]:
    """The tables of the summary."""
    return [table for section in sections for table in section.headline]


def findings(sections: Sequence[Section]) -> list[str]:
    """The sentences with which the page opens."""
    lists = [block for section in sections for block in section.blocks if isinstance(block, FindingList)]
    return [finding.text for block in lists for finding in block.findings]


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
    environment.filters["sentences"] = _sentences
    environment.tests["pictures"] = _has_pictures
    style = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.jinja").render(
        title=title,
        sections=sections,
        titles={section.anchor: section.title for section in sections},
        headline=headline(sections),
        svgs={name: Markup(svg) for name, svg in svgs.items()},
        style=Markup(style.replace("/* series */", figures.theme_css())),
    )


def _sentences(text: str) -> Markup:
    """Sentences as HTML: their intervals in a paler color and on one line with their values."""
    from markupsafe import Markup, escape

    space = "\N{NO-BREAK SPACE}"
    pale = rf'{space}<span class="interval">[\1,{space}\2]</span>'
    return Markup(re.sub(rf" \[({_NUMBER}), ({_NUMBER})\]", pale, str(escape(text))))


_NUMBER = r"[+\N{MINUS SIGN}]?[\d.,]*\d"


def _cell(cell: Cell) -> str:
    """A cell's text, with a no-break space that keeps the ends of an interval on one line."""
    text = cell_text(cell)
    return text.replace(", ", ",\N{NO-BREAK SPACE}") if isinstance(cell, Interval | SignedInterval) else text


def _has_pictures(cell: Any) -> bool:
    return hasattr(cell, "uris")
