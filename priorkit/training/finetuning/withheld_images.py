"""What becomes of conversations whose images are withheld, and what language alone knows of their answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from priorkit.core import distributed
from priorkit.core.progress import track
from priorkit.core.runtime import Runtime
from priorkit.data.conversations.conversation import PLACEHOLDER, Conversation, Turn
from priorkit.data.conversations.refusal import REFUSAL
from priorkit.data.images.decoding import ImageRef
from priorkit.models.kernels.cross_entropy import CHUNK_TOKENS, IGNORE
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.training.finetuning.objective import Conversations, InstructionObjective, Subject

SCORED_TOGETHER = 32
"""Conversations of a batch when likelihoods are computed."""


def withheld(conversation: Conversation, placeholder: str) -> Conversation:
    """A conversation as the blind model reads it: without images, placeholders dropped or kept as text."""
    return conversation.without_images(PLACEHOLDER if placeholder != "drop" else "")


def unread(conversation: Conversation) -> Conversation:
    """The conversation with images that are only named: how many there are is known, none is kept."""
    images = tuple(ImageRef(image.name) for image in conversation.images)
    return Conversation(conversation.id, conversation.turns, images, conversation.ability)


def refused(conversation: Conversation) -> Conversation:
    """The conversation with a refusal in place of every answer."""
    turns = tuple(
        Turn(turn.role, REFUSAL) if turn.role == "assistant" else turn for turn in conversation.turns
    )
    return Conversation(conversation.id, turns, conversation.images, conversation.ability)


def shuffled_partners(samples: Conversations, seed: int) -> tuple[NDArray[np.int64], int]:
    """Whose answers each conversation gets when answers are shuffled.

    Conversations with as many answers as each other swap them along a random cycle, so that none keeps its
    own and every answer is used once.

    Returns:
        int64 ``[samples]``, and how many keep their own because no other has as many answers.
    """
    answers = np.array([len(answers_of(samples[index])) for index in range(len(samples))])
    partners = np.arange(len(samples), dtype=np.int64)
    alone = 0
    generator = np.random.default_rng((seed, 1))
    for count in np.unique(answers):
        cycle = generator.permutation(np.flatnonzero(answers == count))
        partners[cycle] = np.roll(cycle, -1)
        alone += len(cycle) == 1
    return partners, alone


def answers_of(conversation: Conversation) -> list[str]:
    """What the assistant says, turn by turn."""
    return [turn.text for turn in conversation.turns if turn.role == "assistant"]


def with_answers(conversation: Conversation, answers: list[str]) -> Conversation:
    """The conversation with other answers, as many as it has."""
    given = iter(answers)
    turns = tuple(
        Turn(turn.role, next(given)) if turn.role == "assistant" else turn for turn in conversation.turns
    )
    return Conversation(conversation.id, turns, conversation.images, conversation.ability)


def answer_gains(
    subject: Subject, samples: Conversations, chat: ChatTokenizer, packing: bool, runtime: Runtime
) -> NDArray[np.float64]:
    """How much the questions alone help a model to its answers, without images.

    The gain of a conversation is ``(log p(answers | questions) - log p(answers | no questions)) / n`` over
    its *n* answer tokens, under the model itself: what language alone knows of the answer. The
    conversation without questions has the same turns with empty questions.

    Returns:
        float64 ``[samples]``, nats per token; in every process all of them.
    """

    def asked(conversation: Conversation) -> Conversation:
        return conversation

    def unasked(conversation: Conversation) -> Conversation:
        turns = tuple(Turn(turn.role, "") if turn.role == "user" else turn for turn in conversation.turns)
        return Conversation(conversation.id, turns, (), conversation.ability)

    distributed.start(runtime)
    found = torch.zeros(2, len(samples), dtype=torch.float64, device=runtime.device)
    own = distributed.share(len(samples))
    for row, view in enumerate((asked, unasked)):
        objective = InstructionObjective(subject, Viewed(samples, view), chat, packing=packing)
        starts = range(own.start, own.stop, SCORED_TOGETHER)
        title = "likelihood of answers, " + ("with" if row == 0 else "without") + " questions"
        for start in track(starts, title, len(starts), "batches"):
            indices = range(start, min(start + SCORED_TOGETHER, own.stop))
            with torch.no_grad(), runtime.autocast():
                found[row, indices.start : indices.stop] = mean_log_likelihoods(objective, subject, indices)
    gains: NDArray[np.float64] = distributed.total(found[0] - found[1]).cpu().numpy()
    return gains


class Viewed:
    """Samples, each seen through a function, without their images."""

    def __init__(self, samples: Conversations, view: Callable[[Conversation], Conversation]) -> None:
        self._samples, self._view = samples, view

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Conversation:
        return self._view(self._samples[index])

    def images_of(self, index: int) -> tuple[int, ...]:
        return ()


def mean_log_likelihoods(objective: InstructionObjective, subject: Subject, indices: range) -> Tensor:
    """Mean log-likelihood of the answer tokens of each sample, float64 ``[samples]`` on the device."""
    items = [objective.sample(index, index) for index in indices]
    rows, _ = objective.arrange(items)
    batch = {name: value.to(subject.device) for name, value in objective.collate(items).items()}
    labels = batch["labels"]
    hidden = objective.last_hidden(batch)
    # The sample that each position belongs to: its row's k-th, or the row's only one.
    owners = torch.full_like(labels, -1)
    for row, places in enumerate(rows):
        if "document_ids" in batch:
            for number, place in enumerate(places):
                owners[row][batch["document_ids"][row] == number] = place
        else:
            owners[row] = places[0]
    wanted = labels[:, 1:] != IGNORE
    states, targets, owner = hidden[:, :-1][wanted], labels[:, 1:][wanted], owners[:, 1:][wanted]
    head = subject.model.get_output_embeddings()
    sums = torch.zeros(len(indices), dtype=torch.float64, device=labels.device)
    for start in range(0, len(targets), CHUNK_TOKENS):
        stop = start + CHUNK_TOKENS
        scores = head(states[start:stop]).float().log_softmax(dim=-1)
        values = scores.gather(1, targets[start:stop, None]).squeeze(1).double()
        sums.index_add_(0, owner[start:stop], values)
    counts = torch.bincount(owner, minlength=len(indices))
    return sums / counts.clamp(min=1)


def placeholder_embedding(embeddings: Tensor, tokens: int, seed: int) -> nn.Embedding:
    """A fresh learnt placeholder ``[tokens, width]``: the mean embedding with noise of the embeddings' spread."""
    generator = torch.Generator().manual_seed(seed)
    table = embeddings.detach().float()
    noise = torch.randn(tokens, table.shape[1], generator=generator).to(table.device)
    made = nn.Embedding(tokens, table.shape[1], device=table.device)
    with torch.no_grad():
        made.weight.copy_(table.mean(0) + noise * table.std(0))
    return made
