"""Labelling segments of text with a causal language model: one yes-or-no question per label, by likelihood.

The score of a label is ``P(yes) / (P(yes) + P(no))``, each side summed over its spellings. A segment is
encoded once: the questions that follow it share the keys and values of its text.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from priorkit.core.errors import InputError
from priorkit.data.images.decoding import ImageRef
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.labelling.base import MIN_SEGMENT_TOKENS, SegmentScores
from priorkit.labelling.language_models.prompts import Form, LikelihoodPrompt
from priorkit.labelling.language_models.rendering import ids_before_text, ids_of_text, render

logger = logging.getLogger(__name__)

Ids = list[int]

CONTENT_FREE = ("", "N/A", "[MASK]")
"""Content-free inputs of contextual calibration (Zhao et al. 2021, "Calibrate Before Use")."""


@dataclass(frozen=True)
class _Answer:
    """One spelling of an answer.

    Attributes:
        label: number of the label it is about.
        yes: whether it gives the label.
        ids: its tokens.
    """

    label: int
    yes: bool
    ids: tuple[int, ...]


@dataclass(frozen=True)
class _Question:
    """Tokens that follow a segment, and the answers whose likelihood is read after them.

    Answers that differ only in their last token share a question, as all answers of one token do.
    """

    ids: tuple[int, ...]
    answers: tuple[_Answer, ...]


class LikelihoodLabeller:
    """A language model that answers for each label whether it fits a segment.

    Args:
        model: the model.
        prompt: its prompt.
        form: whether the prompt is rendered with the tokenizer's chat template.
        batch_size: segments per forward pass.

    Raises:
        InputError: an answer has no token, yes and no are the same tokens, or the prompt leaves no room for a
            text.
    """

    def __init__(
        self, model: ModelAdapter, prompt: LikelihoodPrompt, form: Form, batch_size: int = 8
    ) -> None:
        self._model = model
        before, after = _rendered(model.tokenizer, prompt, form)
        self._before = ids_before_text(model, before)
        self._questions = _questions(model, after, prompt)
        longest = max(len(question.ids) + 1 for question in self._questions)
        # A longer segment loses its middle.
        self._max_text = model.max_length - len(self._before) - longest
        if self._max_text < MIN_SEGMENT_TOKENS:
            raise InputError(
                f"the prompt takes {len(self._before) + longest} tokens, the model takes "
                f"{model.max_length} with the text",
                hint="shorten the prompt (--prompt), or use a model with a longer context",
            )
        self._shares_cache = True
        self.labels = tuple(prompt.after)
        self.batch_size = batch_size
        self._content_free = np.zeros(len(self.labels))

    def calibrate(self) -> NDArray[np.float64]:
        """Measure the log-odds of yes on content-free inputs; later scores are corrected by them.

        Returns:
            float64 ``[labels]``, the mean log-odds of yes.
        """
        self._content_free = np.zeros(len(self.labels))
        texts = [self._text_ids(text)[0] for text in CONTENT_FREE]
        self._content_free = self._log_odds(texts, len(texts)).mean(0)
        return self._content_free

    def score(
        self, texts: Sequence[str], images: Sequence[tuple[ImageRef, ...]] | None = None
    ) -> SegmentScores:
        """Score segments, the longest first; scores do not depend on the batches, except for rounding.

        Args:
            texts: their texts.
            images: not used: the questions are about the words.
        """
        encoded = [self._text_ids(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: (-len(encoded[index][0]), index))
        scores = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        odds = self._log_odds([encoded[index][0] for index in order], self.batch_size)
        scores[order] = 1 / (1 + np.exp(-(odds - self._content_free)))
        truncated = np.array([cut for _, cut in encoded], dtype=np.bool_)
        return SegmentScores(scores, truncated, np.zeros(len(texts), dtype=np.bool_))

    def _text_ids(self, text: str) -> tuple[Ids, bool]:
        """Tokens of a segment, and whether its middle was left out because it is too long."""
        return ids_of_text(self._model, text, self._max_text)

    def _log_odds(self, texts: Sequence[Ids], batch_size: int) -> NDArray[np.float64]:
        """Log-odds of yes, float64 ``[segments, labels]``."""
        batches = [
            self._batch([self._before + ids for ids in texts[start : start + batch_size]])
            for start in range(0, len(texts), batch_size)
        ]
        return np.concatenate(batches) if batches else np.zeros((0, len(self.labels)))

    @torch.no_grad()
    def _batch(self, contexts: Sequence[Ids]) -> NDArray[np.float64]:
        longest = max(map(len, contexts)) + max(len(question.ids) for question in self._questions)
        # A sliding window counts the padding between text and question; beyond it each question encodes the text.
        if self._shares_cache and self._model.sees_all(longest):
            try:
                return self._log_odds_of(self._cached_logits(contexts), len(contexts))
            except (AttributeError, NotImplementedError, TypeError) as error:
                self._shares_cache = False
                logger.warning(
                    f"this model cannot share its cache ({error}); each question encodes the text again"
                )
        return self._log_odds_of(self._uncached_logits(contexts), len(contexts))

    @property
    def _last(self) -> int:
        """Positions at the end of a row whose logits are needed."""
        return max(len(answer.ids) for question in self._questions for answer in question.answers)

    def _cached_logits(self, contexts: Sequence[Ids]) -> Tensor:
        """Logits ``[segments * questions, last, vocabulary]``, each text encoded once."""
        ids, mask, positions = _padded(contexts)
        _, cache = self._model.forward(ids, mask, positions, keep=1, use_cache=True)
        if cache is None:
            raise NotImplementedError("it has none")
        rows = torch.arange(len(contexts)).repeat_interleave(len(self._questions))  # [segments * questions]
        cache.batch_select_indices(rows.to(self._model.device))
        ids, question_mask, offsets = _padded([question.ids for question in self._questions])
        # The padding is between the text and its question, where the mask hides it.
        segments = len(contexts)
        full_mask = torch.cat([mask[rows], question_mask.repeat(segments, 1)], dim=1)
        start = mask.sum(1)[rows].unsqueeze(1)
        logits, _ = self._model.forward(
            ids.repeat(segments, 1), full_mask, start + offsets.repeat(segments, 1),
            keep=self._last, cache=cache, use_cache=True,
        )  # fmt: skip
        return logits

    def _uncached_logits(self, contexts: Sequence[Ids]) -> Tensor:
        """The same logits, each question in a separate row with its text."""
        rows = [[*context, *question.ids] for context in contexts for question in self._questions]
        ids, mask, positions = _padded(rows)
        logits, _ = self._model.forward(ids, mask, positions, keep=self._last)
        return logits

    def _log_odds_of(self, logits: Tensor, segments: int) -> NDArray[np.float64]:
        """Log-odds of yes ``[segments, labels]`` from the logits after every question."""
        last = logits.shape[1]
        logprobs = torch.log_softmax(logits.float(), dim=-1).unflatten(0, (segments, len(self._questions)))
        sides = np.full((2, segments, len(self.labels)), -np.inf)
        for index, question in enumerate(self._questions):
            for answer in question.answers:
                count = len(answer.ids)
                targets = torch.tensor(answer.ids, device=logits.device)
                taken = logprobs[:, index, last - count :].gather(
                    -1, targets.view(1, count, 1).expand(segments, count, 1)
                )  # [segments, count, 1]
                total = taken.double().sum((1, 2)).cpu().numpy()
                side = sides[int(answer.yes)]
                side[:, answer.label] = np.logaddexp(side[:, answer.label], total)
        return sides[1] - sides[0]


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, mask and positions ``[batch, time]`` (int64), padded on the left."""
    ids = [torch.tensor(row, dtype=torch.long) for row in rows]
    padded = pad_sequence(ids, batch_first=True, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True, padding_side="left")
    return padded, mask, (mask.cumsum(1) - 1).clamp(min=0)


