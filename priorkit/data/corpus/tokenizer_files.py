"""Tokenizers as files: what tokenization needs to know of them, without importing transformers."""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorkit.core.errors import InputError, library_reads
from priorkit.core.json_text import parse_json
from priorkit.data.text.document_encoder import DocumentEncoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json", "additional_chat_templates", "vocab.json", "merges.txt",
    "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
"""The files of a tokenizer, which are copied into the corpus."""


@dataclass(frozen=True)
class TokenizerFiles:
    """What tokenization needs to know of a tokenizer.

    Attributes:
        path: its ``tokenizer.json``.
        vocab_size: one more than its largest token id.
        end: id of the token that ends a document.
        padding: id of the token that fills rows; the end token's where there is none.
    """

    path: Path
    vocab_size: int
    end: int
    padding: int

    @property
    def dtype(self) -> str:
        """The smallest dtype that holds its token ids."""
        return "uint16" if self.vocab_size <= 1 << 16 else "uint32"


PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of transformers that take ``tokenizer.json`` as it is; others may build another tokenizer from it."""


def is_plain(folder: Path) -> bool:
    """Whether a tokenizer's files are enough to tokenize as transformers would."""
    return _tokenizer_settings(folder).get("tokenizer_class") in PLAIN_CLASSES


def read_tokenizer(folder: Path) -> TokenizerFiles:
    """A tokenizer as its files describe it.

    Raises:
        InputError: a file is missing or damaged, or there is no end-of-sequence token.
    """
    path = folder / "tokenizer.json"
    tokenizer = _load(path)
    settings = _tokenizer_settings(folder)

    def identifier(name: str) -> int | None:
        return tokenizer.token_to_id(_content(settings.get(name)))

    end, padding = identifier("eos_token"), identifier("pad_token")
    if end is None:
        raise InputError("the tokenizer has no end-of-sequence token", where=str(folder))
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    return TokenizerFiles(path, largest + 1, end, end if padding is None else padding)


def contains_vocabulary(folder: Path, of: Path) -> bool:
    """Whether a folder's tokenizer has all tokens of another one with the same ids; it may have more.

    True where one of the two has no ``tokenizer.json`` to compare.
    """
    ids, other_ids = _vocabulary(folder / "tokenizer.json"), _vocabulary(of / "tokenizer.json")
    return not ids or all(ids.get(token) == number for token, number in other_ids.items())


def _vocabulary(file: Path) -> dict[str, int]:
    """Token ids by token; none where there is no such file."""
    if not file.is_file():
        return {}
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
        tokens = content["model"]["vocab"]
        if isinstance(tokens, list):  # a Unigram model's, with log-probabilities
            tokens = {token: number for number, (token, _) in enumerate(tokens)}
        return {**tokens, **{token["content"]: token["id"] for token in content.get("added_tokens", ())}}
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise InputError(f"cannot be read: {error}", where=str(file)) from None


def _tokenizer_settings(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            try:
                settings.update(parse_json((folder / name).read_text(encoding="utf-8")))
            except (ValueError, TypeError, OSError) as error:
                raise InputError(f"cannot be read: {error}", where=str(folder / name)) from None
    return settings


def load_document_encoder(path: str, fast: bool = True) -> DocumentEncoder:
    """The encoder of documents for a ``tokenizer.json``, with the special tokens that the files next to it name.

    Args:
        path: of the file.
        fast: whether gigatoken may encode where it gives the same ids.

    Raises:
        InputError: a file is missing or damaged.
    """
    file = Path(path)
    try:
        stat = file.stat()
    except OSError:
        raise InputError("no tokenizer here (tokenizer.json is missing)", where=path) from None
    return _encoder(file, stat.st_mtime_ns, stat.st_size, fast)


@functools.lru_cache(maxsize=1)
def _encoder(path: Path, time: int, size: int, fast: bool) -> DocumentEncoder:
    """The encoder for a file as it was at this time and of this size."""
    settings = _tokenizer_settings(path.parent)
    values = [settings[name] for name in settings if name.endswith("_token")]
    listed = settings.get("additional_special_tokens") or settings.get("extra_special_tokens") or ()
    values += listed.values() if isinstance(listed, dict) else listed
    return DocumentEncoder(_load(path), {name for name in map(_content, values) if name}, fast)


def _content(value: Any) -> str:
    """The text of a special token, given as text or as a table; empty where there is none."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else ""


def _load(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    if not path.is_file():
        raise InputError("no tokenizer here (tokenizer.json is missing)", where=str(path))
    with library_reads("the tokenizer cannot be loaded", str(path)):
        return Tokenizer.from_file(str(path))


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy a tokenizer's files unchanged into a folder."""
    for name in TOKENIZER_FILES:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name)
        elif (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
