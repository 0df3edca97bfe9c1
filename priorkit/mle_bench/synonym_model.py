"""A language model that judges whether two names mean the same, by the likelihood of yes and no."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from priorkit.mle_bench.synonyms import Pair

if TYPE_CHECKING:
    from priorkit.core.process.runtime import Runtime
    from priorkit.inference.likelihood.requests import LikelihoodRequest
    from priorkit.inference.model_info import ModelInfo

CHAT_QUESTION = (
    'Do the names "{first}" and "{second}" mean the same, so that every picture of one is a picture of the '
    "other? Answer yes or no."
)
"""The question for a model with a chat template."""

PLAIN_QUESTION = (
    "Do two names mean the same kind of thing?\n"
    "automobile and car: yes\n"
    "dog and car: no\n"
    "fork and spoon: no\n"
    "couch and sofa: yes\n"
    "{first} and {second}:"
)
"""The few-shot prompt for a model without a chat template."""

ANSWERS = (("yes", "Yes"), ("no", "No"))
"""Spellings of yes and of no; the probabilities of a side's spellings are added."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The model's judgement of a pair.

    Attributes:
        pair: the two names.
        yes: probability of yes against no, 0 to 1, over both orders of the names, rounded to six decimals.
    """

    pair: Pair
    yes: float


def check_synonym_model(folder: Path) -> ModelInfo:
    """Check from headers that a folder holds a language model.

    Raises:
        InputError: it holds something else.
    """
    from priorkit.inference.model_info import check_language_model

    return check_language_model(folder, "--synonym-model")


class SynonymModel:
    """A loaded language model that judges pairs of names.

    Args:
        checked: the model.
        batch_size: questions per forward pass.
        runtime: device and precision.
        cache: folder of the answer cache, so that an interrupted run resumes.

    Raises:
        InputError: the model cannot be loaded.
    """

    def __init__(self, checked: ModelInfo, batch_size: int, runtime: Runtime, cache: Path) -> None:
        import torch

        from priorkit.inference.loading import load_model_adapter

        # Inference only, so the weights may be as narrow as the compute dtype.
        dtype = torch.bfloat16 if runtime.precision == "bf16" else torch.float32
        self._model = load_model_adapter(checked, runtime.device, dtype)
        self._is_chat = bool(self._model.tokenizer.chat_template)
        self._batch_size, self._runtime, self._cache = batch_size, runtime, cache
        self._calls = 0

    def judge(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Judge pairs, each in both orders; the mean of the two log-odds makes the verdict symmetric."""
        ordered = [order for first, second in pairs for order in ((first, second), (second, first))]
        odds = self._log_odds([self._question(first, second) for first, second in ordered])
        return [
            Verdict(pair, _probability((odds[2 * index] + odds[2 * index + 1]) / 2))
            for index, pair in enumerate(pairs)
        ]

    def _question(self, first: str, second: str) -> str:
        from priorkit.inference.chat_prompts import remove_special_text

        template = CHAT_QUESTION if self._is_chat else PLAIN_QUESTION
        before, _, rest = template.partition("{first}")
        # Concatenated instead of formatted: a name may contain braces.
        between, _, after = rest.partition("{second}")
        return remove_special_text(before + first + between + second + after)

    def _log_odds(self, questions: Sequence[str]) -> list[float]:
        """Log-odds of yes against no for each question."""
        from priorkit.inference.answer_cache import AnswerCache
        from priorkit.inference.likelihood import scoring
        from priorkit.inference.prompt_inputs import PromptInputs

        requests = [
            request for index, text in enumerate(questions) for request in self._requests(index, text)
        ]
        no_images = [PromptInputs()] * len(questions)

        def score(batch: Sequence[int]) -> list[list[float]]:
            chosen = [requests[index] for index in batch]
            scores = scoring.score_batch(self._model, chosen, no_images[: len(chosen)])
            return [list(values) for values in scores]

        self._calls += 1
        cache = AnswerCache(self._cache, f"synonyms-{self._calls}")
        batches = scoring.batches(self._model, requests, no_images, self._batch_size)
        with self._runtime.autocast():
            scores = cache.get_or_compute(batches, score, "synonyms")
        of_question: list[dict[int, float]] = [{} for _ in questions]
        for request, values in zip(requests, scores, strict=True):
            of_question[request.item].update(zip(request.places, values, strict=True))
        count = len(ANSWERS[0])
        return [
            _log_sum([values[index] for index in range(count)])
            - _log_sum([values[index] for index in range(count, count + len(ANSWERS[1]))])
            for values in of_question
        ]

    def _requests(self, number: int, question: str) -> list[LikelihoodRequest]:
        """The question with each spelling of yes, then of no."""
        from priorkit.inference.chat_prompts import chat_prompt
        from priorkit.inference.likelihood.requests import requests_of, split_pair

        model = self._model
        spellings = [spelling for side in ANSWERS for spelling in side]
        if self._is_chat:
            context, continuations = chat_prompt(model.tokenizer, question, spellings)
        else:
            context, continuations = question, [f" {spelling}" for spelling in spellings]
        pairs = [
            split_pair(model.encode, context, text, model.prefix, model.bos_ids) for text in continuations
        ]
        return requests_of(number, pairs, model.max_length)


def _log_sum(logarithms: Sequence[float]) -> float:
    """Logarithm of the sum of probabilities given as logarithms."""
    largest = max(logarithms)
    if math.isinf(largest):
        return largest
    return largest + math.log(math.fsum(math.exp(value - largest) for value in logarithms))


def _probability(log_odds: float) -> float:
    # Rounded, so that neither batching nor storing it in a file affects which side of a threshold it is on.
    return round(0.5 * (1 + math.tanh(log_odds / 2)), 6)
