"""Conversations with their images withheld, and how much their questions help a model to the answers without images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from priorkit.core.process import distributed
from priorkit.core.process.progress import track
from priorkit.core.process.runtime import Runtime
from priorkit.data.conversations.conversation import PLACEHOLDER, Conversation, Turn
from priorkit.data.conversations.conversation_store import ConversationMixture
from priorkit.data.conversations.refusal import REFUSAL
from priorkit.data.images.decoding import ImageRef
from priorkit.models.kernels.cross_entropy import CHUNK_TOKENS, IGNORE
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.models.multimodal.base import TrainableModel
from priorkit.training.finetuning.batches import ConversationSamples
from priorkit.training.finetuning.objective import InstructionObjective
from priorkit.training.objectives.base import to_device

LIKELIHOOD_BATCH = 32
"""Conversations per forward pass when likelihoods are computed."""


def withhold_images(conversation: Conversation, placeholder: str) -> Conversation:
    """A conversation without its images: their placeholders dropped (``drop``) or kept as text."""
    return conversation.without_images(PLACEHOLDER if placeholder != "drop" else "")


def drop_image_content(conversation: Conversation) -> Conversation:
    """The conversation with the names of its images only: they are still counted, but not stored."""
    images = tuple(ImageRef(image.name) for image in conversation.images)
    return replace(conversation, images=images)


def with_refusals(conversation: Conversation) -> Conversation:
    """The conversation with a refusal instead of every answer."""
    turns = tuple(
        Turn(turn.role, REFUSAL) if turn.role == "assistant" else turn for turn in conversation.turns
    )
    return replace(conversation, turns=turns)


def shuffled_partners(samples: ConversationSamples, seed: int) -> tuple[NDArray[np.int64], int]:
    """The conversation whose answers each conversation gets when answers are shuffled.

    Conversations with the same number of answers pass them on along a random cycle, so that none keeps its
    own and every answer is used once.

    Returns:
        int64 ``[samples]``, and how many keep their own because no other has as many answers.
    """
    answers = np.array([len(answers_of(samples[index])) for index in range(len(samples))])
    partners = np.arange(len(samples), dtype=np.int64)
    unshuffled = 0
    generator = np.random.default_rng((seed, 1))
    for count in np.unique(answers):
        cycle = generator.permutation(np.flatnonzero(answers == count))
        partners[cycle] = np.roll(cycle, -1)
        unshuffled += len(cycle) == 1
    return partners, unshuffled


class OtherImages:
    """Samples that show the images of other samples, as many as their own.

    Sets of images are put on a ring in random order, one for each number of images, and each is replaced by the
    next: questions about one image stay together, and every image is shown as often as it was asked about.

    Args:
        samples: the samples.
        seed: of the rings.
    """

    def __init__(self, samples: ConversationMixture, seed: int) -> None:
        self._samples = samples
        rings: dict[int, dict[range, None]] = {}
        for index in range(len(samples)):
            numbers = samples.images_of(index)
            rings.setdefault(len(numbers), {})[numbers] = None
        generator = np.random.default_rng((seed, 2))
        self._next: dict[range, range] = {}
        for sets in rings.values():
            ring = list(sets)
            order = generator.permutation(len(ring)).tolist()
            self._next.update((ring[a], ring[b]) for a, b in zip(order, [*order[1:], order[0]], strict=True))
        self.unshuffled = sum(
            bool(numbers) and self._next[numbers] == numbers
            for numbers in map(samples.images_of, range(len(samples)))
        )
        """Samples that keep their images because no other has as many."""

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Conversation:
        return self._samples[index]

    def images_of(self, index: int) -> range:
        """The numbers of the images shown."""
        return self._next[self._samples.images_of(index)]


def answers_of(conversation: Conversation) -> list[str]:
    """The texts of the assistant's turns."""
    return [turn.text for turn in conversation.turns if turn.role == "assistant"]


def with_answers(conversation: Conversation, answers: list[str]) -> Conversation:
    """The conversation with other answers, one per answer."""
    remaining = iter(answers)
    turns = tuple(
        Turn(turn.role, next(remaining)) if turn.role == "assistant" else turn for turn in conversation.turns
    )
    return replace(conversation, turns=turns)


