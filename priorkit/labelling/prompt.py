"""The prompt of a labelling model, read from a TOML file that users can change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import tomli

from priorkit.core.errors import InputError, Problems, nearest
from priorkit.data.text.concepts import CONCEPT_LABELS, LabelSet

Form = Literal["chat", "plain"]

TEXT = "{text}"
_LABEL_FIELDS = ("{label}", "{definition}")


@dataclass(frozen=True)
class LabelPrompt:
    """The prompt in one form.

    Attributes:
        system: the system message of a chat; may be empty.
        before: the prompt before the segment's text.
        after: the prompt after the text, by label.
        yes: spellings of the answer that gives the label.
        no: spellings of the answer that does not.
    """

    system: str
    before: str
    after: Mapping[str, str]
    yes: tuple[str, ...]
    no: tuple[str, ...]


def read_prompts(path: Path | None = None, label_set: LabelSet = CONCEPT_LABELS) -> dict[Form, LabelPrompt]:
    """Read a prompt file.

    Args:
        path: the file; the shipped one where None.
        label_set: the labels that it must define.

    Raises:
        InputError: it cannot be read, or its tables and keys are not those of the shipped file; all
            problems are listed.
    """
    if path is None:
        where = "labelling.toml" if label_set == CONCEPT_LABELS else "abilities.toml"
        text = resources.files("priorkit.labelling").joinpath(where).read_text(encoding="utf-8")
    else:
        where = str(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the prompt file cannot be read: {error}", where=where) from None
    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise InputError(f"not valid TOML: {error}", where=where) from None
    problems = Problems(InputError)
    _check_keys(document, {"chat": True, "plain": True, "labels": True}, where, problems)
    labels = document.get("labels", {})
    _check_keys(labels, dict.fromkeys(label_set.labels, True), f"{where} [labels]", problems)
    for name in label_set.labels:
        keys = {"label": True, "definition": True}
        _check_keys(labels.get(name, {}), keys, f"{where} [labels.{name}]", problems, "text")
    if len(problems):
        problems.fail()
    prompts: dict[Form, LabelPrompt] = {
        "chat": _prompt(document["chat"], "user", labels, f"{where} [chat]", problems),
        "plain": _prompt(document["plain"], "text", labels, f"{where} [plain]", problems),
    }
    problems.raise_if_any()
    return prompts


def _check_keys(
    table: Any, known: Mapping[str, bool], where: str, problems: Problems, values: str = ""
) -> None:
    """Add a problem for each unknown or missing key of a table, and each value that should be text and is not."""
    if not isinstance(table, dict):
        problems.add(f"expected a table, got {type(table).__name__}", where=where)
        return
    for key, value in table.items():
        if key not in known:
            problems.add(f"unknown key '{key}'", where=where, hint=nearest(key, known))
        elif values == "text" and not isinstance(value, str):
            problems.add(f"'{key}' should be text, got {type(value).__name__}", where=where)
    for key, required in known.items():
        if required and key not in table:
            problems.add(f"the key '{key}' is missing", where=where)


def _prompt(
    table: Mapping[str, Any], key: str, labels: Mapping[str, Any], where: str, problems: Problems
) -> LabelPrompt:
    known = {key: True, "yes": True, "no": True, **({"system": False} if key == "user" else {})}
    _check_keys(table, known, where, problems)
    template, system = table.get(key, TEXT), table.get("system", "")
    if not isinstance(template, str) or not isinstance(system, str):
        problems.add(f"'{key}' and 'system' should be text", where=where)
        template, system = TEXT, ""
    template = template.lstrip("\n")
    if template.count(TEXT) != 1:
        problems.add(f"{TEXT} must appear in '{key}' once, got {template.count(TEXT)}", where=where)
    before, _, after = template.partition(TEXT)
    if any(name in before for name in _LABEL_FIELDS):
        problems.add(
            f"{' and '.join(_LABEL_FIELDS)} must come after {TEXT}",
            where=where,
            hint="what precedes the question is encoded once for all labels",
        )
    if template.count(TEXT) == 1 and not any(name in after for name in _LABEL_FIELDS):
        problems.add(f"neither {' nor '.join(_LABEL_FIELDS)} appears in '{key}'", where=where)
    answers = {side: _spellings(table.get(side), side, where, problems) for side in ("yes", "no")}
    both = [spelling for spelling in answers["yes"] if spelling in answers["no"]]
    if both:
        problems.add(f"'{both[0]}' means both yes and no", where=where)
    questions = {
        name: after.replace("{label}", str(labels[name]["label"])).replace(
            "{definition}", str(labels[name]["definition"])
        )
        for name in labels
    }
    return LabelPrompt(system, before, questions, answers["yes"], answers["no"])


def _spellings(value: Any, side: str, where: str, problems: Problems) -> tuple[str, ...]:
    if isinstance(value, list) and value and all(isinstance(each, str) and each.strip() for each in value):
        return tuple(dict.fromkeys(value))
    if value is not None:
        problems.add(f"'{side}' should be a list of answers, none of them empty", where=where)
    return ()
