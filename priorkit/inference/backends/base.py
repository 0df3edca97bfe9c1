"""What evaluation needs of a program that runs models: prompts of text and images in, texts and log-probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from priorkit.data.images.decoding import ImageRef
from priorkit.inference.likelihood.requests import LikelihoodRequest
from priorkit.models.language.tokenizer import prepend_bos

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as a model's processor takes it.

    Attributes:
        text: with the model's placeholder for each image.
        images: in the order of their placeholders.
    """

    text: str
    images: tuple[ImageRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a back end made of a prompt.

    Attributes:
        text: what was written; empty where continuations were scored.
        scores: summed natural log-probabilities of the continuations.
        image_tokens: positions that the prompt's images took.
        problem: why the prompt could not be answered; empty if it could.
    """

    text: str = ""
    scores: tuple[float, ...] = ()
    image_tokens: int = 0
    problem: str = ""


class Backend(Protocol):
    """A loaded model behind the program that runs it."""

    tokenizer: Any
    image_token: str
    max_length: int
    bos_ids: list[int]

    @property
    def joins_lines(self) -> bool:
        """Whether the processor ends every prompt with a line break of its own."""
        ...

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Reply]:
        """Answer prompts by the most probable token, one after the other.

        Args:
            prompts: one batch.
            max_new_tokens: most tokens of an answer; fewer where the model's length is reached before.
        """
        ...

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[Ids]]) -> list[Reply]:
        """Log-probabilities of continuations.

        Args:
            prompts: one batch.
            continuations: for each prompt at least one, none of them empty.
        """
        ...

    def score_text(self, requests: Sequence[LikelihoodRequest]) -> list[float]:
        """Summed log-probability of each request's only continuation; no images."""
        ...


def prefix_of(tokenizer: Any) -> int | None:
    """The token used as an empty context: beginning of text, or else end of text; None without either."""
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return None if token is None else int(token)


def encode_plain(tokenizer: Any, text: str) -> list[int]:
    """Token ids without special tokens; an image's placeholder stays one token or a few."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def split_prompt(backend: Backend, context: str, continuation: str) -> tuple[str, Ids]:
    """A context's text and the token ids of a continuation.

    As in :func:`priorkit.inference.likelihood.requests.split_pair`: blanks at the end of the context belong to the continuation,
    and the two are encoded as one text. Line breaks, with which chat templates begin an answer, stay, so that letters
    are single tokens that one pass scores; they add the same to all options. A processor that ends the prompt with a line break of its own
    (PaliGemma's) begins an answer without a blank.
    """
    tokenizer = backend.tokenizer
    if backend.joins_lines:
        return context, tuple(encode_plain(tokenizer, continuation.strip()))
    stripped = context.rstrip(" ")
    continuation = context[len(stripped) :] + continuation
    if not stripped:
        prefix = prefix_of(tokenizer)
        return ("" if prefix is None else tokenizer.decode([prefix])), tuple(
            encode_plain(tokenizer, continuation)
        )
    before = prepend_bos(encode_plain(tokenizer, stripped), backend.bos_ids)
    full = prepend_bos(encode_plain(tokenizer, stripped + continuation), backend.bos_ids)
    return stripped, tuple(full[len(before) :])


def with_bos(backend: Backend, text: str) -> str:
    """A prompt's text that begins with the beginning-of-text token, once, where the tokenizer puts it there."""
    bos = backend.tokenizer.decode(backend.bos_ids) if backend.bos_ids else ""
    return text if text.startswith(bos) else bos + text
