"""Labelling segments of text with a causal language model: one yes-or-no question per label, by likelihood.

The score of a label is ``P(yes) / (P(yes) + P(no))``, each side summed over its spellings. A segment is
encoded once: the questions that follow it share the keys and values of its text.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from priorkit.core.artifact import write_text
from priorkit.core.errors import InputError
from priorkit.core.process import runtime
from priorkit.inference.loading import load_model_adapter
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.labelling.base import SegmentScores
from priorkit.labelling.plan import LabelPlan
from priorkit.labelling.prompt import Form, LabelPrompt
from priorkit.labelling.settings import LabelCorpusSettings

logger = logging.getLogger(__name__)

Ids = list[int]

MIN_SEGMENT_TOKENS = 16
"""Fewest tokens of a segment that must fit in the context with the prompt."""

CONTENT_FREE = ("", "N/A", "[MASK]")
"""Content-free inputs of contextual calibration (Zhao et al. 2021, "Calibrate Before Use")."""

CALIBRATION = "leaning.json"
"""File in the state folder with the log-odds of yes on content-free inputs, by label."""

_TEXT_MARK = "\ue000"
"""Placeholder for the text while a chat template is rendered, from Unicode's private use area."""


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


class LanguageModelLabeller:
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

    def __init__(self, model: ModelAdapter, prompt: LabelPrompt, form: Form, batch_size: int = 8) -> None:
        self._model = model
        before, after = _render(model.tokenizer, prompt, form)
        self._before = _before_text(model, before)
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
        # A sliding window counts the padding between text and question; beyond it each question encodes the text.
        self._window = getattr(model.model.config, "sliding_window", None) or model.max_length
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

    def score(self, texts: Sequence[str]) -> SegmentScores:
        """Score segments, the longest first; scores do not depend on the batches, except for rounding."""
        encoded = [self._text_ids(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: (-len(encoded[index][0]), index))
        scores = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        odds = self._log_odds([encoded[index][0] for index in order], self.batch_size)
        scores[order] = 1 / (1 + np.exp(-(odds - self._content_free)))
        return SegmentScores(scores, np.array([truncated for _, truncated in encoded], dtype=np.bool_))

    def _text_ids(self, text: str) -> tuple[Ids, bool]:
        """Tokens of a segment, and whether its middle was left out because it is too long."""
        (ids,) = self._model.document_encoder.ids([text])
        if len(ids) <= self._max_text:
            return ids, False
        head = (self._max_text + 1) // 2
        return [*ids[:head], *ids[len(ids) - (self._max_text - head) :]], True

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
        if self._shares_cache and longest <= self._window:
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


def load_language_model(settings: LabelCorpusSettings, plan: LabelPlan, state: Path) -> LanguageModelLabeller:
    """Load the planned language model; with ``--calibrate`` calibrate it and keep the result in the state folder.

    Raises:
        InputError: the model cannot be loaded, or the prompt does not fit it.
    """
    started = runtime.start_portable(settings.seed, settings.device, settings.precision)
    if plan.model is None or plan.prompt is None or plan.form is None:
        raise TypeError("no language model was planned")
    # Inference only, so the weights may be as narrow as the compute dtype.
    dtype = torch.bfloat16 if started.precision == "bf16" else torch.float32
    model = load_model_adapter(plan.model, started.device, dtype)
    labeller = LanguageModelLabeller(model, plan.prompt, plan.form, settings.batch_size)
    if settings.calibrate:
        log_odds = dict(zip(labeller.labels, labeller.calibrate().tolist(), strict=True))
        write_text(state / CALIBRATION, json.dumps(log_odds))
    return labeller


def read_calibration(state: Path) -> dict[str, float]:
    """Log-odds of yes on content-free inputs, by label."""
    return json.loads((state / CALIBRATION).read_text(encoding="utf-8"))


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, mask and positions ``[batch, time]`` (int64), padded on the left."""
    ids = [torch.tensor(row, dtype=torch.long) for row in rows]
    padded = pad_sequence(ids, batch_first=True, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True, padding_side="left")
    return padded, mask, (mask.cumsum(1) - 1).clamp(min=0)


def _render(tokenizer: Any, prompt: LabelPrompt, form: Form) -> tuple[str, dict[str, str]]:
    """The prompt before the text, and after it for each label."""
    if form == "plain":
        return prompt.before, dict(prompt.after)
    before, after = "", dict[str, str]()
    for name, question in prompt.after.items():
        user = f"{prompt.before}{_TEXT_MARK}{question}"
        rendered = _render_chat(tokenizer, prompt.system, user)
        before, mark, after[name] = rendered.partition(_TEXT_MARK)
        if not mark:
            raise InputError("the chat template drops the question", hint="use --form plain")
    return before, after


def _render_chat(tokenizer: Any, system: str, user: str) -> str:
    """Render a chat up to the answer; where the template has no system message, the user's begins with it."""
    from jinja2 import TemplateError

    turn = [{"role": "user", "content": user}]
    joined = [{"role": "user", "content": f"{system}\n\n{user}" if system else user}]
    variants = [[{"role": "system", "content": system}, *turn], joined] if system else [turn]
    for messages in variants:
        try:
            # Templates of reasoning models know enable_thinking; others ignore it.
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except TemplateError:
            continue
        if not system or system.strip() in text:
            return str(text)
    raise InputError("the tokenizer's chat template cannot be rendered", hint="use --form plain")


def _before_text(model: ModelAdapter, before: str) -> Ids:
    """Tokens before the text; they begin as every prompt does (:mod:`priorkit.inference.bos`)."""
    return model.prepend_bos(model.encode(before)) or [model.prefix]


def _questions(model: ModelAdapter, after: Mapping[str, str], prompt: LabelPrompt) -> list[_Question]:
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
