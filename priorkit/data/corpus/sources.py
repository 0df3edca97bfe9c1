"""The sources of a corpus: checked before they are read, and read with one set of options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from priorkit.core.errors import InputError, Problems, UsageError, nearest
from priorkit.core.inputs import Input
from priorkit.data.corpus.label_targets import check_targets
from priorkit.data.corpus.mixing import check_weights
from priorkit.data.corpus.settings import MixSettings
from priorkit.data.corpus.token_store import TokenizedSource
from priorkit.data.corpus.tokenization import TokenizeOptions
from priorkit.data.io.hub_files import split_files
from priorkit.data.io.rows import column_names
from priorkit.data.text.documents import LABEL_COLUMN, check_text_source, is_plain_text


def check_settings(settings: MixSettings) -> None:
    """Check what can be known without reading any file."""
    problems = Problems(UsageError)
    names = list(settings.sources)
    for name in names:
        if not re.fullmatch(r"\w[\w.-]*", name):
            problems.add(
                f"'{name}' is not a valid source name", where="SOURCES", hint="use letters, digits, . _ -"
            )
    for flag, table in (("--source-epochs", settings.source_epochs), ("--subset", settings.subset)):
        for name in table:
            if name not in names:
                problems.add(f"no source is named '{name}'", where=flag, hint=nearest(name, names))
    for name, epochs in settings.source_epochs.items():
        if epochs <= 0:
            problems.add(
                f"the limit of '{name}' should be greater than 0, got {epochs:g}", where="--source-epochs"
            )
    for check in (
        lambda: check_weights(names, settings.weight),
        lambda: check_targets(settings.target),
    ):
        try:
            check()
        except UsageError as error:
            problems.extend(error)
    if settings.target and settings.weight_unit == "documents":
        problems.add("targets are shares of tokens", where="--target", hint="use --weight-unit tokens")
    if settings.held_out is not None and settings.held_out > 1 and settings.held_out % 1:
        problems.add(f"expected a whole number of tokens, got {settings.held_out}", where="--held-out")
    if settings.shard and settings.parts:
        problems.add("--shard makes one part, --parts joins all", hint="give one of them")
    problems.raise_if_any()


def source_files(settings: MixSettings, name: str, source: Input) -> list[Path]:
    """A source's files, with the columns that are needed."""
    where = f"{name}={source.given}"
    if source.kind == "hub":
        paths = split_files(source.path, settings.subset.get(name), settings.split, where)
        files = [file for path in paths for file in check_text_source(path, settings.text_column)]
    else:
        if name in settings.subset:
            raise InputError("only hub datasets have subsets", where=where)
        files = check_text_source(source.path, settings.text_column)
    if settings.target:
        for file in files:
            if is_plain_text(file) or LABEL_COLUMN not in column_names(file):
                raise InputError(
                    f"no column '{LABEL_COLUMN}', which --target needs",
                    where=str(file),
                    hint="make it with label-corpus",
                )
    return files


def tokenize_options(settings: MixSettings) -> TokenizeOptions:
    """How the sources' documents are read."""
    return TokenizeOptions(
        columns=settings.text_column,
        labelled=bool(settings.target),
        hashed=settings.deduplicate or settings.held_out is not None,
    )


def check_not_empty(settings: MixSettings, sources: Sequence[TokenizedSource]) -> None:
    """Check that every source has documents.

    Raises:
        InputError: naming each that has none.
    """
    problems = Problems(InputError)
    for (name, given), source in zip(settings.sources.items(), sources, strict=True):
        if not source.documents:
            problems.add("no documents here", where=f"{name}={given}")
    problems.raise_if_any()
