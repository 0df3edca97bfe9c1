"""Labelling with a language or multimodal model: one question for all labels, whose answer is parsed.

The form of "Learning to See Before Seeing" (arXiv 2509.26625, appendices B and C).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from priorkit.core.errors import InputError
from priorkit.data.conversations.task_conversations import IMAGE_LEVEL
from priorkit.data.images.decoding import ImageRef
from priorkit.inference.generation import batches, generate_batch
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.inference.prompt_inputs import PromptInputs
from priorkit.labelling.base import MIN_SEGMENT_TOKENS, SegmentScores
from priorkit.labelling.language_models.answers import parse_labels
from priorkit.labelling.language_models.prompts import Form, GenerationPrompt
from priorkit.labelling.language_models.rendering import ids_before_text, ids_of_text, render


class GenerationLabeller:
    """A model that names the labels which fit a segment.

    A label's score is 1 where the answer names it, else 0.

    Args:
        model: the model.
        prompt: its prompt.
        form: whether the prompt is rendered with the tokenizer's chat template.
        batch_size: segments answered together.
        max_new_tokens: longest answer.

    Raises:
        InputError: the prompt leaves no room for a text.
    """

    def __init__(
        self,
        model: ModelAdapter,
        prompt: GenerationPrompt,
        form: Form,
        batch_size: int = 8,
        max_new_tokens: int = 64,
    ) -> None:
        self._model, self._prompt = model, prompt
        self._form: Form = form
        self.labels = tuple(prompt.names)
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        self._around = lru_cache(maxsize=8)(self._around_text)
        self._around(0)

    def _around_text(self, images: int) -> tuple[list[int], list[int], int]:
        """Tokens before and after the text of a prompt with images, and how many the text may have."""
        prompt, model = self._prompt, self._model
        before, after = render(
            model.tokenizer, self._form, prompt.system, prompt.before, prompt.after, images, model.image_token
        )
        head, tail = ids_before_text(model, before), model.encode(after)
        room = model.max_length - len(head) - len(tail) - self.max_new_tokens
        if room < MIN_SEGMENT_TOKENS:
            raise InputError(
                f"the prompt takes {len(head) + len(tail)} tokens and the answer {self.max_new_tokens}, the model "
                f"takes {model.max_length} with the text",
                hint="shorten the prompt (--prompt), or use a model with a longer context",
            )
        return head, tail, room

    def score(
        self, texts: Sequence[str], images: Sequence[tuple[ImageRef, ...]] | None = None
    ) -> SegmentScores:
        """Label segments.

        Args:
            texts: their texts.
            images: their images, for a multimodal model; None without.

        Raises:
            InputError: images leave no room for a text.
        """
        shown = [images[index] if images is not None else () for index in range(len(texts))]
        rows: list[list[int]] = []
        truncated: list[bool] = []
        for text, refs in zip(texts, shown, strict=True):
            head, tail, room = self._around(len(refs))
            ids, cut = ids_of_text(self._model, text, room)
            rows.append([*head, *ids, *tail])
            truncated.append(cut)
        inputs = [
            PromptInputs(refs, text, IMAGE_LEVEL)
            if self._model.capabilities.questions
            else PromptInputs(refs)
            for text, refs in zip(texts, shown, strict=True)
        ]
        answers = self._answers(rows, inputs)
        self._model.forget()
        scores = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        unparsed = np.zeros(len(texts), dtype=np.bool_)
        for index, answer in enumerate(answers):
            found = parse_labels(answer, self._prompt.names, self._prompt.none)
            unparsed[index] = found is None
            scores[index] = [label in (found or ()) for label in self.labels]
        return SegmentScores(scores, np.array(truncated, dtype=np.bool_), unparsed)

    def _answers(self, rows: Sequence[Sequence[int]], inputs: Sequence[PromptInputs]) -> list[str]:
        """What the model writes, in order; without a chat template its answer is one line."""
        model = self._model
        answers = [""] * len(rows)
        for batch in batches(rows, inputs, self.batch_size):
            written = generate_batch(
                model,
                [rows[index] for index in batch],
                [inputs[index] for index in batch],
                max_new_tokens=self.max_new_tokens,
                stop=model.end_tokens,
                at_once=self.batch_size,
            )
            for index, text in zip(
                batch, model.tokenizer.batch_decode(written, skip_special_tokens=True), strict=True
            ):
                answers[index] = text.strip().split("\n", 1)[0] if self._form == "plain" else text
        return answers
