"""LION's data: conversations and regions of all sources, drawn, filtered by task type and tokenised with their tags."""

from __future__ import annotations

import logging
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from priorkit.architectures.lion.modeling.configuration import task_index
from priorkit.architectures.lion.modeling.processing import question_ids
from priorkit.architectures.lion.settings import LionTuneSettings
from priorkit.core.boxes import BOX_PATTERN
from priorkit.core.errors import InputError
from priorkit.data.conversations.conversation import Turn
from priorkit.data.conversations.conversation_store import draw_mixture
from priorkit.data.conversations.tag_prompt import SOFT_TOKEN, clean_tag, tag_sentence, with_sentence
from priorkit.data.conversations.task_conversations import (
    TaskConversation,
    questions_of,
    read_task_conversations,
)
from priorkit.data.images.decoding import BrokenImageError, ImageRef, decode
from priorkit.data.io.rejects import Rejects
from priorkit.models.kernels.cross_entropy import IGNORE
from priorkit.models.language.chat_template import ChatTokenizer, TokenizedConversation

logger = logging.getLogger(__name__)


def read(
    sources: Mapping[str, Path], settings: LionTuneSettings, tags: str, rejects: Rejects
) -> list[TaskConversation]:
    """The usable samples of all sources, drawn as the mixture that the settings ask for."""
    column = settings.tags_column if tags != "off" else ""
    kept: dict[str, list[TaskConversation]] = {}
    for name, path in sources.items():
        found = read_task_conversations([path], rejects, settings.task_column, column, (SOFT_TOKEN,))
        found = _decodable(found, rejects, name)
        if settings.ability:
            found = [own for own in found if own.conversation.ability in settings.ability]
        if not found:
            raise InputError(f"no sample of {name} is left", where="--ability" if settings.ability else name)
        kept[name] = found
    every = [sample for found in kept.values() for sample in found]
    if not settings.weight and settings.subset is None:
        return every
    sizes = {name: len(found) for name, found in kept.items()}
    drawn, _ = draw_mixture(sizes, settings.weight, settings.subset, settings.max_epochs, settings.seed)
    return [every[int(place)] for place in drawn]


def _decodable(samples: Sequence[TaskConversation], rejects: Rejects, source: str) -> list[TaskConversation]:
    kept: list[TaskConversation] = []
    last: ImageRef | None = None
    for number, sample in enumerate(samples, start=1):
        try:
            for image in sample.conversation.images:
                # All conversations about a row's regions hold the same image.
                if image is not last:
                    decode(image)
                    last = image
        except BrokenImageError as error:
            rejects.add(source, number, f"{sample.conversation.id}: {error}")
            continue
        kept.append(sample)
    rejects.raise_if_over_limit()
    return kept


def of_types(
    samples: Sequence[TaskConversation], task_types: Sequence[str]
) -> tuple[list[TaskConversation], dict[str, int]]:
    """The samples of some task types, and how many there are of each.

    Raises:
        InputError: none, or of two wanted types only one.
    """
    counts = {name: sum(sample.task_type == name for sample in samples) for name in task_types}
    absent = [name for name, count in counts.items() if not count]
    if absent:
        raise InputError(
            f"no {' and no '.join(absent)} sample among {len(samples)}",
            hint="set the column task_type to region-level or image-level (--task-column)",
        )
    kept = [sample for sample in samples if sample.task_type in task_types]
    if len(kept) < len(samples):
        logger.info(f"  {len(samples) - len(kept)} samples of the other task type are left out")
    return kept, counts


@dataclass(frozen=True)
class LionSample:
    """A tokenised conversation.

    Attributes:
        encoded: its tokens.
        images: its images.
        numbers: their numbers among all images; samples about one image share its number.
        task: number of its task type.
        questions: token ids of the bare question to each image.
        routed: the conversation itself.
    """

    encoded: TokenizedConversation
    images: tuple[ImageRef, ...]
    numbers: tuple[int, ...]
    task: int
    questions: tuple[tuple[int, ...], ...]
    routed: TaskConversation


