"""Answers from elsewhere: files of predictions, and the sample logs of the two harnesses.

lm-evaluation-harness and lmms-eval write ``*_samples_TASK_*.jsonl`` (``--log_samples``): a line per item with
``doc_id``, ``doc``, ``target``, ``resps``, ``filtered_resps``. They are read here so that an evaluation can be
scored by other rules, and compared item by item with one of ours. The id is the document's own (``id``,
``question_id``, ``index``) where it has one, else ``doc_id``, its place in the data set; documents that share an id,
such as MME's two questions about an image, are distinguished by their question. Logs of lmms-eval 0.7 hold no
document: their samples have places for ids, and options are read from the text that was asked (``input``).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from string import ascii_uppercase
from typing import Any, cast

from priorkit.core.errors import InputError
from priorkit.data.columns import RowLayout
from priorkit.data.io.formats import suffix_of
from priorkit.data.io.json_lines import JsonLines
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import read_rows
from priorkit.evaluation.benchmarks.discovery import table_of
from priorkit.evaluation.benchmarks.items_io import GROUP_COLUMNS, predicted, read_predictions
from priorkit.evaluation.benchmarks.rows import COMMON, renames
from priorkit.evaluation.tasks.base import Task
from priorkit.evaluation.tasks.choice import published_options
from priorkit.evaluation.tasks.item import Item, ModelAnswer

_OPTION = re.compile(r"\(?([A-Z])[.):]\s*(\S.*)")
"""A line with a lettered option."""
_IDS = ("id", "question_id", "questionId", "index", "pid")


def read_answers(
    path: Path,
    task: Task,
    rejects: Rejects,
    group_by: Sequence[str],
    limit: int = 0,
    layout: RowLayout = COMMON,
) -> tuple[list[Item], list[ModelAnswer]]:
    """Items and answers of a file of predictions or of a harness's sample log.

    Args:
        path: the file.
        task: how the answers are scored.
        rejects: takes broken lines.
        group_by: columns kept as groups.
        limit: read no more than so many lines; 0 for all.
        layout: the columns of predictions; a log's are known.

    Raises:
        InputError: the file is empty or damaged, too many lines are broken, or none is left.
    """
    if not is_log(path):
        renamed = {} if layout == COMMON else renames(table_of([path])[0], layout, str(path))
        items = read_predictions(path, task, rejects, group_by, limit, renamed)
        return items, [ModelAnswer(item.prediction or "") for item in items]
    columns = tuple(dict.fromkeys([*GROUP_COLUMNS, *group_by]))
    items: list[Item] = []
    answers: list[ModelAnswer] = []
    seen: set[str] = set()
    identify = _identifiers(path)
    for number, row in islice(read_rows(path, rejects), limit or None):
        try:
            item, answer = _from_log(row, task, columns, identify(row))
            if str(item.id) in seen:
                raise ValueError(f"the id '{item.id}' was there already; a log of several filters?")
        except (ValueError, TypeError, KeyError, IndexError) as error:
            rejects.add(str(path), number, str(error) or type(error).__name__)
            continue
        seen.add(str(item.id))
        rejects.accept()
        items.append(item)
        answers.append(answer)
    rejects.raise_if_over_limit()
    if not items:
        raise InputError("the log holds no usable sample", where=str(path))
    return items, answers


def answer_columns(path: Path) -> set[str]:
    """Columns of a file of predictions, of samples or of a harness's log, those of its nested tables among them."""
    rows = (row for _, row in read_rows(path, Rejects(1.0)))
    return {
        column
        for row in rows
        for table in (row, row.get("groups"), row.get("doc"))
        if isinstance(table, dict)
        for column in table
    }


def is_log(path: Path) -> bool:
    """Whether a file is a sample log of lm-evaluation-harness or lmms-eval."""
    if suffix_of(path, JsonLines.suffixes) is None:
        return False
    first = next((row for _, row in read_rows(path, Rejects(1.0))), {})
    return "doc_id" in first and ("resps" in first or "filtered_resps" in first)


def _identifiers(path: Path) -> Callable[[Mapping[str, Any]], str | int]:
    """What identifies the samples of a log.

    The documents' own ids; where documents share one, with the question behind it; where that is shared too, the
    places in the data set. The lines of several filters are samples of one document.
    """
    documents: dict[str, set[str]] = defaultdict(set)
    with_question: dict[str, set[str]] = defaultdict(set)
    for _, row in read_rows(path, Rejects(1.0)):
        documents[str(_document_id(row))].add(str(row.get("doc_id")))
        with_question[_id_with_question(row)].add(str(row.get("doc_id")))
    if all(len(places) == 1 for places in documents.values()):
        return _document_id
    if all(len(places) == 1 for places in with_question.values()):
        return _id_with_question
    return lambda row: row["doc_id"]