def _rendered(tokenizer: Any, prompt: LikelihoodPrompt, form: Form) -> tuple[str, dict[str, str]]:
    """The prompt before the text, and after it for each label."""
    before, after = "", dict[str, str]()
    for name, question in prompt.after.items():
        before, after[name] = render(tokenizer, form, prompt.system, prompt.before, question)
    return before, after


def _questions(model: ModelAdapter, after: Mapping[str, str], prompt: LikelihoodPrompt) -> list[_Question]:
    grouped: dict[tuple[int, ...], list[_Answer]] = {}
    for label, name in enumerate(after):
        # Spaces at the end of the question belong to the answer's first token.
        question = after[name].rstrip(" ")
        spaces = after[name][len(question) :]
        question_ids = model.encode(question)
        answers: dict[tuple[int, ...], bool] = {}
        for yes, spellings in ((True, prompt.yes), (False, prompt.no)):
            for spelling in spellings:
                ids = tuple(model.encode(spaces + spelling))
                if not ids:
                    raise InputError(f"the answer '{spelling}' has no token", where="--prompt")
                if answers.setdefault(ids, yes) != yes:
                    raise InputError(
                        f"the answer '{spelling}' has the same tokens on both sides", where="--prompt"
                    )
        for ids, yes in answers.items():
            grouped.setdefault((*question_ids, *ids[:-1]), []).append(_Answer(label, yes, ids))
    return [_Question(ids, tuple(answers)) for ids, answers in grouped.items()]
