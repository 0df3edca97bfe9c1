"""A language model that says whether two names mean the same, by the likelihood of yes and no."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from priorkit.core.errors import InputError
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.tasks.item import Item
from priorkit.evaluation.tasks.yes_no import YES_NO
from priorkit.inference.answer_cache import AnswerCache
from priorkit.mle_bench.synonyms import Pair

if TYPE_CHECKING:
    from priorkit.core.runtime import Runtime
    from priorkit.inference.model_adapter import Checked

CHAT = (
    'Do the names "{first}" and "{second}" mean the same, so that every picture of one is a picture of the '
    "other? Answer yes or no."
)
"""The question to a model with a chat template."""

PLAIN = (
    "Do two names mean the same kind of thing?\n"
    "automobile and car: yes\n"
    "dog and car: no\n"
    "fork and spoon: no\n"
    "couch and sofa: yes\n"
    "{first} and {second}:"
)
"""What a model without one goes on with."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a model says of a pair.

    Attributes:
        pair: the two names.
        yes: its probability of yes against no, 0 to 1, over both orders of the names, to six decimals.
    """

    pair: Pair
    yes: float


def check_synonym_model(folder: Path) -> Checked:
    """Check from headers that a folder holds a language model.

    Raises:
        InputError: it holds something else.
    """
    from priorkit.inference.model_adapter import check_model

    checked = check_model(folder)
    if checked.kind != "llm":
        raise InputError(
            f"expected a language model, got '{checked.kind}'", where=f"--synonym-model {folder}"
        )
    return checked


class SynonymModel:
    """A loaded language model that judges pairs of names.

    Args:
        checked: the model.
        batch_size: questions per pass.
        started: device and precision.
        state: folder of what has been answered, so that an interrupted run goes on.

    Raises:
        InputError: the model cannot be loaded.
    """

    def __init__(self, checked: Checked, batch_size: int, started: Runtime, state: Path) -> None:
        import torch

        from priorkit.evaluation.runner.prompts import PromptBuilder, PromptWording
        from priorkit.evaluation.runner.request_runner import RequestOptions
        from priorkit.inference.model_adapter import load_subject

        # Only read, never trained: its weights can be as narrow as the arithmetic.
        dtype = torch.bfloat16 if started.precision == "bf16" else torch.float32
        self._subject = load_subject(checked, started.device, dtype)
        self._started, self._state, self._rounds = started, state, 0
        chat = bool(self._subject.tokenizer.chat_template)
        self._form = CHAT if chat else PLAIN
        wording = PromptWording("{question}", "{question}")
        prompter = PromptBuilder(self._subject.tokenizer, "chat" if chat else "plain", "text", own=wording)
        self._asking = RequestOptions(prompter, batch_size, 1)

    def judge(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Judge pairs, each in both orders; the log-odds of yes are the mean of both, so order has no say."""
        from priorkit.evaluation.runner.request_runner import run_requests

        turns = [own for first, second in pairs for own in ((first, second), (second, first))]
        items = [
            Item(id=place, question=self._worded(first, second), answer="yes")
            for place, (first, second) in enumerate(turns)
        ]
        self._rounds += 1
        journal = AnswerCache(self._state, f"synonyms-{self._rounds}")
        with self._started.autocast():
            _, answers = run_requests(
                self._subject, self._asking, items, YES_NO, "likelihood", Rejects(0.0), "synonyms", journal
            )
        odds = [yes - no for yes, no in (answer.loglikelihoods for answer in answers)]
        return [
            Verdict(pair, _probability((odds[2 * place] + odds[2 * place + 1]) / 2))
            for place, pair in enumerate(pairs)
        ]

    def _worded(self, first: str, second: str) -> str:
        before, _, after = self._form.partition("{first}")
        # Put together and not formatted: a name may hold braces of its own.
        between, _, end = after.partition("{second}")
        return before + first + between + second + end


def _probability(odds: float) -> float:
    # Rounded, so that neither the batches nor the file that keeps it have a say in what reaches a threshold.
    return round(0.5 * (1 + math.tanh(odds / 2)), 6)
