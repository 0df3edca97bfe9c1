"""Reasoning judged by a local language model: soundness and depth of what was written.

Source: LSBS (arXiv 2509.26625), section on reasoning as a skill that vision inherits: questions are asked
again for a thinking process, and a language model judges the traces. Which model and by which rubric is not
published; the rubric here is a file, and the judge compares the likelihood of yes and no.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tomli

from priorkit.core.errors import InputError, Problems
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.results.scored_benchmarks import ScoredBenchmark
from priorkit.evaluation.tasks.base import TaskScores
from priorkit.evaluation.tasks.choice import lettered_options
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.inference.answer_cache import AnswerCache
from priorkit.scoring.statistics.bootstrap import Floats

if TYPE_CHECKING:
    from priorkit.core.process.runtime import Runtime
    from priorkit.inference.model_adapter import ModelAdapter
    from priorkit.inference.model_info import ModelInfo


_PLACEHOLDER = re.compile(r"\{(\w+)\}")
"""A word in braces; braces around anything else, JSON say, are text."""


@dataclass(frozen=True)
class Rubric:
    """How reasoning is requested and judged.

    Attributes:
        version: of the rubric.
        instruction: what the model is asked, with ``{question}``.
        prompt: what the judge is asked, with ``{question}`` and ``{trace}``.
    """

    version: int
    instruction: str
    prompt: str


def read_rubric(path: Path | None) -> Rubric:
    """Read a rubric; priorkit's where no file is given.

    Raises:
        InputError: not valid TOML, or a key or placeholder is missing.
    """
    where = str(path or "rubric.toml")
    try:
        text = (
            path.read_text("utf-8-sig")
            if path
            else resources.files("priorkit.evaluation.runner").joinpath("rubric.toml").read_text("utf-8")
        )
        table = tomli.loads(text)
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
        raise InputError(f"not a rubric: {error}", where=where) from None
    problems = Problems(InputError)
    required = {"instruction": ("{question}",), "prompt": ("{question}", "{trace}")}
    for key, marks in required.items():
        for mark in marks:
            if mark not in str(table.get(key, "")):
                problems.add(f"'{key}' must be a text with {mark}", where=where)
        for name in _PLACEHOLDER.findall(str(table.get(key, ""))):
            if f"{{{name}}}" not in marks:
                problems.add(
                    f"'{key}' has no placeholder {{{name}}}; {' and '.join(marks)} go there", where=where
                )
    problems.raise_if_any()
    return Rubric(int(table.get("version", 1)), str(table["instruction"]), str(table["prompt"]).strip())


def check_judge(folder: Path) -> ModelInfo:
    """Check from headers that a folder holds a language model.

    Raises:
        InputError: it holds something else.
    """
    from priorkit.inference.model_info import check_language_model

    return check_language_model(folder, "--judge")


def load_judge(
    folder: Path, rubric: Rubric, batch_size: int, started: Runtime
) -> Callable[[ScoredBenchmark, AnswerCache], ScoredBenchmark]:
    """Load the judge; what is returned adds ``soundness`` and ``depth`` to a benchmark.

    Raises:
        InputError: it cannot be loaded.
    """
    from priorkit.inference.loading import load_model_adapter

    subject = load_model_adapter(check_judge(folder), started.device)

    def judged(benchmark: ScoredBenchmark, answer_cache: AnswerCache) -> ScoredBenchmark:
        with started.autocast():
            sound = judge(subject, rubric, benchmark.items, benchmark.answers, batch_size, answer_cache)
        return replace(benchmark, scored=with_judgement(benchmark.scored, benchmark.answers, sound))

    return judged


def judge(
    subject: ModelAdapter,
    rubric: Rubric,
    items: Sequence[Item],
    answers: Sequence[ModelAnswer],
    batch_size: int,
    answer_cache: AnswerCache,
) -> list[bool]:
    """Whether each written answer is sound, in the judge's eyes.

    A trace too long for the judge loses the beginning of its prompt, as any text in a comparison by likelihood.

    Args:
        subject: the judge, a language model.
        rubric: the rubric.
        items: questions.
        answers: what was written.
        batch_size: traces per pass.
        answer_cache: keeps verdicts.
    """
    from priorkit.evaluation.runner.prompts import PromptBuilder
    from priorkit.evaluation.runner.request_runner import RequestOptions, run_requests
    from priorkit.evaluation.tasks.yes_no import YES_NO

    questions = [
        Item(id=index, question=_filled(rubric.prompt, item, answer.prediction), answer="yes")
        for index, (item, answer) in enumerate(zip(items, answers, strict=True))
    ]
    kind = "chat" if subject.tokenizer.chat_template else "plain"
    prompter = PromptBuilder(subject.tokenizer, kind, "text")
    _, verdicts = run_requests(
        subject,
        RequestOptions(prompter, batch_size, 1),
        questions,
        YES_NO,
        "likelihood",
        Rejects(0.0),
        "judge",
        answer_cache,
    )
    return [verdict.prediction == "yes" for verdict in verdicts]


def _filled(prompt: str, item: Item, trace: str) -> str:
    options = "".join(f"\n{option}" for option in lettered_options(item))
    # Replaced and not formatted: a trace may contain braces.
    before, _, after = prompt.partition("{trace}")
    question = item.question.strip() + options
    return before.replace("{question}", question) + trace.strip() + after.replace("{question}", question)


def with_judgement(scored: TaskScores, answers: Sequence[ModelAnswer], sound: Sequence[bool]) -> TaskScores:
    """Add ``soundness``, the share of sound answers, and ``depth``, their mean length in words."""
    words = [len(answer.prediction.split()) for answer in answers]
    rows = np.array(
        [[1.0, float(verdict), float(count)] for verdict, count in zip(sound, words, strict=True)]
    )
    width = scored.counts.shape[1]
    before = scored.metrics

    def metrics(sums: Floats) -> dict[str, Floats]:
        judged_sums = sums[..., width:]
        return {
            **before(sums[..., :width]),
            "soundness": judged_sums[..., 1] / judged_sums[..., 0],
            "depth": judged_sums[..., 2] / judged_sums[..., 0],
        }

    return replace(
        scored,
        counts=np.concatenate([scored.counts, rows], axis=1),
        metrics=metrics,
        extra={**scored.extra, "sound": [bool(verdict) for verdict in sound], "words": words},
    )
