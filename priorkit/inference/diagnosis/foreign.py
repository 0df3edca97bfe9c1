"""Asking an image-text-to-text model of any family, which transformers' ``generate`` runs with its own processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from priorkit.core.errors import InputError
from priorkit.inference.answer_cache import AnswerCache
from priorkit.inference.backends.base import Prompt, Reply, encode_plain, split_prompt
from priorkit.inference.backends.replies import cached_replies
from priorkit.inference.chat_prompts import chat_prompt
from priorkit.inference.diagnosis.asking import Ask, Context
from priorkit.inference.diagnosis.foreign_states import foreign_states
from priorkit.inference.diagnosis.states import ImageStates, name_embeddings
from priorkit.inference.likelihood.requests import Ids, pair_problem
from priorkit.inference.prompt_inputs import PromptInputs
from priorkit.models.language.tokenizer import IMAGE

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from priorkit.data.images.decoding import ImageRef
    from priorkit.inference.backends.generate import GenerateBackend


@dataclass(frozen=True)
class BackendAsker:
    """Asks one model; see :class:`priorkit.inference.diagnosis.asking.Asker`.

    Attributes:
        backend: the model with its processor; without a chat template it is asked in plain text.
        folder: where answers are kept while the run lasts.
        batch_size: prompts of a batch.
    """

    backend: GenerateBackend
    folder: Path
    batch_size: int

    @property
    def tokenizer(self) -> Any:
        """The model's."""
        return self.backend.tokenizer

    def chat(self, text: str, answers: Sequence[str], *, image: bool) -> tuple[str, list[Ids]]:
        """A prompt's text with the model's placeholder of an image, and token ids of answers to it.

        Raises:
            InputError: an answer has no tokens of its own, or the prompt has not one placeholder for each image.
        """
        token, placeholder = self.backend.image_token, f"{IMAGE}\n" if image else ""
        if not self.tokenizer.chat_template:
            return self.plain((placeholder + text).replace(IMAGE, token), answers)
        prompt, continuations = chat_prompt(self.tokenizer, placeholder + text, answers, token, parts=True)
        prompt = prompt.replace(IMAGE, token)
        if (found := prompt.count(token)) != int(image):
            raise InputError(
                f"its prompt has {found} placeholders for {int(image)} images: {prompt!r}",
                where=str(self.tokenizer.name_or_path),
            )
        return self._tokenized(prompt, continuations)

    def plain(self, context: str, answers: Sequence[str]) -> tuple[str, list[Ids]]:
        """A plain text, and token ids of texts that follow on it, each after a blank."""
        return self._tokenized(context, [f" {answer}" for answer in answers])

    def _tokenized(self, prompt: str, continuations: Sequence[str]) -> tuple[str, list[Ids]]:
        context = split_prompt(self.backend, prompt, "")[0]
        answers: list[Ids] = []
        for index, continuation in enumerate(continuations):
            ids = split_prompt(self.backend, prompt, continuation)[1]
            if problem := pair_problem(ids, index, self.backend.max_length):
                raise InputError(problem, where=repr(continuation.strip()))
            answers.append(ids)
        return context, answers

    def inputs(self, images: Sequence[ImageRef], question: str) -> list[PromptInputs]:
        """What accompanies a question about each image: the image."""
        return [PromptInputs((image,)) for image in images]

    def log_probabilities(self, asks: Sequence[Ask], title: str) -> list[tuple[float, ...]]:
        """Summed natural log-probabilities of the answers of each prompt, in order.

        Raises:
            InputError: the model cannot take a prompt.
        """
        prompts = [Prompt(cast("str", ask.context), ask.inputs.images) for ask in asks]
        replies = self._replies(
            prompts,
            lambda batch: self.backend.score(
                [prompts[number] for number in batch], [asks[number].answers for number in batch]
            ),
            title,
        )
        return [reply.scores for reply in replies]

    def generate(
        self, prompt: Context, inputs: Sequence[PromptInputs], max_new_tokens: int, title: str
    ) -> list[str]:
        """Greedy answers to one question about each image; in plain text an answer is a line.

        Raises:
            InputError: the model cannot take a prompt.
        """
        prompts = [Prompt(cast("str", prompt), row.images) for row in inputs]
        replies = self._replies(
            prompts,
            lambda batch: self.backend.generate([prompts[number] for number in batch], max_new_tokens),
            title,
        )
        texts = [reply.text.strip() for reply in replies]
        return texts if self.tokenizer.chat_template else [text.partition("\n")[0].strip() for text in texts]

    def _replies(
        self, prompts: Sequence[Prompt], answer: Callable[[Sequence[int]], list[Reply]], title: str
    ) -> list[Reply]:
        cache = AnswerCache(self.folder, title)
        replies = cached_replies(prompts, answer, self.batch_size, title, cache)
        for prompt, reply in zip(prompts, replies, strict=True):
            if reply.problem:
                shown = ", ".join(image.name for image in prompt.images)
                raise InputError(reply.problem, where=shown or repr(prompt.text))
        return replies

    def states(
        self,
        prompt: Context,
        inputs: Sequence[PromptInputs],
        answers: Sequence[tuple[int, int]],
        *,
        layers: int,
        scratch: Path,
    ) -> ImageStates:
        """States of all images with the same question, see :func:`foreign_states`."""
        prompts = [Prompt(cast("str", prompt), row.images) for row in inputs]
        return foreign_states(
            self.backend, prompts, answers, layers=layers, batch_size=self.batch_size, scratch=scratch
        )

    def name_embeddings(self, names: Sequence[str]) -> Tensor:
        """Mean input embedding of each name's tokens, fp32 ``[names, hidden]`` on the CPU."""
        ids = [encode_plain(self.tokenizer, f" {name}") for name in names]
        return name_embeddings(self.backend.model, ids)
