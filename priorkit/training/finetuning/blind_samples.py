"""The samples of blind tuning and of its controls and variants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError
from priorkit.core.process.runtime import Runtime
from priorkit.core.work import Work
from priorkit.data.conversations.conversation import Conversation
from priorkit.data.conversations.conversation_store import ConversationMixture, map_samples
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.models.multimodal.base import TrainableModel
from priorkit.training.finetuning import withheld_images
from priorkit.training.finetuning.blind_settings import BlindTuneSettings
from priorkit.training.finetuning.conversation_source import read_samples


def read_conversations(
    settings: BlindTuneSettings, work: Work[None], chat: ChatTokenizer
) -> tuple[ConversationMixture, dict[str, Any]]:
    """The conversations that every arm draws, and metrics for the manifest; images are counted, not stored."""
    if settings.shows_images:
        return read_samples(settings, work, "instructions", chat, settings.seed, images=True)

    def without_images(conversation: Conversation) -> Conversation:
        return withheld_images.withhold_images(conversation, settings.placeholder)

    return read_samples(
        settings,
        work,
        "instructions",
        chat,
        settings.seed,
        images=False,
        change=withheld_images.drop_image_content,
        fits=without_images,
    )


def blind_samples(
    settings: BlindTuneSettings,
    work: Work[None],
    subject: TrainableModel,
    samples: ConversationMixture,
    chat: ChatTokenizer,
    runtime: Runtime,
) -> tuple[ConversationMixture, dict[str, Any]]:
    """Withhold the images, and filter or replace questions and answers as the settings say.

    Returns:
        The samples, and metrics for the manifest: ``unanswerable``, ``mean_gain``, ``unshuffled``.

    Raises:
        InputError: no sample is left.
    """
    folder = next(parent for parent in work.path.absolute().parents if parent.is_dir())
    metrics: dict[str, Any] = {}
    if settings.control == "text":
        samples = map_samples(
            samples, lambda _, conversation: None if conversation.images else conversation, folder
        )
        if not len(samples):
            raise InputError("every sample has an image; there is no text to tune on", where="--control text")
    blind = map_samples(
        samples,
        lambda _, conversation: withheld_images.withhold_images(conversation, settings.placeholder),
        folder,
    )
    if settings.answerable_only or settings.abstain:
        unanswerable, mean_gain = find_unanswerable(settings, subject, samples, chat, runtime, folder)
        metrics |= {"unanswerable": sum(unanswerable), "mean_gain": mean_gain}
        replace: Callable[[Conversation], Conversation | None] = (
            withheld_images.with_refusals if settings.abstain else lambda _: None
        )
        blind = map_samples(
            blind,
            lambda index, conversation: replace(conversation) if unanswerable[index] else conversation,
            folder,
        )
        if not len(blind):
            raise InputError(
                "no question is answerable without its image",
                where="--answerable-gain",
                hint="lower it, or tune the model on text first",
            )
    if settings.shuffle_answers:
        blind, metrics["unshuffled"] = _shuffle_answers(blind, settings.seed, folder)
    return blind, metrics


def find_unanswerable(
    settings: BlindTuneSettings,
    subject: TrainableModel,
    samples: ConversationMixture,
    chat: ChatTokenizer,
    runtime: Runtime,
    folder: Path,
) -> tuple[list[bool], float]:
    """Which samples have images and questions that do not help a model to their answers without these.

    Returns:
        A flag per sample, and the mean gain of all in nats per token; see :func:`withheld_images.answer_gains`.
    """
    texts = map_samples(samples, lambda _, conversation: conversation.without_images(), folder)
    gains = withheld_images.answer_gains(subject, texts, chat, settings.packing, runtime)
    flags = [
        len(samples.images_of(index)) > 0 and bool(gain <= settings.answerable_gain)
        for index, gain in enumerate(gains)
    ]
    return flags, float(gains.mean())


def _shuffle_answers(
    samples: ConversationMixture, seed: int, folder: Path
) -> tuple[ConversationMixture, int]:
    """The samples with each other's answers, and how many keep their own."""
    partners, unshuffled = withheld_images.shuffled_partners(samples, seed)

    def shuffle(index: int, conversation: Conversation) -> Conversation:
        answers = withheld_images.answers_of(samples[int(partners[index])])
        return withheld_images.with_answers(conversation, answers)

    return map_samples(samples, shuffle, folder), unshuffled
