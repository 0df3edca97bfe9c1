"""Tokenising text sources in parts, by several processes, with bounded memory.

A source is cut into chunks that follow from its files alone, so neither the number of processes nor the
machines among which the chunks are shared change a byte. Text is tokenised as text: ``</s>`` in a document
is five characters, not the end of a document.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from priorkit.core.errors import InputError
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_format import PART_BYTES, FilePart
from priorkit.data.io.rows import parts_of
from priorkit.data.io.worker_processes import Result, Task, Workers, serve
from priorkit.data.text.documents import DocumentReader

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_DOCUMENTS = 64
"""Documents tokenised together; 64 was the fastest of 64 to 1,000 and needs the least memory."""

BATCH_CHARACTERS = 1 << 20
"""Characters tokenised together; a token takes some 100 bytes before it is written as two or four."""

HASH_BYTES = 16
"""Bytes of a document's hash: among 10^12 documents, two differing ones agree with probability 1e-15."""


@dataclass(frozen=True)
class TokenizerFiles:
    """What tokenising needs to know of a tokenizer.

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
"""Classes of transformers that take ``tokenizer.json`` as it is; others may build the tokenizer anew."""


def is_plain(folder: Path) -> bool:
    """Whether a tokenizer's files alone say how transformers would tokenise."""
    return _tokenizer_settings(folder).get("tokenizer_class") in PLAIN_CLASSES


def read_tokenizer(folder: Path) -> TokenizerFiles:
    """A tokenizer as its files describe it.

    Raises:
        InputError: a file is missing or damaged, or there is no end-of-sequence token.
    """
    path = folder / "tokenizer.json"
    tokenizer = _load(str(path))
    settings = _tokenizer_settings(folder)

    def identifier(name: str) -> int | None:
        value = settings.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        return tokenizer.token_to_id(content) if isinstance(content, str) else None

    end, padding = identifier("eos_token"), identifier("pad_token")
    if end is None:
        raise InputError("the tokenizer has no end-of-sequence token", where=str(folder))
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    return TokenizerFiles(path, largest + 1, end, end if padding is None else padding)


def knows_tokens(folder: Path, of: Path) -> bool:
    """Whether a folder's tokenizer numbers the tokens of another one as that one does, and may have more.

    True where one of the two has no ``tokenizer.json`` to compare.
    """
    own, others = _vocabulary(folder / "tokenizer.json"), _vocabulary(of / "tokenizer.json")
    return not own or all(own.get(token) == number for token, number in others.items())


def _vocabulary(file: Path) -> dict[str, int]:
    """Tokens and their numbers; none where there is no such file."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
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
                settings.update(json.loads((folder / name).read_text(encoding="utf-8")))
            except (ValueError, TypeError, OSError) as error:
                raise InputError(f"cannot be read: {error}", where=str(folder / name)) from None
    return settings


def _load(path: str) -> Tokenizer:
    try:
        stat = Path(path).stat()
    except OSError:
        raise InputError("no tokenizer here (tokenizer.json is missing)", where=path) from None
    return _loaded(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=1)
def _loaded(path: str, time: int, size: int) -> Tokenizer:
    """A tokenizer that reads text as text; time and size tell one file at this path from another."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the library raises plain Exceptions
        raise InputError(f"the tokenizer cannot be loaded: {error}", where=path) from None
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@dataclass(frozen=True)
class Chunk:
    """Parts of files of one source that are tokenised as one task."""

    source: int
    parts: tuple[FilePart, ...]


def chunks_of(sources: Sequence[Sequence[Path]]) -> list[Chunk]:
    """Cut sources into chunks of about the same size: parts of large files, or many small files.

    Args:
        sources: the files of each source.
    """
    chunks: list[Chunk] = []
    for number, files in enumerate(sources):
        waiting: list[FilePart] = []
        size = 0
        for file in files:
            for part in parts_of(file):
                waiting.append(part)
                size += file.stat().st_size // part.count
                if size >= PART_BYTES or part.count > 1:
                    chunks.append(Chunk(number, tuple(waiting)))
                    waiting, size = [], 0
        if waiting:
            chunks.append(Chunk(number, tuple(waiting)))
    return chunks


@dataclass(frozen=True)
class TokenizeOptions:
    """How documents are read and what is noted of each beside its tokens.

    Attributes:
        column: the column or key that holds the text.
        labelled: note the labels.
        hashed: note a hash of the text.
    """

    column: str
    labelled: bool
    hashed: bool


def tokenize_chunks(
    chunks: Sequence[Chunk], tokenizer: TokenizerFiles, options: TokenizeOptions, folder: Path, workers: int
) -> Iterator[tuple[Chunk, Result, Path]]:
    """Tokenise chunks, in order.

    Args:
        chunks: what to tokenise.
        tokenizer: with what.
        options: how.
        folder: takes the chunks' files; whoever takes a result removes them.
        workers: the number of processes; 1 works in this one.

    Yields:
        The chunk, what :func:`work` says of it, and the path of its files without suffix.
    """
    outputs = [folder / f"chunk-{number:08d}" for number in range(len(chunks))]
    tasks: Iterator[Task] = (
        {
            "task": "tokenise",
            "parts": [[str(part.path), part.index, part.count] for part in chunk.parts],
            "tokenizer": str(tokenizer.path),
            "end": tokenizer.end,
            "dtype": tokenizer.dtype,
            "column": options.column,
            "labelled": options.labelled,
            "hashed": options.hashed,
            "out": str(output),
        }
        for chunk, output in zip(chunks, outputs, strict=True)
    )
    yield from zip(chunks, in_processes(tasks, min(workers, len(chunks))), outputs, strict=True)


