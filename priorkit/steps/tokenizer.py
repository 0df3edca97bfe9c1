"""Train a byte-level BPE tokenizer with chat template and image token on text sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from priorkit.core.errors import InputError, Problems
from priorkit.core.inputs import Input
from priorkit.core.options.settings import StepSettings, option, reject_limit_option
from priorkit.core.options.values import Count, Named
from priorkit.core.step import Step
from priorkit.core.work import Plan, Work
from priorkit.data.columns import TextColumnSettings
from priorkit.data.io.rejects import Rejects
from priorkit.data.text.documents import (
    check_text_source,
    read_documents,
    sources_argument,
)


class TokenizerSettings(TextColumnSettings, StepSettings):
    """Options of ``priorkit tokenizer``."""

    step: ClassVar[str] = "tokenizer"
    kind: ClassVar[str] = "tokenizer"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit tokenizer facts=world/text/facts.jsonl code=world/text/code.jsonl --out tokenizer",
        "priorkit tokenizer books=books/ --vocab-size 32k --out tokenizer",
    )

    sources: Named = sources_argument()
    vocab_size: Count = option(4096, "Number of tokens, special ones included.", metavar="N", ge=300)
    max_documents: Count = option(0, "Documents read of each source, 0 for all.", metavar="N", advanced=True)
    reject_limit: float = reject_limit_option("rows")


def plan(settings: TokenizerSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check that every source can be read."""
    problems = Problems(InputError)
    facts: list[tuple[str, str]] = []
    for label, item in inputs.items():
        try:
            files = check_text_source(item.path, settings.text_column)
            facts.append((label, f"{len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB"))
        except InputError as error:
            problems.extend(error)
    problems.raise_if_any()
    return Plan([*facts, ("vocabulary", f"{settings.vocab_size} tokens")], disk_bytes=4 << 20)


def execute(settings: TokenizerSettings, work: Work) -> None:
    """Train on the sources in the order given and save in Hugging Face's format."""
    import itertools

    from priorkit.models.language.tokenizer import save_tokenizer, train_bpe

    rejects = Rejects(settings.reject_limit)
    limit = settings.max_documents or None

    def documents():
        for item in work.inputs.values():
            yield from itertools.islice(read_documents(item.path, rejects, settings.text_column), limit)

    try:
        tokenizer = train_bpe(documents(), settings.vocab_size)
    except InputError as error:
        rejects.raise_if_over_limit()  # why there is no text
        raise error.at(", ".join(item.given for item in work.inputs.values())) from None
    rejects.raise_if_over_limit()
    rejects.write(work.path)
    save_tokenizer(tokenizer, work.path)
    work.metrics.update(vocab_size=tokenizer.get_vocab_size(), documents=rejects.total, rejected=len(rejects))


STEP = Step(TokenizerSettings, plan, execute)
run = STEP.run
