"""Labelling segments of text by a causal language model: one yes-or-no question per label, by likelihood.

The score of a label is ``P(yes) / (P(yes) + P(no))``, each side summed over its spellings. A segment is
read once: the keys and values of its text are kept and shared by the questions, which follow it.
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
from priorkit.inference.model_adapter import Subject
from priorkit.labelling.prompt import Form, LabelPrompt

logger = logging.getLogger(__name__)

Ids = list[int]

LEAST_ROOM = 16
"""Fewest tokens of a segment that must fit beside the question."""

CONTENT_FREE = ("", "N/A", "[MASK]")
"""Texts that say nothing, to learn how a model leans (Zhao et al. 2021, "Calibrate Before Use")."""

_HERE = "\ue000"
"""Stands for the text while a chat template is rendered; of Unicode's private use."""


@dataclass(frozen=True)
class Scored:
    """Scores of some segments.

    Attributes:
        scores: float32 ``[segments, labels]``, 0 to 1, labels in the order of the prompt's.
        truncated: bool ``[segments]``, true where the model did not see the segment's middle.
    """

    scores: NDArray[np.float32]
    truncated: NDArray[np.bool_]


@dataclass(frozen=True)
class _Answer:
    """One spelling of an answer: its tokens, the label it is about, and the side it takes."""

    label: int
    yes: bool
    ids: tuple[int, ...]


@dataclass(frozen=True)
class _Tail:
    """Tokens that follow the text, and the answers whose likelihood can be read off behind them.

    Answers share a tail if they differ in their last token alone, as all answers of one token do.
    """

    ids: tuple[int, ...]
    answers: tuple[_Answer, ...]


