"""The documentation names files, modules, steps and options that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from priorkit import step_table
from priorkit.core.options.specs import option_specs

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in (
        "*.md",
        "docs/*.md",
        "benchmarks/*.md",
        "examples/*.md",
        "priorkit/**/*.md",
        "tests/**/*.md",
    )
    for page in ROOT.glob(pattern)
)
GUIDES = [
    page
    for page in PAGES
    if page.parent in (ROOT, ROOT / "docs", ROOT / "priorkit" / "evaluation" / "presets")
]
MANIFEST = "priorkit.json"
FILE = re.compile(r"(?:[\w.-]+/)+(?:[\w-]+\.(?:py|pyi|md|toml|sh|ipynb|csv|svg|json|yml))?")
COMMON_FLAGS = {"--recipe", "--help", "--help-all", "--version"}
OTHER_TOOLS = {"--cost", "--gpus", "--nproc-per-node", "--additional-suffix"}
OTHER_COMMANDS = {"recipe", "inspect", "verify", "diff", "push", "preload"}


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def code_spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """``(command, flags)`` of every call of priorkit in fenced blocks and code spans."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for text in [*blocks, *code_spans(page)]:
        code = re.sub(r"(^| )#.*$", "", text.replace("\\\n", " "), flags=re.MULTILINE)
        for call in re.split(r"[\n|;]|&&|\$\(", code):
            if found := re.search(r"(?:^\s*|-m )priorkit ([a-z][a-z-]*)(.*)", call):
                yield found[1], re.findall(r"(?<![\w-])--[a-z][a-z-]*", found[2])


def flags_of(step: str) -> set[str]:
    specs = option_specs(step_table.load(step).settings).values()
    flags = {spec.flag for spec in specs if not spec.positional}
    return flags | {f"--no-{flag[2:]}" for flag in flags} | COMMON_FLAGS


def is_module_or_member(name: str) -> bool:
    """Whether a dotted name is a module of priorkit, or a name that one defines."""
    module, rest = name, []
    while (spec := find_module(module)) is None:
        module, _, last = module.rpartition(".")
        rest.append(last)
    return not rest or bool(re.search(rf"\b{rest[-1]}\b", Path(spec).read_text("utf-8")))


def find_module(name: str) -> str | None:
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:
        return None
    return spec.origin if spec else None


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose(page))]
    local = [target for target in targets if target and not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_paths_in_backticks_exist(page: Path) -> None:
    roots = (ROOT, ROOT / "priorkit")
    first_parts = {entry.name for root in roots for entry in root.iterdir() if entry.is_dir()}
    paths = {match[0] for span in code_spans(page) if (match := FILE.match(span))}
    ours = {
        path for path in paths if path.split("/")[0] in first_parts and not re.search(r"[A-Z]{4}\.", path)
    }
    assert {path for path in ours if not any((root / path).exists() for root in roots)} == set()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_module_names_in_backticks_exist(page: Path) -> None:
    dotted = re.findall(r"\bpriorkit(?:\.[A-Za-z_]\w*)+", " ".join(code_spans(page)))
    names = {name for name in dotted if name != MANIFEST}
    assert {name for name in names if not is_module_or_member(name)} == set()


@pytest.mark.parametrize("page", GUIDES, ids=page_id)
def test_commands_name_steps_and_their_options(page: Path) -> None:
    unknown: set[str] = set()
    for command, flags in commands(page):
        if command in step_table.STEPS:
            unknown |= {f"{command} {flag}" for flag in set(flags) - flags_of(command)}
        elif command not in OTHER_COMMANDS:
            unknown.add(command)
    assert unknown == set()


@pytest.mark.parametrize("page", GUIDES, ids=page_id)
def test_options_in_backticks_exist_in_a_step(page: Path) -> None:
    known = {flag for step in step_table.STEPS for flag in flags_of(step)} | OTHER_TOOLS
    mentioned = {flag for span in code_spans(page) for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)}
    assert mentioned - known == set()
