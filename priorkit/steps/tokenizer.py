"""Train a byte-level BPE tokenizer with chat template and image token on texts and conversations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import model_validator

from priorkit.core.boxes import LOCATION_TOKENS, BoxWriter
from priorkit.core.errors import InputError, Problems
from priorkit.core.inputs import Input
from priorkit.core.options.settings import StepSettings, option, reject_limit_option
from priorkit.core.options.values import Count, Named
from priorkit.core.step import Step
from priorkit.core.work import Plan, Work
from priorkit.data.columns import TextColumnSettings
from priorkit.data.conversations.conversation import check_conversations, conversations_of, has_turns
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import column_names
from priorkit.data.text.documents import (
    check_text_source,
    is_plain_text,
    read_documents,
    sources_argument,
    text_files,
)
from priorkit.models.language.word_splitting import DEFAULT, WordSplitting

LEAST_VOCABULARY = 300
"""Special tokens, the 256 bytes, and a few merges."""


class TokenizerSettings(TextColumnSettings, StepSettings):
    """Options of ``priorkit tokenizer``."""

    step: ClassVar[str] = "tokenizer"
    kind: ClassVar[str] = "tokenizer"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit tokenizer facts=world/text/facts.jsonl code=world/text/code.jsonl --out tokenizer",
        "priorkit tokenizer books=books/ chats=chats.jsonl --vocab-size 32k --out tokenizer",
    )

    sources: Named = sources_argument()
    vocab_size: Count = option(
        4096, "Number of tokens, special and location tokens included.", metavar="N", ge=LEAST_VOCABULARY
    )
    location_tokens: Count = option(
        0,
        "Have the location tokens of --box-bins N in the steps that write boxes as location tokens: N + 1, or all "
        "1000; 0 for none.",
        metavar="N",
        le=LOCATION_TOKENS,
        advanced=True,
    )
    words: WordSplitting = option(
        DEFAULT,
        "How text is split into words: as Qwen 2 does, with single digits; as Llama 3 does, with up to three digits; as "
        "GPT-2 does; or as GPT-2 does with single digits, which only tokenizers encodes, not gigatoken.",
    )
    max_documents: Count = option(0, "Documents read of each source, 0 for all.", metavar="N", advanced=True)
    reject_limit: float = reject_limit_option("rows")

    @property
    def boxes(self) -> BoxWriter:
        """The format of boxes that the tokenizer has tokens for."""
        return (
            BoxWriter("location-tokens", bins=self.location_tokens) if self.location_tokens else BoxWriter()
        )

    @property
    def trained_tokens(self) -> int:
        """Size of the vocabulary without location tokens."""
        return self.vocab_size - len(self.boxes.tokens)

    @model_validator(mode="after")
    def _location_tokens_leave_room(self) -> TokenizerSettings:
        if self.location_tokens == 1:
            raise ValueError("location_tokens must be 0, or 2 to 1000")
        if self.trained_tokens < LEAST_VOCABULARY:
            raise ValueError(
                f"{len(self.boxes.tokens)} location tokens leave {self.trained_tokens} of {self.vocab_size} tokens for "
                f"text, at least {LEAST_VOCABULARY} are needed: raise vocab_size or lower location_tokens"
            )
        return self


def plan(settings: TokenizerSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check that every source can be read."""
    problems = Problems(InputError)
    facts: list[tuple[str, str]] = []
    for label, item in inputs.items():
        try:
            files = _check_source(item.path, settings)
            facts.append((label, f"{len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB"))
        except InputError as error:
            problems.extend(error)
    problems.raise_if_any()
    count = len(settings.boxes.tokens)
    location = f", {count} of them location tokens" if count else ""
    return Plan([*facts, ("vocabulary", f"{settings.vocab_size} tokens{location}")], disk_bytes=4 << 20)


def _holds_conversations(path: Path, settings: TokenizerSettings) -> bool:
    """Whether a source's first file has turns and no column of text, and none was named."""
    file = text_files(path)[0]
    if is_plain_text(file) or "text_column" in settings.model_fields_set:
        return False
    columns = column_names(file)
    return has_turns(columns) and set(columns).isdisjoint(settings.text_column)


def _check_source(path: Path, settings: TokenizerSettings) -> list[Path]:
    if _holds_conversations(path, settings):
        return check_conversations(path)
    return check_text_source(path, settings.text_column)


def execute(settings: TokenizerSettings, work: Work) -> None:
    """Train on the sources in the order given and save in Hugging Face's format."""
    import itertools

    from priorkit.models.language.tokenizer import (
        add_location_tokens,
        render_chat,
        save_tokenizer,
        train_bpe,
    )

    rejects = Rejects(settings.reject_limit)
    limit = settings.max_documents or None

    def rendered(path: Path) -> Iterator[str]:
        for _, _, conversation in conversations_of(path, rejects):
            rejects.accept()
            yield render_chat([(turn.role, turn.text) for turn in conversation.without_images().turns])

    def documents() -> Iterator[str]:
        for item in work.inputs.values():
            if _holds_conversations(item.path, settings):
                texts = rendered(item.path)
            else:
                texts = read_documents(item.path, rejects, settings.text_column)
            yield from itertools.islice(texts, limit)

    try:
        tokenizer = train_bpe(documents(), settings.trained_tokens, settings.words)
    except InputError as error:
        rejects.raise_if_over_limit()  # why there is no text
        raise error.at(", ".join(item.given for item in work.inputs.values())) from None
    add_location_tokens(tokenizer, settings.boxes)
    rejects.raise_if_over_limit()
    rejects.write(work.path)
    save_tokenizer(tokenizer, work.path)
    work.metrics.update(vocab_size=tokenizer.get_vocab_size(), documents=rejects.total, rejected=len(rejects))


STEP = Step(TokenizerSettings, plan, execute)
run = STEP.run
