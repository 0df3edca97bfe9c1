"""Tokenizers of open_clip's models: CLIP's from a folder or its file of merges, SigLIP's with its cleaning of text."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from priorkit.core.errors import InputError, library_reads

_MERGES = 49152 - 256 - 2
"""Merges that CLIP's tokenizer reads of its file."""

_FILES = ("tokenizer.json", "merges.txt", "spiece.model")
"""Any of them makes a folder one with a tokenizer."""

_PADDED_TO = 128
"""Embedding matrices are padded to multiples of up to this many rows."""


def tokenizer_source(folder: Path, given: Path | None, weights: Path, hint: str) -> Path:
    """Where the tokenizer is: given, or next to the weights.

    Args:
        folder: of the weights.
        given: by the user.
        weights: the place for the message.
        hint: which tokenizer the user can name.

    Raises:
        InputError: nowhere.
    """
    if given is not None:
        return given
    if any((folder / name).is_file() for name in _FILES):
        return folder
    raise InputError("no tokenizer with these weights", where=str(weights), hint=hint)


def siglip_tokenizer(source: Path, text: Mapping[str, Any], where: str) -> Any:
    """SigLIP's tokenizer, which cleans text as open_clip does before it calls the tokenizer.

    ``tokenizer.json`` is taken as it is, with open_clip's cleaning as its first normalizer, so that whoever loads the
    result gets the token ids of open_clip. (open_clip also repairs broken Unicode and HTML entities, which no
    tokenizer can.)

    Args:
        source: a folder with a tokenizer.
        text: ``text_cfg`` of open_clip.
        where: the place of that configuration.

    Raises:
        InputError: it cannot be read, has other tokens than the text tower, or cleans text in an unknown way.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # Where open_clip names no tokenizer it takes its own for SigLIP, which always canonicalizes.
    named = text.get("hf_tokenizer_name")
    clean = (text.get("tokenizer_kwargs") or {}).get("clean") or ("whitespace" if named else "canonicalize")
    with library_reads("the tokenizer cannot be read", str(source)):
        if (source / "tokenizer.json").is_file():
            tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(source, local_files_only=True)
            # Parameters of this loading, which would be stored with the tokenizer.
            for name in ("is_local", "local_files_only"):
                tokenizer.init_kwargs.pop(name, None)
        else:
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    _check_vocabulary(tokenizer, int(text.get("vocab_size", 49408)), source)
    if tokenizer.is_fast:
        _clean_first(tokenizer.backend_tokenizer, clean, where)
    elif (type(tokenizer).__name__, clean) != ("SiglipTokenizer", "canonicalize"):
        # SiglipTokenizer lowercases and drops punctuation itself.
        raise InputError(
            f"a {type(tokenizer).__name__} without tokenizer.json cannot clean text as open_clip does ('{clean}')",
            where=str(source),
            hint="name a tokenizer that has a tokenizer.json with --tokenizer",
        )
    tokenizer.model_max_length = int(text.get("context_length", 77))
    return tokenizer


def _check_vocabulary(tokenizer: Any, embeddings: int, source: Path) -> None:
    """Refuse a tokenizer with more tokens than embeddings, or with so few that it must be another model's.

    Raises:
        InputError: it is.
    """
    # T5's sentinels come after the embeddings' tokens and never occur in text.
    tokens = 1 + max(
        number for token, number in tokenizer.get_vocab().items() if not token.startswith("<extra_id_")
    )
    if not embeddings - _PADDED_TO < tokens <= embeddings:
        raise InputError(
            f"a tokenizer of {tokens} tokens for {embeddings} embeddings",
            where=str(source),
            hint="name the tokenizer that the model was trained with, with --tokenizer",
        )


def _clean_first(backend: Any, clean: str, where: str) -> None:
    """Put open_clip's cleaning of text before the normalizer of a tokenizer of ``tokenizers``.

    Raises:
        InputError: a cleaning that open_clip does not have.
    """
    from tokenizers import Regex
    from tokenizers.normalizers import Lowercase, Replace, Sequence, Strip

    spaces = [Replace(Regex(r"\s+"), " "), Strip()]
    punctuation = [Replace("_", " "), Replace(Regex(r"[!-/:-@\[-`{-~]"), "")]
    steps = {
        "whitespace": spaces,
        "lower": [*spaces, Lowercase()],
        "canonicalize": [*punctuation, Lowercase(), *spaces],
    }
    if clean not in steps:
        raise InputError(
            f"text_cfg.tokenizer_kwargs.clean is '{clean}', not one of {', '.join(sorted(steps))}",
            where=where,
        )
    own = [backend.normalizer] if backend.normalizer is not None else []
    backend.normalizer = Sequence([*steps[clean], *own])


def clip_tokenizer(source: Path, length: int, vocabulary: int) -> Any:
    """CLIP's tokenizer from a folder or from the file of its merges.

    Raises:
        InputError: it cannot be read, or has other tokens than the text tower.
    """
    from transformers import AutoTokenizer, CLIPTokenizer

    with library_reads("the tokenizer cannot be read", str(source)):
        if source.is_file():
            words, merges = _read_merges(source)
            tokenizer: Any = CLIPTokenizer(vocab=words, merges=cast("Any", merges))
        elif (source / "config.json").is_file() or (source / "tokenizer_config.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        else:
            tokenizer = CLIPTokenizer.from_pretrained(source, local_files_only=True)
    if len(tokenizer) != vocabulary:
        raise InputError(
            f"a tokenizer of {len(tokenizer)} tokens for {vocabulary} embeddings", where=str(source)
        )
    tokenizer.model_max_length = length
    return tokenizer


def _read_merges(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of the file that CLIP's code comes with.

    The vocabulary is the 256 bytes, the same at the ends of words, the merges in order, and two special tokens.
    """
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = content.decode().split("\n")[1 : _MERGES + 1]
    merges = [(first, second) for line in lines for first, _, second in [line.partition(" ")] if second]
    symbols = list(_byte_symbols())
    words = [*symbols, *(symbol + "</w>" for symbol in symbols), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return {word: number for number, word in enumerate(words)}, merges


def _byte_symbols() -> Iterator[str]:
    """A printable character for each byte, in the order of byte-level BPE: printable bytes first."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    yield from map(chr, printable)
    yield from (chr(256 + number) for number in range(256 - len(printable)))