def copy_documents(
    chunks: Sequence[Chunk],
    counts: Sequence[int],
    wanted: Sequence[Sequence[int]],
    options: TokenizeOptions,
    outputs: Sequence[Path],
    workers: int,
) -> None:
    """Copy documents of the sources, read again, to JSON Lines files with the key ``text``.

    Args:
        chunks: all chunks.
        counts: documents of each chunk.
        wanted: by source, the numbers of its documents to copy, rising.
        options: as when they were tokenised.
        outputs: by source, the file to write.
        workers: the number of processes.
    """
    tasks: list[Task] = []
    owners: list[int] = []
    firsts = [0] * len(outputs)
    for chunk, count in zip(chunks, counts, strict=True):
        own, first = wanted[chunk.source], firsts[chunk.source]
        firsts[chunk.source] += count
        places = [own[at] - first for at in range(bisect_left(own, first), bisect_left(own, first + count))]
        if places:
            tasks.append(
                {
                    "task": "copy",
                    "parts": [[str(part.path), part.index, part.count] for part in chunk.parts],
                    "column": options.column,
                    "labelled": options.labelled,
                    "documents": places,
                    "out": str(outputs[chunk.source].with_suffix(f".{len(tasks):08d}")),
                }
            )
            owners.append(chunk.source)
    for path in outputs:
        path.write_bytes(b"")
    done = in_processes(iter(tasks), min(workers, len(tasks)))
    for _, task, owner in zip(done, tasks, owners, strict=True):
        piece = Path(task["out"])
        with outputs[owner].open("ab") as stream, piece.open("rb") as content:
            shutil.copyfileobj(content, stream)
        piece.unlink()


def in_processes(tasks: Iterator[Task], workers: int) -> Iterator[Result]:
    """Results of tasks in order, from so many processes; one works in this process."""
    if workers <= 1:
        yield from map(work, tasks)
        return
    with Workers("priorkit.data.corpus.tokenization", workers) as pool:
        yield from pool.map(tasks)


def work(task: Task) -> Result:
    """Do one task: tokenise a chunk into ``OUT.tokens``, ``.lengths`` (int64), ``.hashes``, ``.labels``;
    or copy chosen documents of a chunk to ``OUT.jsonl``.

    Returns:
        The numbers of documents and tokens, ``seen`` rows, ``lines`` of each part and broken rows
        as ``[part, row, reason]``.
    """
    if task["task"] == "copy":
        return _copy(task)
    rejects = Rejects(1.0)
    tokenizer = _load(task["tokenizer"])
    end, dtype = int(task["end"]), np.dtype(task["dtype"])
    out = Path(task["out"])
    documents = tokens = 0
    result: Result = {"lines": [], "broken": []}
    with ExitStack() as stack:

        def opened(suffix: str, wanted: bool = True) -> Any:
            return stack.enter_context(out.with_suffix(suffix).open("wb")) if wanted else None

        token_file, length_file = opened(".tokens"), opened(".lengths")
        hash_file, label_file = opened(".hashes", task["hashed"]), opened(".labels", task["labelled"])
        for batch in _batches(task, rejects, result):
            ids: list[int] = []
            lengths: list[int] = []
            for encoding in tokenizer.encode_batch_fast(
                [text for text, _ in batch], add_special_tokens=False
            ):
                before = len(ids)
                ids += encoding.ids
                ids.append(end)
                lengths.append(len(ids) - before)
            token_file.write(np.array(ids, dtype=dtype).tobytes())
            length_file.write(np.array(lengths, dtype=np.int64).tobytes())
            if hash_file:
                hash_file.write(b"".join(text_hash(text) for text, _ in batch))
            if label_file:
                label_file.write(bytes(bits for _, bits in batch))
            documents += len(batch)
            tokens += len(ids)
    return {**result, "documents": documents, "tokens": tokens, "seen": rejects.total}


def text_hash(text: str) -> bytes:
    """A document's hash, of :data:`HASH_BYTES` bytes."""
    return hashlib.blake2b(text.encode(), digest_size=HASH_BYTES).digest()


def _batches(task: Task, rejects: Rejects, result: Result) -> Iterator[list[tuple[str, int]]]:
    """The chunk's documents, so many together as memory allows; notes lines and broken rows."""
    batch: list[tuple[str, int]] = []
    characters = 0
    for document in _documents(task, rejects, result):
        if batch and (len(batch) >= BATCH_DOCUMENTS or characters + len(document[0]) > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(document)
        characters += len(document[0])
    if batch:
        yield batch


def _documents(task: Mapping[str, Any], rejects: Rejects, result: Result) -> Iterator[tuple[str, int]]:
    for number, (path, index, count) in enumerate(task["parts"]):
        reader = DocumentReader(FilePart(Path(path), index, count), rejects, task["column"], task["labelled"])
        yield from reader
        result["lines"].append(reader.lines)
        result["broken"].extend([number, row["row"], row["reason"]] for row in rejects.rows)
        rejects.rows.clear()


def _copy(task: Task) -> Result:
    """Write the documents whose places in the chunk are listed to a JSON Lines file, in order."""
    wanted = set(task["documents"])
    result: Result = {"lines": [], "broken": []}
    with Path(task["out"]).open("w", encoding="utf-8") as stream:
        for place, (text, _) in enumerate(_documents(task, Rejects(1.0), result)):
            if place in wanted:
                stream.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return {"documents": len(wanted)}


if __name__ == "__main__":
    serve(work)