def _document(row: Mapping[str, Any]) -> dict[str, Any]:
    document = row.get("doc")
    return dict(cast("dict[str, Any]", document)) if isinstance(document, dict) else {}


def _document_id(row: Mapping[str, Any]) -> str | int:
    document = _document(row)
    identifier = next((document[name] for name in _IDS if name in document), None)
    return identifier if isinstance(identifier, str | int) else row.get("doc_id", "")


def _id_with_question(row: Mapping[str, Any]) -> str:
    """As the preset of MME identifies its questions."""
    return f"{_document_id(row)} {_document(row).get('question', '')}"


def _from_log(
    row: Mapping[str, Any], task: Task, columns: Sequence[str], identifier: str | int
) -> tuple[Item, ModelAnswer]:
    document = _document(row)
    fields: dict[str, Any] = {**document, "id": identifier}
    values = _loglikelihoods(row.get("resps"))
    target = row.get("target")
    if task.multiple_choice:
        choices = _choices(row, document, compared=values is not None)
        fields.update(choices=choices, answer=_target_index(target, choices))
    else:
        fields.update(task.harness_truth(task, target, document))
    responses = row.get("filtered_resps", row.get("resps"))
    prediction = _first_text(responses)
    if values is not None and task.multiple_choice:
        taken = max(range(len(values)), key=lambda index: values[index])
        options = tuple(fields["choices"])
        item = predicted(task, {**fields, "prediction": options[taken]}, columns)
        prompt = _prompt(row)
        return item, ModelAnswer(options[taken], prompt, taken, tuple(values), (1,) * len(values), options)
    item = predicted(task, {**fields, "prediction": prediction}, columns)
    return item, ModelAnswer(prediction, _prompt(row))


def _prompt(row: Mapping[str, Any]) -> str:
    """The text that the model was given; empty where the log has none."""
    if isinstance(given := row.get("input"), str):
        return given
    arguments = row.get("arguments")
    calls = list(arguments.values()) if isinstance(arguments, dict) else arguments
    first = calls[0] if isinstance(calls, list) and calls else None
    if isinstance(first, dict):
        first = first.get("arg_0")
    elif isinstance(first, list):
        first = first[0] if first else None
    return first if isinstance(first, str) else ""


def _loglikelihoods(responses: Any) -> list[float] | None:
    """``[[[value, is_greedy]], ...]``, an entry per option; None for written answers."""
    try:
        values = [float(option[0][0]) for option in responses]
        greedy = [str(option[0][1]) in ("True", "False") for option in responses]
    except (TypeError, ValueError, IndexError, KeyError):
        return None
    return values if len(values) > 1 and all(greedy) else None


def _choices(row: Mapping[str, Any], document: Mapping[str, Any], *, compared: bool) -> list[str]:
    arguments = row.get("arguments")
    if compared and isinstance(arguments, dict):
        return [str(call["arg_1"]).removeprefix(" ") for call in arguments.values()]
    options = published_options(document)
    if options is not None:
        return options
    if not document and (written := options_in(_prompt(row))):
        return written
    raise ValueError(f"no choices in the document; it has {', '.join(document) or 'nothing'}")


def options_in(text: str) -> list[str]:
    """The lettered options of a question, a line each and in the order of the letters; none where there is no list.

    >>> options_in("Which one? A. Is it B. or C.?\\nA. a dog\\n(B) a cat\\nAnswer with the letter.")
    ['a dog', 'a cat']
    """
    found: list[str] = []
    for line in text.splitlines():
        match = _OPTION.fullmatch(line.strip())
        if match is None:
            continue
        letter = ascii_uppercase.index(match[1])
        if letter == 0:
            found = [match[2]]
        elif letter == len(found):
            found.append(match[2])
    return found if len(found) > 1 else []


def _target_index(target: Any, choices: Sequence[str]) -> int | str:
    if isinstance(target, str) and target.strip().isdecimal() and target.strip() not in choices:
        return int(target)
    if isinstance(target, str) and target.removeprefix(" ") in choices:
        return list(choices).index(target.removeprefix(" "))
    return target.strip("() ") if isinstance(target, str) else target


def _first_text(responses: Any) -> str:
    value = responses
    while isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, str):
        raise ValueError(f"no written answer in the responses: {str(responses)[:60]}")
    return value