def encode_all(
    samples: Sequence[TaskConversation],
    chat: ChatTokenizer,
    tags: str,
    rejects: Rejects,
    question_length: int,
) -> tuple[list[LionSample], int]:
    """Tokenise conversations with their tags; those whose image or box would be cut go to ``rejects``.

    A list of tags gets shorter from its end until the conversation fits; the soft token is never cut.
    Answers may be: ``encoded.truncated`` tells.

    Returns:
        The samples, and how many lists of tags were shortened.
    """
    found: list[LionSample] = []
    known: dict[Hashable, int] = {}
    shortened = 0
    for number, sample in enumerate(samples, start=1):
        conversation = sample.conversation
        try:
            encoded, questions, cut = tokenise(sample, chat, tags, question_length)
        except InputError as error:
            rejects.add(conversation.id, number, error.what)
            continue
        shortened += cut
        numbers = tuple(known.setdefault(_identity(image), len(known)) for image in conversation.images)
        task = task_index(sample.task_type)
        found.append(LionSample(encoded, conversation.images, numbers, task, questions, sample))
    rejects.raise_if_over_limit()
    if not found:
        raise InputError(f"no conversation fits into {chat.max_length} tokens")
    return found, shortened


def _identity(image: ImageRef) -> Hashable:
    """What tells an image from others: where it lies, or its bytes."""
    return (image.path, image.span) if image.content is None else image.content


def images_of(samples: Sequence[LionSample]) -> list[ImageRef]:
    """The images of samples by number, each once."""
    found = {
        number: image
        for sample in samples
        for number, image in zip(sample.numbers, sample.images, strict=True)
    }
    return [found[number] for number in range(len(found))]


def tokenise(
    sample: TaskConversation, chat: ChatTokenizer, tags: str, question_length: int
) -> tuple[TokenizedConversation, tuple[tuple[int, ...], ...], bool]:
    """A conversation's tokens, those of the bare question to each image, and whether tags were left out.

    Raises:
        InputError: an image, the soft token, a box or the whole answer would be cut.
    """
    encoded, cut = _fitted(sample, chat, tags)
    if encoded.truncated and any(BOX_PATTERN.search(turn.text) for turn in sample.conversation.turns):
        _refuse_cut_box(sample, chat, tags, encoded)
    questions = tuple(
        tuple(question_ids(chat.tokenizer, question, question_length))
        for question in questions_of(sample.conversation.turns)
    )
    return encoded, questions, cut


def _fitted(sample: TaskConversation, chat: ChatTokenizer, way: str) -> tuple[TokenizedConversation, bool]:
    turns = sample.conversation.turns
    if way == "off" or sample.tags is None:
        return _encoded(chat, turns), False
    tags = [tag for tag in sample.tags if clean_tag(tag)]
    soft = chat.tokenizer.convert_tokens_to_ids(SOFT_TOKEN)
    count = len(tags)
    while True:
        encoded, problem = None, None
        try:
            encoded = _encoded(chat, with_sentence(turns, tag_sentence(tags[:count], way)))
        except InputError as error:
            problem = error
        if encoded is not None and (not encoded.truncated or count == 0):
            if way == "soft" and encoded.input_ids.count(soft) != 1:
                raise InputError(f"the soft token would be cut at {chat.max_length} tokens")
            return encoded, count < len(tags)
        if count == 0:
            raise problem or InputError("the conversation does not fit")
        count = count * 3 // 4


def _refuse_cut_box(
    sample: TaskConversation, chat: ChatTokenizer, way: str, cut: TokenizedConversation
) -> None:
    """Half a box would be learnt as an answer; answers that are left out whole, or have theirs, are fine."""
    unlimited = ChatTokenizer(chat.tokenizer, chat.image_tokens, sys.maxsize, chat.image_token)
    turns = sample.conversation.turns
    if way != "off" and sample.tags is not None:
        # A truncated conversation has lost all its tags.
        turns = with_sentence(turns, tag_sentence((), way))
    whole = _encoded(unlimited, turns)
    stop = end = len(cut.labels)
    start = stop
    while start and whole.labels[start - 1] != IGNORE:
        start -= 1
    while end < len(whole.labels) and whole.labels[end] != IGNORE:
        end += 1
    kept, said = (chat.tokenizer.decode(whole.input_ids[start:place]) for place in (stop, end))
    if start < stop and len(BOX_PATTERN.findall(kept)) < len(BOX_PATTERN.findall(said)):
        raise InputError(f"a box would be cut at {chat.max_length} tokens")


def _encoded(chat: ChatTokenizer, turns: Sequence[Turn]) -> TokenizedConversation:
    return chat.encode([(turn.role, turn.text) for turn in turns])
