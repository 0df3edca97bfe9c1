"""Items that cannot be asked are rejected with file, row and id; the others are answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from priorkit.core.errors import InputError
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.runner.asking import RequestOptions
from priorkit.evaluation.runner.prompts import PromptBuilder
from priorkit.evaluation.runner.request_runner import run_requests
from priorkit.evaluation.tasks.item import Item
from priorkit.evaluation.tasks.registry import TASKS
from priorkit.inference.answer_cache import AnswerCache
from priorkit.inference.model_adapter import ModelAdapter

LONG = "word " * 3000


def items(task: str, odd: str) -> list[Item]:
    texts = ["a bird", odd, "a dog"]
    if task == "perplexity":
        return [Item(f"i{n}", text=text, file="texts.jsonl", row=n + 1) for n, text in enumerate(texts)]
    return [
        Item(f"i{n}", question="What?", choices=("cat", text), answer=0, file="items.jsonl", row=n + 1)
        for n, text in enumerate(texts)
    ]


def rejects_of(limit: float) -> Rejects:
    rejects = Rejects(limit)
    rejects.accept(3)
    return rejects


@pytest.mark.parametrize(
    ("task", "odd", "file", "reason"),
    [
        ("choice", LONG, "items.jsonl", "item i1: option 2 has "),
        ("ranking", LONG, "items.jsonl", "item i1: option 2 has "),
        ("perplexity", "", "texts.jsonl", "item i1: the document has no tokens"),
    ],
)
def test_one_item_that_cannot_be_asked(
    tmp_path: Path, llm: ModelAdapter, task: str, odd: str, file: str, reason: str
) -> None:
    asking = RequestOptions(PromptBuilder(llm.tokenizer, "plain", "text"), 4, 8)
    asked = items(task, odd)
    rejects = rejects_of(0.5)
    kept, answers = run_requests(
        llm, asking, asked, TASKS[task], "likelihood", rejects, "b", AnswerCache(tmp_path / "a", "b")
    )
    assert [item.id for item in kept] == ["i0", "i2"]
    assert len(answers) == 2
    ((row,), total) = rejects.rows, rejects.total
    assert (row["file"], row["row"], total) == (file, 2, 3)
    assert str(row["reason"]).startswith(reason)
    others = [item for item in asked if item.id != "i1"]
    _, expected = run_requests(
        llm, asking, others, TASKS[task], "likelihood", Rejects(0.0), "b", AnswerCache(tmp_path / "o", "b")
    )
    assert answers == expected


def test_too_many_stop_the_run(tmp_path: Path, llm: ModelAdapter) -> None:
    asking = RequestOptions(PromptBuilder(llm.tokenizer, "plain", "text"), 4, 8)
    with pytest.raises(InputError, match="1 of 3 rows are broken"):
        run_requests(
            llm, asking, items("choice", LONG), TASKS["choice"], "likelihood", rejects_of(0.1), "b",
            AnswerCache(tmp_path, "b"),
        )  # fmt: skip
