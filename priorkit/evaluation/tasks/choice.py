"""Multiple choice: parsed from written text, or the option with the largest likelihood or similarity."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from priorkit.evaluation.tasks.base import (
    ChoiceForm,
    ScoringOptions,
    Task,
    TaskScores,
    column_means,
    has_columns,
    option_texts,
)
from priorkit.evaluation.tasks.cells import (
    Row,
    cell,
    is_number,
    list_cell,
    list_of_text,
    text_cell,
    texts_cell,
)
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.answers.language_metrics import predict_choice
from priorkit.scoring.answers.mcq.published import PARSERS, parser_metric

LETTERS = string.ascii_uppercase


def lettered_options(item: Item) -> list[str]:
    """The options with their letters, ``A. cat``; none where there are more than letters."""
    if len(item.choices) > len(LETTERS):
        return []
    return [f"{letter}. {text}" for letter, text in zip(LETTERS, item.choices, strict=False)]


def read_truth(row: Row) -> dict[str, Any]:
    """Options and the index of the right one; ``answer`` is an index from 0, a letter or an option's text.

    Raises:
        ValueError: fewer than two options, more than 26, or an answer that is none of them.
    """
    choices = options_cell(row, len(LETTERS))
    truth = {"choices": choices, "answer": index_cell(row, choices)}
    if row.get("contexts") is None:
        return truth
    contexts = texts_cell(row, "contexts")
    if len(contexts) != len(choices):
        raise ValueError(f"'contexts' must hold one text per option, got {len(contexts)} for {len(choices)}")
    return {**truth, "contexts": contexts, "text": text_cell(row, "text", blank=False)}


def options_cell(row: Row, maximum: int) -> tuple[str, ...]:
    """The options: at least two, none of them blank.

    Raises:
        ValueError: too few or too many, or an empty one.
    """
    choices = texts_cell(row, "choices")
    if not 2 <= len(choices) <= maximum:
        raise ValueError(f"'choices' must hold 2 to {maximum} options, got {len(choices)}")
    if blank := [index for index, choice in enumerate(choices) if not choice.strip()]:
        raise ValueError(f"'choices'[{blank[0]}] is empty")
    return choices


OPTION_COLUMNS = ("choices", "options", "endings")
"""Names under which published tables hold their options."""


def published_options(row: Row) -> list[str] | None:
    """The options of a row under any of the usual names: a list, text that shows one, or columns A, B, C, ...

    Returns:
        The options; None where the row has none, or an empty list of them.

    Raises:
        ValueError: a column holds something else.
    """
    for name in OPTION_COLUMNS:
        value = row.get(name)
        if isinstance(value, dict):
            value = cast(Row, value).get("text")
        if value is None or value in ("", "nan", [], ()) or value != value:  # NaN: no options, from pandas
            continue
        if isinstance(value, str) and (shown := list_of_text(value)) is not None and not shown:
            continue
        return [str(option) for option in list_cell({name: value}, name)]
    lettered = [row[letter] for letter in LETTERS if isinstance(row.get(letter), str)]
    texts = [text for text in lettered if text not in ("", "nan")]
    return texts if len(texts) > 1 else None


def index_cell(row: Row, choices: Sequence[str]) -> int:
    """The right option: an index from 0, a letter, or the text of exactly one option.

    Raises:
        ValueError: it is none of them.
    """
    return _index(cell(row, "answer"), choices)


def _index(answer: Any, choices: Sequence[str]) -> int:
    last = len(choices) - 1
    expected = f"an index from 0 to {last}"
    expected += f", a letter from A to {LETTERS[last]}" if last < len(LETTERS) else ""
    expected += " or the text of one option"
    if isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip().upper() in LETTERS:
        index = LETTERS.index(answer.strip().upper())
    elif is_number(answer) and answer == int(answer):
        index = int(answer)
    elif isinstance(answer, str) and list(choices).count(answer) == 1:
        index = list(choices).index(answer)
    else:
        raise ValueError(f"'answer' must be {expected}, got {answer!r}")
    if not 0 <= index <= last:
        raise ValueError(f"'answer' must be {expected}, got {answer!r}")
    return index


def score(items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions) -> TaskScores:
    """Accuracy; where all answers have likelihoods also ``acc`` and ``acc_norm`` of lm-evaluation-harness.

    ``acc`` takes the option with the largest summed log-probability; ``acc_norm`` divides it by the number of
    characters scored, so that the two are equal for letters. Where the options were rotated,
    ``circular_accuracy`` counts an item that was right in every rotation (MMBench), and so does the item's own
    score; ``accuracy`` is that of the first rotation. Where a second parser reads other options,
    ``accuracy_PARSER`` is the accuracy under it.
    """
    parsed = [
        chosen_option(item, answer, options.parser) for item, answer in zip(items, answers, strict=True)
    ]
    scores = [float(index == item.answer) for index, item in zip(parsed, items, strict=True)]
    columns = {"accuracy": scores}
    extra: dict[str, list[Any]] = {}
    if all(answer.loglikelihoods for answer in answers):
        harness = [
            predict_choice(answer.loglikelihoods, answer.options).accuracies(_truth(item))
            for item, answer in zip(items, answers, strict=True)
        ]
        columns.update({name: [row[name] for row in harness] for name in ("acc", "acc_norm")})
        extra["loglikelihoods"] = [list(answer.loglikelihoods) for answer in answers]
    if all(answer.turns for answer in answers):
        rotations = [
            _rotated_options(item, answer, options.parser)
            for item, answer in zip(items, answers, strict=True)
        ]
        scores = [
            score * all(index == item.answer for index in rotation)
            for item, score, rotation in zip(items, scores, rotations, strict=True)
        ]
        columns["circular_accuracy"] = scores
        extra["rotations"] = [list(rotation) for rotation in rotations]
    columns.update(second_accuracy(items, answers, options, columns["accuracy"]))
    counts, metrics = column_means(columns)
    unparsed = [index is None for index in parsed]
    return TaskScores(scores, list(parsed), unparsed, counts, metrics, extra)


def second_accuracy(
    items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions, first: Sequence[float]
) -> dict[str, list[float]]:
    """Scores of the items with options under the second parser, where any differs from the first parser's.

    Args:
        items: questions; those without options keep their score.
        answers: one per item.
        options: names the second parser.
        first: scores under the first parser.

    Returns:
        ``accuracy_PARSER`` with one score per item, or nothing.
    """
    if not options.second_parser:
        return {}
    second = [
        float(chosen_option(item, answer, options.second_parser) == item.answer) if item.choices else score
        for item, answer, score in zip(items, answers, first, strict=True)
    ]
    return {} if second == list(first) else {parser_metric(options.second_parser): second}


def chosen_option(item: Item, answer: ModelAnswer, parser: str) -> int | None:
    """The index of the option that an answer chooses, None where the parser finds none."""
    if answer.taken is not None:
        return answer.taken
    return PARSERS[parser](answer.text, item.choices)


def rotated(item: Item, by: int) -> Item:
    """The item with its options moved ``by`` places to the front."""
    count = len(item.choices)
    return replace(item, choices=item.choices[by:] + item.choices[:by], answer=(_truth(item) - by) % count)


def _rotated_options(item: Item, answer: ModelAnswer, parser: str) -> tuple[int | None, ...]:
    """What the answers to the rotated items choose, as indices of the options in their original order."""
    count = len(item.choices)
    chosen = (chosen_option(rotated(item, by), turn, parser) for by, turn in enumerate(answer.turns, start=1))
    return tuple(None if index is None else (index + by) % count for by, index in enumerate(chosen, start=1))


def _truth(item: Item) -> int:
    if not isinstance(item.answer, int):
        raise TypeError(f"the answer of a multiple-choice item is an index, got {item.answer!r}")
    return item.answer


def choice_instruction(item: Item, form: ChoiceForm) -> str:
    """The instruction for lettered options, or the one for their texts."""
    return f"choice-{form}"


def choice_options(item: Item, form: ChoiceForm) -> tuple[tuple[str, ...], ...]:
    """The options' letters or texts; texts where options end different contexts."""
    if form == "letter" and not item.contexts:
        return tuple((LETTERS[index],) for index in range(len(item.choices)))
    return option_texts(item, form)


CHOICE = Task(
    "choice",
    "multiple choice",
    ("choices", "answer"),
    read_truth,
    score,
    ("accuracy", "acc", "acc_norm", "circular_accuracy"),
    ("likelihood", "generation", "similarity"),
    recognize=has_columns("choices", "answer"),
    multiple_choice=True,
    instruction=choice_instruction,
    options=choice_options,
)
