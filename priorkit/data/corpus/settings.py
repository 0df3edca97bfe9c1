"""The settings of ``mix``: which sources, in which shares, packed how."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator

from priorkit.core.inputs import HubSubset
from priorkit.core.options.settings import StepSettings, option, reject_limit_option
from priorkit.core.options.values import Count, Named, NamedNumbers, Words, parse_count
from priorkit.data.columns import TextColumnSettings
from priorkit.data.text.documents import sources_argument


def _amount(value: Any) -> Any:
    """A share (0.01) or a number of tokens (200k)."""
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        return parse_count(value)
    except ValueError:
        raise ValueError(f"should be a share such as 0.01 or a number such as 200k, got '{value}'") from None


def _shard(value: str | None) -> str | None:
    from priorkit.data.corpus.parts import shard_of

    return None if value is None else "/".join(map(str, shard_of(value)))


class MixSettings(TextColumnSettings, StepSettings):
    """Options of ``priorkit mix``."""

    step: ClassVar[str] = "mix"
    kind: ClassVar[str] = "corpus"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit mix facts=world/text/facts.jsonl code=world/text/code.jsonl --tokenizer tokenizer "
        "--weight facts=0.7 --weight code=0.3 --tokens 200k --out corpus",
        "priorkit mix books=books/ --tokenizer tokenizer --context-length 512 --held-out 0.01 "
        "--deduplicate --out books-corpus",
    )

    sources: Named = sources_argument()
    tokenizer: str = option(
        ...,
        "Tokenizer: an artifact that carries one, a model directory, or a hub id.",
        accepts=("tokenizer", "llm", "corpus", "mllm"),
        hub="model",
    )
    tokens: Count | None = option(
        None, "Length of the corpus in tokens, such as 1M; as many as there are where not given.", metavar="N"
    )
    weight: NamedNumbers = option(
        {}, "A source's share, on any scale; by size where none is given.", metavar="NAME=W"
    )
    weight_unit: Literal["tokens", "documents"] = option(
        "tokens", "What the weights are shares of.", advanced=True
    )
    target: NamedNumbers = option(
        {},
        "A label's share of the tokens, 0 to 1, for sources made by label-corpus.",
        metavar="LABEL=SHARE",
    )
    max_epochs: float = option(4.0, "How often a source may be repeated to meet its share.", gt=0)
    source_epochs: NamedNumbers = option(
        {},
        "A source's own limit instead of --max-epochs.",
        metavar="NAME=X",
        advanced=True,
    )
    held_out: Annotated[float | None, BeforeValidator(_amount)] = option(
        None,
        "Text of each source kept for testing: a share of its tokens (0.01) or a number of them (200k).",
        metavar="X",
        gt=0,
    )
    deduplicate: bool = option(False, "Use documents with the same text only once.")
    context_length: Count = option(
        256, "Tokens of a row, the length the model is trained at.", metavar="N", ge=8
    )
    packing: Literal["concat", "best-fit-crop", "best-fit-decreasing"] = option(
        "concat", "How documents fill rows: cut anywhere, cropped to begin with a row, or padded."
    )
    seed: int = option(42, "Seed of the order of documents.", ge=0, lt=1 << 32)
    subset: Named = option(
        {}, "Subset of a source that is a hub dataset.", metavar="NAME=SUBSET", advanced=True
    )
    split: str = option("train", "Split that is read of sources that are hub datasets.", advanced=True)
    reject_limit: float = reject_limit_option("rows")
    shard: Annotated[str | None, AfterValidator(_shard)] = option(
        None,
        "Tokenize only part I of N, to be joined with --parts later.",
        metavar="I/N",
        advanced=True,
    )
    parts: Words = option(
        (),
        "Parts made with --shard by the same command, to be joined.",
        accepts=("corpus-part",),
        metavar="DIR",
        advanced=True,
    )
    workers: int = option(
        0, "Tokenization processes, 0 for one per processor.", ge=0, changes_result=False, metavar="N"
    )

    def hub_subset(self, label: str) -> HubSubset | None:
        """The subset of a source."""
        kind, _, name = label.partition(".")
        return HubSubset(self.subset.get(name), "--subset NAME=SUBSET") if kind == "sources" else None
