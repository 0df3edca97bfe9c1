"""Hooks of the documentation site: the page of options, written from the steps' settings, and the measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from priorkit import step_table
from priorkit.core.options.specs import OptionSpec, option_specs

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def on_files(files: Files, config: Any) -> Files:
    """Add the measurements, which are kept next to the scripts that made them."""
    for name in ("RESULTS.md", *(path.name for path in BENCHMARKS.glob("*.svg"))):
        files.append(File.generated(config, name.lower(), abs_src_path=str(BENCHMARKS / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in the page of options; links to the measurements stay within the site."""
    markdown = markdown.replace("](../benchmarks/RESULTS.md", "](results.md")
    if page.file.src_uri != "options.md":
        return markdown
    return markdown.replace("<!-- options -->", "\n\n".join(_step(name) for name in step_table.STEPS))


def _step(name: str) -> str:
    model = step_table.load(name).settings
    lines = [f"## {name}", "", step_table.description(name), ""]
    lines += ["```", *model.examples, "```", ""]
    group = ""
    for spec in option_specs(model).values():
        if spec.group != group:
            group = spec.group
            lines += ["", f"**{group}**", "", "| option | default | meaning |", "|---|---|---|"]
        lines.append(_row(spec))
    return "\n".join(lines)


def _row(spec: OptionSpec) -> str:
    label = spec.metavar if spec.positional else f"{spec.flag} {'' if spec.is_flag else spec.metavar}"
    default = "required" if spec.required else "" if spec.default in (None, (), {}) else f"`{spec.default}`"
    cells = (f"`{label.strip()}`", default, spec.help)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
