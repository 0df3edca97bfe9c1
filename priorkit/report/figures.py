"""Figures without global state: reproducible bytes, and colors that follow a light or dark page.

Each color of a figure is a role (ink, grid, a series). Saved files have the light theme's colors; inside the
page each color becomes a CSS variable, so that the page's theme applies.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from priorkit.core.interval import Interval

INK, MUTED, GRID, PAPER = "#1b1f25", "#5b6472", "#dfe3e8", "#ffffff"
"""Text, secondary text, grid lines and background."""

SERIES = ("#0067b1", "#d55e00", "#008f6b", "#b0508f", "#8a6d00", "#3d9ad6", "#4b4f58", "#c23b3b")
"""Colors of artifacts, after Okabe and Ito's palette for color-blind readers, darkened for a white background."""

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<")
"""Marker shapes paired with the colors, so that color is never the only distinction."""

WIDTH = 8.6
"""Width of a figure that fills a column of the page, in inches."""

PIXELS_PER_POINT = 1.3
"""Scale of figures on the page."""

_ROLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    **{color: f"--series-{index}" for index, color in enumerate(SERIES)},
}


def series_color(index: int) -> str:
    """The color of the artifact with this number; colors repeat after the eighth."""
    return SERIES[index % len(SERIES)]


def series_marker(index: int) -> str:
    """The marker of the artifact with this number."""
    return MARKERS[index % len(MARKERS)]


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    parameters: dict[Any, Any] = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9.0,
        "text.parse_math": False,
        "axes.unicode_minus": True,
        "svg.fonttype": "none",
        "svg.hashsalt": "priorkit",
    }
    with matplotlib.rc_context(parameters), warnings.catch_warnings():
        # A label may contain a glyph that DejaVu Sans lacks; browsers fall back to another font.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing.*")
        yield


@contextmanager
def drawing(
    height: float, columns: int = 1, rows: int = 1, width: float = WIDTH, share_y: bool = False
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A new figure with its axes, row by row, in the report's style.

    Args:
        height: in inches.
        columns: number of panel columns.
        rows: number of panel rows.
        width: in inches.
        share_y: whether the panels share their vertical scale.
    """
    with _style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), facecolor=PAPER, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey=share_y).ravel().tolist()
        for axis in axes:
            _style_axis(axis)
        yield figure, axes


def _style_axis(axis: Axes) -> None:
    axis.set_facecolor("none")
    axis.set_axisbelow(True)
    axis.grid(True, color=GRID, linewidth=0.7)
    axis.tick_params(colors=MUTED, which="both", length=0, labelcolor=MUTED)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.xaxis.label.set_color(INK)
    axis.yaxis.label.set_color(INK)
    axis.title.set_color(INK)


def legend(figure: Figure, axis: Axes, columns: int = 4) -> None:
    """Put a legend above the panels if there is more than one label."""
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(
            handles, labels, loc="outside upper left", ncols=min(columns, len(labels)), frameon=False,
            labelcolor=INK, handletextpad=0.5, columnspacing=1.4,
        )  # fmt: skip


def log_ticks(axis: Axes, which: str = "x") -> None:
    """Label the ticks of a logarithmic axis with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    side = axis.xaxis if which == "x" else axis.yaxis
    side.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    side.set_minor_formatter(NullFormatter())


def jitter(count: int) -> np.ndarray:
    """Evenly spread offsets in -1 to 1 (a Weyl sequence) that separate dots of equal value: float64 ``[count]``."""
    return np.asarray(2 * ((np.arange(count) * 0.6180339887498949) % 1.0) - 1, dtype=np.float64)


def error_lengths(intervals: Sequence[Interval]) -> tuple[list[float], list[float]]:
    """Lengths of error bars below and above each value; 0 where an end is not known."""
    below = [max(0.0, i.value - i.low) if not math.isnan(i.low) else 0.0 for i in intervals]
    above = [max(0.0, i.high - i.value) if not math.isnan(i.high) else 0.0 for i in intervals]
    return below, above


def to_png(figure: Figure) -> bytes:
    """The figure as PNG at 144 dots per inch."""
    stream = io.BytesIO()
    with _style():
        figure.savefig(stream, format="png", dpi=144, metadata={"Software": None})
    return stream.getvalue()


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG in the light theme's colors, with text as text."""
    stream = io.BytesIO()
    with _style():
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def inline(svg: bytes, label: str, prefix: str) -> str:
    """An SVG file as an element of the page, with CSS variables for colors and unique ids.

    Args:
        svg: from :func:`to_svg`.
        label: text alternative for screen readers.
        prefix: for ids, unique on the page.
    """
    from markupsafe import escape

    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    for color, role in _ROLES.items():
        text = text.replace(color, f"var({role})")
    opening = re.compile(r'<svg ([^>]*?)width="([0-9.]+)pt" ([^>]*?)height="[0-9.]+pt"|<svg ')
    return opening.sub(lambda match: _opening(match, str(escape(label))), text, count=1)


def _opening(match: re.Match[str], label: str) -> str:
    attributes = f"{match[1] or ''}{match[3] or ''}".strip()
    width = f' style="width: {float(match[2]) * PIXELS_PER_POINT:.0f}px"' if match[2] else ""
    return f'<svg class="plot" role="img" aria-label="{label}"{width} {attributes} '


def theme_css(light: Sequence[str] = SERIES) -> str:
    """The CSS variables of the light theme, so that the page and the files share their colors."""
    roles = {"--ink": INK, "--muted": MUTED, "--grid": GRID, "--paper": PAPER}
    roles.update({f"--series-{index}": color for index, color in enumerate(light)})
    return " ".join(f"{name}: {color};" for name, color in roles.items())


def footnote(figure: Figure, text: str) -> None:
    """Add a line of small print below the panels, for a figure that is shown without a caption."""
    with _style():
        figure.supxlabel(text, fontsize=7.5, color=MUTED, wrap=True)


def save_figures(folder: Path, figures: Mapping[str, Figure], note: str) -> None:
    """Save figures as SVG and PNG with a line of small print below.

    Args:
        folder: where to write ``NAME.svg`` and ``NAME.png``.
        figures: file name without suffix -> figure.
        note: the small print.
    """
    for name, figure in figures.items():
        footnote(figure, note)
        (folder / f"{name}.svg").write_bytes(to_svg(figure))
        (folder / f"{name}.png").write_bytes(to_png(figure))
