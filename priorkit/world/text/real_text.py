"""Real text: the source and the documentation of the standard library of the running Python.

The files come in an order that depends only on their names, so that a cap draws evenly from all of
them. Nothing is imported or run: docstrings are read with :mod:`ast`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from priorkit.world.text.documents import Document

_LEFT_OUT = frozenset(
    {
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idle_test",
        "lib2to3",
        "encodings",
        "pydoc_data",
        "__pycache__",
    }
)
_MOST = 6_000  # characters per document
_LEAST_DOCSTRING = 80


def python_source(characters: int, heldout_share: float) -> tuple[list[Document], list[Document]]:
    """The library's modules, long ones in several documents: training part and held-out part."""
    return _split(_modules, characters, heldout_share)


def python_docs(characters: int, heldout_share: float) -> tuple[list[Document], list[Document]]:
    """The language reference's topics and the docstrings of the library's modules."""
    return _split(_docs, characters, heldout_share)


def _split(
    texts: Callable[[], Iterable[tuple[str, str]]], characters: int, heldout_share: float
) -> tuple[list[Document], list[Document]]:
    """Fill the held-out part, then the training part; a file never feeds both."""
    stream = iter(texts())
    heldout = _fill(stream, round(heldout_share * characters))
    return _fill(stream, characters), heldout


def _fill(texts: Iterator[tuple[str, str]], characters: int) -> list[Document]:
    documents: list[Document] = []
    left = characters
    while left > 0:
        name, text = next(texts, ("", ""))
        if not name:
            break
        for index, part in enumerate(_parts(text)):
            if left <= 0:
                break
            documents.append(Document(f"{name}#{index}", part))
            left -= len(part)
    return documents


def _parts(text: str) -> Iterator[str]:
    """The text in pieces of full lines, none much longer than the limit."""
    piece: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        if piece and size + len(line) > _MOST:
            yield "".join(piece).strip("\n")
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if "".join(piece).strip():
        yield "".join(piece).strip("\n")


def _modules() -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    names = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if not _LEFT_OUT.intersection(path.relative_to(root).parts)
    ]
    for name in sorted(names, key=_shuffled):
        try:
            text = (root / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if text.strip():
            yield name, text


def _docs() -> Iterator[tuple[str, str]]:
    topics = _topics()
    yield from ((f"topics/{name}", topics[name]) for name in sorted(topics, key=_shuffled))
    for name, text in _modules():
        docstrings = "\n\n".join(_docstrings(text))
        if docstrings:
            yield name, docstrings


def _topics() -> dict[str, str]:
    """The reference's topics; empty where the distribution of Python left them out."""
    try:
        return dict(importlib.import_module("pydoc_data.topics").topics)
    except ImportError:
        return {}


def _docstrings(source: str) -> Iterator[str]:
    """The docstrings of a module, its classes and functions, with their names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(source)
        except SyntaxError:
            return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring and len(docstring) >= _LEAST_DOCSTRING:
                yield docstring if isinstance(node, ast.Module) else f"{node.name}: {docstring}"


def _shuffled(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