class LanguageModelLabeller:
    """A language model that answers for each label whether it fits a segment.

    Args:
        subject: the model.
        prompt: what it is asked.
        form: whether the prompt is put into the tokenizer's chat template.

    Raises:
        InputError: an answer has no token, yes and no cannot be told apart, or the question leaves no
            room for a text.
    """

    def __init__(self, subject: Subject, prompt: LabelPrompt, form: Form) -> None:
        self._subject = subject
        before, after = _render(subject.tokenizer, prompt, form)
        self._before = _beginning(subject, before, form)
        self._tails = _tails(subject, after, prompt)
        longest = max(len(tail.ids) + 1 for tail in self._tails)
        self._room = subject.max_length - len(self._before) - longest
        if self._room < LEAST_ROOM:
            raise InputError(
                f"the question takes {len(self._before) + longest} tokens, the model takes "
                f"{subject.max_length} with the text",
                hint="shorten the prompt (--prompt), or take a model with a longer context",
            )
        self._shares_cache = True
        # A window counts the padding between text and question; beyond it each question reads the text.
        self._window = getattr(subject.model.config, "sliding_window", None) or subject.max_length
        self._count = len(prompt.after)
        self._lean = np.zeros(self._count)

    @property
    def room(self) -> int:
        """Tokens of a segment that the model sees; a longer one loses its middle."""
        return self._room

    def calibrate(self) -> NDArray[np.float64]:
        """Learn how the model leans before a text that says nothing, and take that off every later score.

        Returns:
            float64 ``[labels]``, the mean log-odds of yes.
        """
        self._lean = np.zeros(self._count)
        texts = [self._text_ids(text)[0] for text in CONTENT_FREE]
        self._lean = self._log_odds(texts, len(texts)).mean(0)
        return self._lean

    def score(self, texts: Sequence[str], batch_size: int) -> Scored:
        """Score segments, the longest first; scores do not depend on the batches but for rounding.

        Args:
            texts: the segments.
            batch_size: segments per pass.
        """
        encoded = [self._text_ids(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda place: (-len(encoded[place][0]), place))
        scores = np.zeros((len(texts), self._count), dtype=np.float32)
        odds = self._log_odds([encoded[place][0] for place in order], batch_size)
        scores[order] = 1 / (1 + np.exp(-(odds - self._lean)))
        return Scored(scores, np.array([cut for _, cut in encoded], dtype=np.bool_))

    def _text_ids(self, text: str) -> tuple[Ids, bool]:
        """Tokens of a segment, its middle left out where it is too long."""
        ids = _encode_plainly(self._subject.tokenizer, text)
        if len(ids) <= self._room:
            return ids, False
        head = (self._room + 1) // 2
        return [*ids[:head], *ids[len(ids) - (self._room - head) :]], True

    def _log_odds(self, texts: Sequence[Ids], batch_size: int) -> NDArray[np.float64]:
        """Log-odds of yes, float64 ``[segments, labels]``."""
        found = [
            self._batch([self._before + ids for ids in texts[start : start + batch_size]])
            for start in range(0, len(texts), batch_size)
        ]
        return np.concatenate(found) if found else np.zeros((0, self._count))

    @torch.no_grad()
    def _batch(self, heads: Sequence[Ids]) -> NDArray[np.float64]:
        longest = max(map(len, heads)) + max(len(tail.ids) for tail in self._tails)
        if self._shares_cache and longest <= self._window:
            try:
                return self._read_off(self._after_cache(heads), len(heads))
            except (AttributeError, NotImplementedError, TypeError) as error:
                self._shares_cache = False
                logger.warning(
                    f"this model cannot share its cache ({error}); each question reads the text again"
                )
        return self._read_off(self._whole(heads), len(heads))

    def _keep(self) -> int:
        """Positions at the end of a row whose logits are read."""
        return max(len(answer.ids) for tail in self._tails for answer in tail.answers)

    def _after_cache(self, heads: Sequence[Ids]) -> Tensor:
        """Logits ``[segments * tails, keep, vocabulary]``, the texts read once."""
        ids, mask, positions = _padded(heads)
        _, cache = self._subject.forward(ids, mask, positions, keep=1, use_cache=True)
        if cache is None:
            raise NotImplementedError("it has none")
        index = torch.arange(len(heads)).repeat_interleave(len(self._tails))  # [segments * tails]
        cache.batch_select_indices(index.to(self._subject.device))
        tails, tail_mask, tail_positions = _padded([tail.ids for tail in self._tails])
        # The padding stands between the text and its question, where the mask hides it.
        rows = len(heads)
        whole = torch.cat([mask[index], tail_mask.repeat(rows, 1)], dim=1)
        begin = mask.sum(1)[index].unsqueeze(1)
        logits, _ = self._subject.forward(
            tails.repeat(rows, 1), whole, begin + tail_positions.repeat(rows, 1),
            keep=self._keep(), cache=cache, use_cache=True,
        )  # fmt: skip
        return logits

    def _whole(self, heads: Sequence[Ids]) -> Tensor:
        """The same logits, each question with its text in a row of its own."""
        rows = [[*head, *tail.ids] for head in heads for tail in self._tails]
        ids, mask, positions = _padded(rows)
        logits, _ = self._subject.forward(ids, mask, positions, keep=self._keep())
        return logits

    def _read_off(self, logits: Tensor, segments: int) -> NDArray[np.float64]:
        """Log-odds of yes ``[segments, labels]`` from the logits behind every tail."""
        keep = logits.shape[1]
        logprobs = torch.log_softmax(logits.float(), dim=-1).unflatten(0, (segments, len(self._tails)))
        sides = np.full((2, segments, self._count), -np.inf)
        for place, tail in enumerate(self._tails):
            for answer in tail.answers:
                count = len(answer.ids)
                targets = torch.tensor(answer.ids, device=logits.device)
                taken = logprobs[:, place, keep - count :].gather(
                    -1, targets.view(1, count, 1).expand(segments, count, 1)
                )  # [segments, count, 1]
                total = taken.double().sum((1, 2)).cpu().numpy()
                own = sides[int(answer.yes), :, answer.label]
                sides[int(answer.yes), :, answer.label] = np.logaddexp(own, total)
        return sides[1] - sides[0]


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, mask and positions ``[batch, time]`` (int64), padded on the left."""
    ids = [torch.tensor(row, dtype=torch.long) for row in rows]
    padded = pad_sequence(ids, batch_first=True, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True, padding_side="left")
    return padded, mask, (mask.cumsum(1) - 1).clamp(min=0)


def _render(tokenizer: Any, prompt: LabelPrompt, form: Form) -> tuple[str, dict[str, str]]:
    """The prompt before the text, and behind it for each label."""
    if form == "plain":
        return prompt.before, dict(prompt.after)
    before, after = "", dict[str, str]()
    for name, question in prompt.after.items():
        user = f"{prompt.before}{_HERE}{question}"
        rendered = _chat(tokenizer, prompt.system, user)
        before, sign, after[name] = rendered.partition(_HERE)
        if not sign:
            raise InputError("the chat template leaves the question out", hint="use --form plain")
    return before, after


def _chat(tokenizer: Any, system: str, user: str) -> str:
    """Render a chat up to the answer; the system message goes to the user where the template has none."""
    from jinja2 import TemplateError

    own = [{"role": "user", "content": user}]
    joined = [{"role": "user", "content": f"{system}\n\n{user}" if system else user}]
    tried = [[{"role": "system", "content": system}, *own], joined] if system else [own]
    for messages in tried:
        try:
            # Templates of models that think before they answer read the switch; others pass over it.
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except TemplateError:
            continue
        if not system or system.strip() in text:
            return str(text)
    raise InputError("the tokenizer's chat template cannot be rendered", hint="use --form plain")


def _beginning(subject: Subject, before: str, form: Form) -> Ids:
    """Tokens before the text; in plain form with the beginning-of-text token if the tokenizer puts one."""
    ids = subject.encode(before)
    bos = subject.tokenizer.bos_token_id
    puts: Ids = subject.tokenizer("")["input_ids"]
    if form == "plain" and bos is not None and puts[:1] == [bos] and ids[:1] != [bos]:
        ids = [int(bos), *ids]
    return ids or [subject.prefix]


def _tails(subject: Subject, after: Mapping[str, str], prompt: LabelPrompt) -> list[_Tail]:
    grouped: dict[tuple[int, ...], list[_Answer]] = {}
    for label, name in enumerate(after):
        # White space at the question's end belongs to the answer, as models tokenise it so.
        question = after[name].rstrip(" ")
        blank = after[name][len(question) :]
        own = subject.encode(question)
        answers: dict[tuple[int, ...], bool] = {}
        for yes, spellings in ((True, prompt.yes), (False, prompt.no)):
            for spelling in spellings:
                ids = tuple(subject.encode(blank + spelling))
                if not ids:
                    raise InputError(f"the answer '{spelling}' has no token", where="--prompt")
                if answers.setdefault(ids, yes) != yes:
                    raise InputError(
                        f"the answer '{spelling}' is the same tokens on both sides", where="--prompt"
                    )
        for ids, yes in answers.items():
            grouped.setdefault((*own, *ids[:-1]), []).append(_Answer(label, yes, ids))
    return [_Tail(ids, tuple(answers)) for ids, answers in grouped.items()]


def _encode_plainly(tokenizer: Any, text: str) -> Ids:
    """Tokens of a text in which the names of special tokens are mere text."""
    backend = tokenizer.backend_tokenizer
    known = backend.encode_special_tokens
    backend.encode_special_tokens = True
    try:
        return list(backend.encode(text, add_special_tokens=False).ids)
    finally:
        backend.encode_special_tokens = known
