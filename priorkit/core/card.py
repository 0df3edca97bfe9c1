"""The card of an artifact, ``README.md``: what it is, what it was made from, its figures, the licences of its inputs.

It repeats the manifest for people and for the hub's pages, and is the user's to edit: it is no part of the content,
neither listed in the manifest nor in the digest. Artifacts whose steps write a card of their own keep that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from priorkit.core.input_files import CARD
from priorkit.core.inputs import Input
from priorkit.core.manifest import Manifest

_LOADING = {
    "llm": ("transformers", "text-generation", "AutoModelForCausalLM.from_pretrained({path!r})"),
    "mllm": ("transformers", "image-text-to-text", "AutoModelForImageTextToText.from_pretrained({path!r})"),
    "encoder": ("transformers", "zero-shot-image-classification", "AutoModel.from_pretrained({path!r})"),
    "adapter": ("peft", "", "PeftModel.from_pretrained(base, {path!r})"),
    "tokenizer": ("transformers", "", "AutoTokenizer.from_pretrained({path!r})"),
    "benchmark": ("datasets", "", "load_dataset({path!r})"),
    "world": ("datasets", "", "load_dataset({path!r})"),
}
"""By kind: the library that loads it, its task on the hub, and how."""

_METRICS = 60
"""Most figures that are listed; the manifest has all."""

_LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "COPYING")
_SECTION = "## Licences of the inputs"


def write_card(folder: Path, manifest: Manifest, inputs: Mapping[str, Input], name: str) -> None:
    """Write the card of a complete artifact, unless its step wrote one.

    Args:
        folder: the artifact's.
        manifest: as written.
        inputs: the step's, by label.
        name: of the artifact.
    """
    if CARD not in manifest.files:
        (folder / CARD).write_text(card(manifest, inputs, name), encoding="utf-8")


def card(manifest: Manifest, inputs: Mapping[str, Input], name: str) -> str:
    """The text of a card: the same for the same manifest, inputs and name."""
    library, task, loading = _LOADING.get(manifest.kind, ("", "", ""))
    front = ["tags:", "- priorkit", f"- {manifest.kind}"]
    front += [f"library_name: {library}"] if library else []
    front += [f"pipeline_tag: {task}"] if task else []
    parts = [
        "\n".join(["---", *front, "---"]),
        f"# {name}",
        f"Kind `{manifest.kind}`, made by `priorkit {manifest.step}`. `priorkit.json` has every figure, "
        "`recipe.toml` makes it again.",
    ]
    if loading:
        parts.append(f"```python\n{loading.format(path=name)}\n```")
    parts += [
        "## Made from",
        _table(
            ("input", "what", "kind", "digest"),
            [(item.setting, item.path, item.kind, item.digest[:12]) for item in manifest.inputs],
        ),
        _SECTION,
        "What may be done with this artifact depends on the terms of all that it was made from.",
        "\n".join(f"- {line}" for line in licences(inputs)) or "- no inputs",
        "## Settings",
        _table(("option", "value"), sorted(_flat(manifest.settings))),
        "## Figures",
        _table(("figure", "value"), list(_flat(manifest.metrics))[:_METRICS]),
        "## Versions",
        ", ".join(f"{package} {version}" for package, version in sorted(manifest.versions.items())),
    ]
    return "\n\n".join(parts) + "\n"


def licences(inputs: Mapping[str, Input]) -> list[str]:
    """What the inputs say of their licence, and what their own inputs say, each once."""
    found: list[str] = []
    for item in inputs.values():
        if item.files:
            continue  # files that rows of another input name
        known = _licence_of(item.path if item.path.is_dir() else item.path.parent)
        inherited = list(_inherited(item.path / CARD))
        if known or not inherited:
            found.append(f"{item.given}: {known or 'none stated next to it'}")
        found += inherited
    return list(dict.fromkeys(found))


def _licence_of(folder: Path) -> str:
    """The licence that a folder's card names, or the name of its licence file."""
    text = _read(folder / CARD)
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    named = re.search(r"^license:[ \t]*(\S.*)$", front[1], re.MULTILINE) if front else None
    if named:
        return named[1].strip("\"' ")
    return next((f"see {name} in it" for name in _LICENCE_FILES if (folder / name).is_file()), "")


def _inherited(path: Path) -> Iterator[str]:
    """The lines of another card's section on licences."""
    _, _, section = _read(path).partition(f"\n{_SECTION}\n")
    for line in section.partition("\n## ")[0].splitlines():
        if line.startswith("- ") and line != "- no inputs":
            yield line.removeprefix("- ")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of a nested table; what is empty or a long list is left out."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, Any]", value), f"{prefix}{name}.")
        elif value is None or value in ((), [], ""):
            continue
        elif isinstance(value, float):
            yield prefix + name, f"{value:.6g}"
        elif isinstance(value, list):
            listed = cast("list[Any]", value)
            if len(listed) <= 8:
                yield prefix + name, ", ".join(map(str, listed))
        else:
            yield prefix + name, str(value)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return "None."
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in row) + " |" for row in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", "\\|").split())[:200]
