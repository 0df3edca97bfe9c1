"""From a step's settings to its training samples: read, checked, filtered by length, mixed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from priorkit.core.boxes import BoxWriter
from priorkit.core.errors import InputError, Problems, UsageError, nearest
from priorkit.core.inputs import Input
from priorkit.core.work import Work
from priorkit.data.columns import RowLayout, check_image_folders
from priorkit.data.conversations.conversation import (
    PLACEHOLDER,
    Conversation,
    check_conversations,
    conversation_of,
    drop_broken_images,
    holds_conversations,
)
from priorkit.data.conversations.conversation_store import ConversationMixture, mix_conversations
from priorkit.data.conversations.regions import REGION_COLUMNS, holds_regions, usable_regions
from priorkit.data.corpus.mixing import check_weights
from priorkit.data.images.decoding import BrokenImageError
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import read_rows
from priorkit.models.language.chat_template import ChatTokenizer, TooLongError
from priorkit.training.finetuning.batches import ConversationSamples, tokenize_conversation, use_fast_encoding
from priorkit.training.finetuning.settings import UNNAMED, FinetuningSettings

TEMPLATE_TOKENS = 32
"""More than a chat template adds to a turn; only conversations that may be too long are tokenized to check."""

Reader = Callable[[Path, Rejects, RowLayout], Iterator[tuple[str, int, Conversation]]]
"""Yields ``(file, row number, conversation)`` of a source; counts the usable rows and rejects the others."""


def check_sources(
    settings: FinetuningSettings, inputs: Mapping[str, Input], setting: str
) -> list[tuple[str, str]]:
    """Check the conversations of a setting from headers, the folders of images, and that the weights are theirs.

    Args:
        settings: of the step.
        inputs: all inputs.
        setting: the setting that names the sources.

    Returns:
        A row for the plan per source: name and number of files.

    Raises:
        InputError: naming every source that holds none.
        UsageError: naming every source that is known to write boxes in another format; weights of other sources,
            or not of all.
    """
    check_box_format(inputs, setting, settings.box_writer)
    problems = Problems(InputError)
    facts: list[tuple[str, str]] = []
    sources = sources_of(inputs, setting)
    check_image_folders(settings, sources)
    for name, source in sources.items():
        try:
            files = check_conversations(source.path, settings.layout(name), REGION_COLUMNS)
            facts.append((setting if name == UNNAMED else name, f"{len(files)} file{'s' * (len(files) > 1)}"))
        except InputError as error:
            problems.extend(error)
    problems.raise_if_any()
    check_source_weights(settings, inputs, setting)
    return facts


def check_box_format(inputs: Mapping[str, Input], setting: str, boxes: BoxWriter) -> None:
    """Check that artifacts among the sources were made with the format of boxes chosen.

    Raises:
        UsageError: naming every one made with another.
    """
    problems = Problems(UsageError)
    for source in sources_of(inputs, setting).values():
        made = source.owner.manifest.settings if source.owner is not None else {}
        written, bins = made.get("box_format", boxes.format), made.get("box_bins", boxes.bins)
        if written != boxes.format:
            problems.add(
                f"boxes were written as {written}, not as {boxes.format}",
                where=source.given,
                hint=f"give --box-format {written}",
            )
        elif boxes.tokens and bins != boxes.bins:
            problems.add(
                f"boxes were written with {bins} bins, not {boxes.bins}",
                where=source.given,
                hint=f"give --box-bins {bins}",
            )
    problems.raise_if_any()


def check_source_weights(settings: FinetuningSettings, inputs: Mapping[str, Input], setting: str) -> None:
    """Check that the weights are those of the sources that a setting names.

    Raises:
        UsageError: weights of other sources, or not of all.
    """
    check_weights(list(sources_of(inputs, setting)), settings.weight)


def sources_of(inputs: Mapping[str, Input], setting: str) -> dict[str, Input]:
    """The sources that a setting names."""
    prefix = f"{setting}."
    return {label.removeprefix(prefix): item for label, item in inputs.items() if label.startswith(prefix)}


def read_usable(
    path: Path, rejects: Rejects, layout: RowLayout, writer: BoxWriter
) -> Iterator[tuple[str, int, Conversation]]:
    """Yield ``(file, row number, conversation)``; usable rows are counted, the others go to ``rejects``.

    Args:
        path: conversations, or regions, each of which becomes two.
        rejects: takes what cannot be used.
        layout: the columns, and where the images are.
        writer: writes the boxes of regions.

    Raises:
        InputError: a file is damaged.
    """
    for file in check_conversations(path, layout, REGION_COLUMNS):
        for number, row in read_rows(file, rejects):
            try:
                filled = [name for name, value in row.items() if value is not None]
                if holds_regions(row) and not holds_conversations(filled, layout):
                    conversations = usable_regions(row, file, number, writer, rejects, layout=layout)
                else:
                    conversations = [conversation_of(row, file, number, layout)]
                    rejects.accept()
            except (BrokenImageError, ValueError) as error:
                rejects.add(str(file), number, str(error))
                continue
            for conversation in conversations:
                yield str(file), number, conversation


def read_mixture(
    settings: FinetuningSettings,
    work: Work[Any],
    setting: str,
    rejects: Rejects,
    seed: int,
    *,
    images: bool = True,
    read: Reader | None = None,
    unfit: Callable[[Conversation], str] = lambda conversation: "",
    change: Callable[[Conversation], Conversation | None] | None = None,
    tokens_of: Callable[[Conversation], int] | None = None,
) -> ConversationMixture:
    """Read the conversations that a setting names and draw the mixture.

    Args:
        settings: which and how many.
        work: the inputs.
        setting: the setting that names them.
        rejects: takes what cannot be used.
        seed: draws the mixture.
        images: whether images are decoded, in threads, and samples with a broken one rejected.
        read: reads a source in another way than :func:`read_usable`, in another format or with a payload.
        unfit: why a conversation cannot be trained on; empty where it can.
        change: applied to every conversation as read; None leaves it out.
        tokens_of: the supervised tokens of a conversation, where the mixture counts these.

    Raises:
        InputError: broken samples beyond the limit, or nothing left.
    """
    abilities: set[str] = set()
    if read is None:
        read = partial(read_usable, writer=settings.box_writer)

    def conversations(name: str, path: Path) -> Iterator[Conversation]:
        seen = rejects.total
        items: Iterable[tuple[str, int, Conversation]] = read(path, rejects, settings.layout(name))
        for file, number, conversation in drop_broken_images(items, rejects) if images else items:
            abilities.add(conversation.ability)
            if reason := unfit(conversation):
                rejects.add(file, number, reason, accepted=True)
                continue
            if settings.ability and conversation.ability not in settings.ability:
                continue
            made = change(conversation) if change else conversation
            if made is not None:
                yield made
        rejects.raise_if_over_limit()
        if rejects.total == seen:
            raise InputError("no conversations here", where=str(path))

    try:
        return mix_conversations(
            {name: conversations(name, item.path) for name, item in sources_of(work.inputs, setting).items()},
            next(folder for folder in work.path.absolute().parents if folder.is_dir()),
            settings.weight,
            settings.subset,
            settings.max_epochs,
            seed,
            tokens_of,
        )
    except InputError as error:
        unknown = [name for name in settings.ability if name not in abilities]
        if abilities and unknown and not error.problems[0].where:
            raise InputError(
                f"no sample is of the ability '{unknown[0]}'",
                where="--ability",
                hint=nearest(unknown[0], sorted(filter(None, abilities))),
            ) from None
        raise


def read_samples(
    settings: FinetuningSettings,
    work: Work[Any],
    setting: str,
    chat: ChatTokenizer,
    seed: int,
    *,
    images: bool,
    change: Callable[[Conversation], Conversation | None] | None = None,
    fits: Callable[[Conversation], Conversation] | None = None,
) -> tuple[ConversationMixture, dict[str, Any]]:
    """Read and mix conversations as :func:`read_mixture` does, without those that do not fit the model.

    Args:
        settings: which and how many.
        work: the inputs; broken samples are written into its folder.
        setting: the setting that names them.
        chat: of the model, to find conversations that do not fit.
        seed: draws the mixture.
        images: whether images are decoded to find broken ones.
        change: applied to every conversation as read; None leaves it out.
        fits: what the model reads of a conversation, where that is not all of it.

    Returns:
        The samples, and metrics for the manifest: ``rejected``, ``truncated``, ``sources``, ``mixture``.

    Raises:
        InputError: broken samples beyond the limit, or nothing left.
    """
    rejects = Rejects(settings.reject_limit)
    truncated = 0

    def unfit(conversation: Conversation) -> str:
        nonlocal truncated
        reason, cut = _check_fit(fits(conversation) if fits else conversation, chat)
        truncated += cut
        return reason

    def supervised(conversation: Conversation) -> int:
        return tokenize_conversation(chat, fits(conversation) if fits else conversation).supervised

    samples = read_mixture(
        settings, work, setting, rejects, seed, images=images, unfit=unfit, change=change,
        tokens_of=supervised if settings.unit == "tokens" else None,
    )  # fmt: skip
    use_fast_encoding(chat, samples)
    rejects.write(work.path)
    metrics: dict[str, Any] = {"rejected": len(rejects), "truncated": truncated}
    if set(samples.names) != {UNNAMED}:
        metrics["sources"] = samples.sources
    if samples.tokens is not None:
        metrics["mixture"] = samples.token_shares
    return samples, metrics


def _check_fit(conversation: Conversation, chat: ChatTokenizer) -> tuple[str, bool]:
    """Why a model cannot be trained on a conversation, empty where it can; and whether it is truncated."""
    texts = [turn.text for turn in conversation.turns]
    if chat.image_token != PLACEHOLDER and any(chat.image_token in text for text in texts):
        return f"{conversation.id}: the text contains the model's image token {chat.image_token}", False
    if problem := chat.template_problem([(turn.role, turn.text) for turn in conversation.turns]):
        return f"{conversation.id}: {problem}", False
    size = sum(len(text.encode("utf-8", "surrogatepass")) + TEMPLATE_TOKENS for text in texts)
    if size + len(conversation.images) * chat.image_tokens <= chat.max_length:
        return "", False
    try:
        return "", tokenize_conversation(chat, conversation).truncated
    except TooLongError as error:
        return f"{conversation.id}: {error.what}", False


def mean_length(chat: ChatTokenizer, samples: ConversationSamples, most: int = 256) -> float:
    """Mean tokens of a sample, measured on about ``most`` evenly spaced ones; for lengths given in tokens."""
    indices = range(0, len(samples), max(1, len(samples) // most))
    return sum(len(tokenize_conversation(chat, samples[index]).input_ids) for index in indices) / len(indices)
