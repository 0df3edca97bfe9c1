"""Asking a multimodal model about entities: what a diagnosis needs of it, whatever program runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from priorkit.inference.likelihood.requests import Ids
from priorkit.inference.prompt_inputs import PromptInputs

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from priorkit.data.images.decoding import ImageRef
    from priorkit.inference.diagnosis.states import ImageStates

SHORT = "Answer the question using a single word or phrase."
"""The request for a short answer that LLaVA is tuned on."""

TEXT_ONLY = PromptInputs()
"""What accompanies a prompt without an image."""

Context = Ids | str
"""A prompt: token ids, or the text of which the model's own processor makes them."""


@dataclass(frozen=True)
class Ask:
    """One prompt with the answers that are compared.

    Attributes:
        context: the prompt, as the asker wrote it.
        answers: token ids of each answer.
        inputs: the image that it is about, if there is one.
    """

    context: Context
    answers: tuple[Ids, ...]
    inputs: PromptInputs = TEXT_ONLY


class Asker(Protocol):
    """Asks one model by likelihood and by generation, and reads its states.

    Answers are kept while a run lasts.
    """

    @property
    def tokenizer(self) -> Any:
        """The model's."""
        ...

    def chat(self, text: str, answers: Sequence[str], *, image: bool) -> tuple[Context, list[Ids]]:
        """A prompt of a user's turn, and token ids of answers to it.

        Args:
            text: of the user.
            answers: the assistant's texts.
            image: whether an image comes before the text.

        Raises:
            InputError: an answer has no tokens of its own, or the model cannot take prompt and answer.
        """
        ...

    def plain(self, context: str, answers: Sequence[str]) -> tuple[Context, list[Ids]]:
        """A prompt of plain text, and token ids of texts that follow on it, each after a blank."""
        ...

    def inputs(self, images: Sequence[ImageRef], question: str) -> list[PromptInputs]:
        """What accompanies a question about each image."""
        ...

    def log_probabilities(self, asks: Sequence[Ask], title: str) -> list[tuple[float, ...]]:
        """Summed natural log-probabilities of the answers of each prompt, in order."""
        ...

    def generate(
        self, prompt: Context, inputs: Sequence[PromptInputs], max_new_tokens: int, title: str
    ) -> list[str]:
        """Greedy answers to one question about each image."""
        ...

    def states(
        self,
        prompt: Context,
        inputs: Sequence[PromptInputs],
        answers: Sequence[tuple[int, int]],
        *,
        layers: int,
        scratch: Path,
    ) -> ImageStates:
        """States of all images with the same question.

        Args:
            prompt: the question.
            inputs: the image of each prompt.
            answers: of each image the first tokens of the visual answer and of the prior's answer.
            layers: most layers whose states are kept.
            scratch: folder of the file that the layers' states are written to.
        """
        ...

    def name_embeddings(self, names: Sequence[str]) -> Tensor:
        """Mean input embedding of each name's tokens, fp32 ``[names, hidden]`` on the CPU."""
        ...
