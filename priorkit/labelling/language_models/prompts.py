"""The prompts of a labelling model, read from TOML files that users can change."""

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
AnswerMode = Literal["generation", "likelihood"]

TEXT = "{text}"
LABELS = "{labels}"
_LABEL_FIELDS = ("{label}", "{definition}")


@dataclass(frozen=True)
class LikelihoodPrompt:
    """A question per label, in one form.

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


@dataclass(frozen=True)
class GenerationPrompt:
    """One question for all labels, in one form.

    Attributes:
        system: the system message of a chat; may be empty.
        before, after: the prompt before and after the segment's text.
        names: the name of each label in an answer, by label.
        none: spellings of the answer that gives no label.
    """

    system: str
    before: str
    after: str
    names: Mapping[str, str]
    none: tuple[str, ...]


Prompt = LikelihoodPrompt | GenerationPrompt


def shipped_prompt(by: AnswerMode, label_set: LabelSet) -> str:
    """The name of the file that priorkit ships."""
    return f"{'concepts' if label_set == CONCEPT_LABELS else 'abilities'}-{by}.toml"


def read_prompts(
    path: Path | None = None, by: AnswerMode = "likelihood", label_set: LabelSet = CONCEPT_LABELS
) -> dict[Form, Prompt]:
    """Read a prompt file.

    Args:
        path: the file; the shipped one where None.
        by: how the model answers.
        label_set: the labels that it must define.

    Raises:
        InputError: it cannot be read, or its tables and keys are not those of the shipped file; all
            problems are listed.
    """
    if path is None:
        where = shipped_prompt(by, label_set)
        text = resources.files(__package__ or "").joinpath(where).read_text(encoding="utf-8")
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
    read = _likelihood_prompt if by == "likelihood" else _generation_prompt
    prompts: dict[Form, Prompt] = {
        "chat": read(document["chat"], "user", labels, f"{where} [chat]", problems),
        "plain": read(document["plain"], "text", labels, f"{where} [plain]", problems),
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


def _template(
    table: Mapping[str, Any], key: str, answers: tuple[str, ...], where: str, problems: Problems
) -> tuple[str, str, str]:
    """The system message and the prompt before and after the text, the table's keys checked."""
    known = {key: True, **dict.fromkeys(answers, True), **({"system": False} if key == "user" else {})}
    _check_keys(table, known, where, problems)
    template, system = table.get(key, TEXT), table.get("system", "")
    if not isinstance(template, str) or not isinstance(system, str):
        problems.add(f"'{key}' and 'system' should be text", where=where)
        template, system = TEXT, ""
    template = template.lstrip("\n")
    if template.count(TEXT) != 1:
        problems.add(f"{TEXT} must appear in '{key}' once, got {template.count(TEXT)}", where=where)
    before, _, after = template.partition(TEXT)
    return system, before, after


def _likelihood_prompt(
    table: Mapping[str, Any], key: str, labels: Mapping[str, Any], where: str, problems: Problems
) -> LikelihoodPrompt:
    system, before, after = _template(table, key, ("yes", "no"), where, problems)
    if any(name in before for name in _LABEL_FIELDS):
        problems.add(
            f"{' and '.join(_LABEL_FIELDS)} must come after {TEXT}",
            where=where,
            hint="what precedes the question is encoded once for all labels",
        )
    elif not any(name in after for name in _LABEL_FIELDS) and table.get(key, "").count(TEXT) == 1:
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
    return LikelihoodPrompt(system, before, questions, answers["yes"], answers["no"])


def _generation_prompt(
    table: Mapping[str, Any], key: str, labels: Mapping[str, Any], where: str, problems: Problems
) -> GenerationPrompt:
    system, before, after = _template(table, key, ("none",), where, problems)
    none = _spellings(table.get("none"), "none", where, problems)
    names = {name: str(labels[name]["label"]) for name in labels}
    taken = [spelling.casefold() for spelling in (*names.values(), *none)]
    twice = sorted({spelling for spelling in taken if taken.count(spelling) > 1})
    if twice:
        problems.add(f"'{twice[0]}' has two meanings in an answer", where=where)
    listed = "\n".join(f"- {names[name]}: {labels[name]['definition']}" for name in labels)
    return GenerationPrompt(
        system, before.replace(LABELS, listed), after.replace(LABELS, listed), names, none
    )


def _spellings(value: Any, side: str, where: str, problems: Problems) -> tuple[str, ...]:
    if isinstance(value, list) and value and all(isinstance(each, str) and each.strip() for each in value):
        return tuple(dict.fromkeys(value))
    if value is not None:
        problems.add(f"'{side}' should be a list of answers, none of them empty", where=where)
    return ()