def answer_gains(
    subject: TrainableModel,
    samples: ConversationSamples,
    chat: ChatTokenizer,
    packing: bool,
    runtime: Runtime,
) -> NDArray[np.float64]:
    """How much the questions help a model to the answers without images.

    The gain of a conversation is ``(log p(answers | questions) - log p(answers | no questions)) / n`` over
    its *n* answer tokens, under the model itself. The conversation without questions has the same turns
    with empty questions.

    Returns:
        float64 ``[samples]``, nats per token; the same in every process.
    """

    def with_questions(conversation: Conversation) -> Conversation:
        return conversation

    def without_questions(conversation: Conversation) -> Conversation:
        turns = tuple(Turn(turn.role, "") if turn.role == "user" else turn for turn in conversation.turns)
        return replace(conversation, turns=turns, images=())

    distributed.start(runtime)
    likelihoods = torch.zeros(2, len(samples), dtype=torch.float64, device=runtime.device)
    share = distributed.share(len(samples))
    for row, change in enumerate((with_questions, without_questions)):
        objective = InstructionObjective(subject, ChangedSamples(samples, change), chat, packing=packing)
        starts = range(share.start, share.stop, LIKELIHOOD_BATCH)
        title = "likelihood of answers, " + ("with" if row == 0 else "without") + " questions"
        for start in track(starts, title, len(starts), "batches"):
            indices = range(start, min(start + LIKELIHOOD_BATCH, share.stop))
            with torch.no_grad(), runtime.autocast():
                likelihoods[row, indices.start : indices.stop] = mean_log_likelihoods(
                    objective, subject, indices
                )
    gains: NDArray[np.float64] = distributed.total(likelihoods[0] - likelihoods[1]).cpu().numpy()
    return gains


class ChangedSamples:
    """Samples changed by a function on access, without images."""

    def __init__(self, samples: ConversationSamples, change: Callable[[Conversation], Conversation]) -> None:
        self._samples, self._change = samples, change

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Conversation:
        return self._change(self._samples[index])

    def images_of(self, index: int) -> tuple[int, ...]:
        return ()


def mean_log_likelihoods(objective: InstructionObjective, subject: TrainableModel, indices: range) -> Tensor:
    """Mean log-likelihood of the answer tokens of each sample, float64 ``[samples]`` on the device."""
    items = [objective.sample(index, index) for index in indices]
    rows, _ = objective.arrange(items)
    batch = to_device(objective.collate(items), subject.device)
    labels = batch["labels"]
    hidden = objective.last_hidden(batch)
    # The index of the sample that each position belongs to.
    sample_index = torch.full_like(labels, -1)
    for row, samples in enumerate(rows):
        if "document_ids" in batch:
            for number, index in enumerate(samples):
                sample_index[row][batch["document_ids"][row] == number] = index
        else:
            sample_index[row] = samples[0]
    supervised = labels[:, 1:] != IGNORE
    states, targets = hidden[:, :-1][supervised], labels[:, 1:][supervised]
    target_sample = sample_index[:, 1:][supervised]
    head = subject.model.get_output_embeddings()
    sums = torch.zeros(len(indices), dtype=torch.float64, device=labels.device)
    for start in range(0, len(targets), CHUNK_TOKENS):
        stop = start + CHUNK_TOKENS
        log_probabilities = head(states[start:stop]).float().log_softmax(dim=-1)
        values = log_probabilities.gather(1, targets[start:stop, None]).squeeze(1).double()
        sums.index_add_(0, target_sample[start:stop], values)
    counts = torch.bincount(target_sample, minlength=len(indices))
    return sums / counts.clamp(min=1)


def placeholder_embedding(embeddings: Tensor, tokens: int, seed: int) -> nn.Embedding:
    """A new learned placeholder ``[tokens, width]``: the mean embedding plus noise of the embeddings' standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    table = embeddings.detach().float()
    noise = torch.randn(tokens, table.shape[1], generator=generator).to(table.device)
    placeholder = nn.Embedding(tokens, table.shape[1], device=table.device)
    with torch.no_grad():
        placeholder.weight.copy_(table.mean(0) + noise * table.std(0))
    return placeholder
