"""Figures: made without global state, saved as the same bytes every time, at home on light and dark pages.

Figures are drawn in marker colours that stand for roles (ink, grid, the series). A file beside the report
gets the light theme's colours; inside the page each marker becomes a CSS variable, so that the page's
theme decides.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1b1f25", "#5b6472", "#dfe3e8", "#ffffff"
"""Text, secondary text, grid lines and background."""

SERIES = ("#0067b1", "#d55e00", "#008f6b", "#b0508f", "#8a6d00", "#3d9ad6", "#4b4f58", "#c23b3b")
"""Colours of artifacts, after Okabe and Ito's palette for colour-blind readers, darkened for white paper."""

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<")
"""Shapes that go with the colours, so that colour never stands alone."""

WIDTH = 8.6
"""Width of a figure that fills a column of the page, in inches."""

PIXELS_PER_POINT = 1.3
"""How large figures stand on the page."""

_ROLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    **{color: f"--series-{index}" for index, color in enumerate(SERIES)},
}


def series_color(index: int) -> str:
    """The colour of the artifact with this number; colours repeat after the eighth."""
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
        # A label may hold a sign that the layout's typeface lacks; browsers find another one.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing.*")
        yield


@contextmanager
def drawing(
    height: float, columns: int = 1, rows: int = 1, width: float = WIDTH, share_y: bool = False
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A new figure with its axes, row by row, in the report's style.

    Args:
        height: in inches.
        columns: panels beside each other.
        rows: panels above each other.
        width: in inches.
        share_y: whether the panels have the same scale.
    """
    with _style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), facecolor=PAPER, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey=share_y).ravel().tolist()
        for axis in axes:
            _dress(axis)
        yield figure, axes


def _dress(axis: Axes) -> None:
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
    """Put the legend above the panels, where there is more than one thing to tell apart."""
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(
            handles, labels, loc="outside upper left", ncols=min(columns, len(labels)), frameon=False,
            labelcolor=INK, handletextpad=0.5, columnspacing=1.4,
        )  # fmt: skip


def log_ticks(axis: Axes, which: str = "x") -> None:
    """Write the ticks of a logarithmic axis as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    side = axis.xaxis if which == "x" else axis.yaxis
    side.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    side.set_minor_formatter(NullFormatter())


def to_png(figure: Figure) -> bytes:
    """The figure as PNG at 144 dots per inch."""
    stream = io.BytesIO()
    with _style():
        figure.savefig(stream, format="png", dpi=144, metadata={"Software": None})
    return stream.getvalue()


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG in the light theme's colours, with text as text."""
    stream = io.BytesIO()
    with _style():
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def inline(svg: bytes, label: str, prefix: str) -> str:
    """An SVG file as an element of the page: themed by CSS variables, with ids of its own.

    Args:
        svg: from :func:`to_svg`.
        label: what the figure shows, for those who do not see it.
        prefix: a word that no other figure of the page uses.
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
    kept = f"{match[1] or ''}{match[3] or ''}".strip()
    width = f' style="width: {float(match[2]) * PIXELS_PER_POINT:.0f}px"' if match[2] else ""
    return f'<svg class="plot" role="img" aria-label="{label}"{width} {kept} '


def theme_css(light: Sequence[str] = SERIES) -> str:
    """The CSS variables of the light theme, so that the page and the files share their colours."""
    roles = {"--ink": INK, "--muted": MUTED, "--grid": GRID, "--paper": PAPER}
    roles.update({f"--series-{index}": color for index, color in enumerate(light)})
    return " ".join(f"{name}: {color};" for name, color in roles.items())


def footnote(figure: Figure, text: str) -> None:
    """Write a line below the panels of a figure that will stand alone."""
    with _style():
        figure.supxlabel(text, fontsize=7.5, color=MUTED, wrap=True)
