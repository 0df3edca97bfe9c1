"""Asking a multimodal model that priorkit's own loops run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from priorkit.core.errors import InputError
from priorkit.inference import generation
from priorkit.inference.answer_cache import AnswerCache
from priorkit.inference.chat_prompts import chat_prompt
from priorkit.inference.diagnosis.asking import Ask, Context
from priorkit.inference.diagnosis.states import ImageStates, image_inputs, image_states, name_embeddings
from priorkit.inference.likelihood import scoring
from priorkit.inference.likelihood.requests import Ids, LikelihoodRequest, pair_problem, split_pair
from priorkit.models.language.tokenizer import IMAGE

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from priorkit.data.images.decoding import ImageRef
    from priorkit.inference.model_adapter import ModelAdapter
    from priorkit.inference.prompt_inputs import PromptInputs


@dataclass(frozen=True)
class NativeAsker:
    """Asks one model; see :class:`priorkit.inference.diagnosis.asking.Asker`.

    Images pass the encoder again in every batch, so that a batch's answers do not depend on what was asked before a
    kill, and memory not on the number of images.

    Attributes:
        model: a multimodal model.
        folder: where answers are kept while the run lasts.
        batch_size: prompts per forward pass.
    """

    model: ModelAdapter
    folder: Path
    batch_size: int

    @property
    def tokenizer(self) -> Any:
        """The model's."""
        return self.model.tokenizer

    def chat(self, text: str, answers: Sequence[str], *, image: bool) -> tuple[Ids, list[Ids]]:
        """Token ids of a user's turn and of answers to it.

        Args:
            text: of the user.
            answers: the assistant's texts.
            image: whether an image comes before the text.

        Raises:
            InputError: an answer has no tokens of its own, or prompt and answer are longer than the model takes.
        """
        prompt, continuations = chat_prompt(
            self.model.tokenizer, f"{IMAGE}\n{text}" if image else text, answers, self.model.image_token
        )
        return self._tokenized(prompt, continuations)

    def plain(self, context: str, answers: Sequence[str]) -> tuple[Ids, list[Ids]]:
        """Token ids of a plain text and of texts that follow on it, each after a blank."""
        return self._tokenized(context, [f" {answer}" for answer in answers])

    def _tokenized(self, prompt: str, continuations: Sequence[str]) -> tuple[Ids, list[Ids]]:
        model = self.model
        context = tuple(model.prepend_bos(model.encode(prompt.rstrip())))
        answers: list[Ids] = []
        for index, continuation in enumerate(continuations):
            _, ids = split_pair(model.encode, prompt, continuation, model.prefix, model.bos_ids)
            if problem := pair_problem(ids, index, model.max_length):
                raise InputError(problem, where=repr(continuation.strip()))
            answers.append(tuple(ids))
        longest = len(context) + max(map(len, answers), default=0)
        if longest > model.max_length:
            raise InputError(f"image and question take {longest} tokens, the model takes {model.max_length}")
        return context, answers

    def log_probabilities(self, asks: Sequence[Ask], title: str) -> list[tuple[float, ...]]:
        """Summed natural log-probabilities of the answers of each prompt, in order."""
        inputs = [ask.inputs for ask in asks]
        requests = [
            LikelihoodRequest(number, cast("Ids", ask.context), ask.answers, tuple(range(len(ask.answers))))
            for number, ask in enumerate(asks)
        ]
        batches = scoring.batches(self.model, requests, inputs, self.batch_size)

        def score(batch: Sequence[int]) -> list[list[float]]:
            self.model.forget()
            chosen = [requests[number] for number in batch]
            scores = scoring.score_batch(self.model, chosen, [inputs[request.item] for request in chosen])
            return [list(values) for values in scores]

        found: list[Any] = AnswerCache(self.folder, title).get_or_compute(batches, score, title)
        return [tuple(values) for values in found]

    def generate(
        self, prompt: Context, inputs: Sequence[PromptInputs], max_new_tokens: int, title: str
    ) -> list[str]:
        """Greedy answers to one question about each image."""
        model = self.model
        prompts = [cast("Ids", prompt)] * len(inputs)
        batches = generation.batches(prompts, inputs, self.batch_size)

        def write(batch: Sequence[int]) -> list[str]:
            model.forget()
            tokens = generation.generate_batch(
                model, [prompts[number] for number in batch], [inputs[number] for number in batch],
                max_new_tokens=max_new_tokens, stop=model.end_tokens, at_once=self.batch_size,
            )  # fmt: skip
            return [model.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in tokens]

        return AnswerCache(self.folder, title).get_or_compute(batches, write, title)

    def inputs(self, images: Sequence[ImageRef], question: str) -> list[PromptInputs]:
        """What accompanies a question about each image."""
        return image_inputs(self.model, images, question)

    def states(
        self,
        prompt: Context,
        inputs: Sequence[PromptInputs],
        answers: Sequence[tuple[int, int]],
        *,
        layers: int,
        scratch: Path,
    ) -> ImageStates:
        """States of all images with the same question, see :func:`image_states`."""
        return image_states(
            self.model, cast("Ids", prompt), inputs, answers, layers=layers, batch_size=self.batch_size,
            scratch=scratch,
        )  # fmt: skip

    def name_embeddings(self, names: Sequence[str]) -> Tensor:
        """Mean input embedding of each name's tokens, fp32 ``[names, hidden]`` on the CPU."""
        return name_embeddings(self.model.model, [self.model.encode(f" {name}") for name in names])
