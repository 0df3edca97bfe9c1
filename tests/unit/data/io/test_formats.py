"""A format of rows is its module and one line of the table: everything that reads rows then reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from priorkit.core.errors import InputError
from priorkit.data.images.entities import name_suffixes
from priorkit.data.io import formats
from priorkit.data.io.formats import ROW_FORMATS, format_of, register_row_format, row_suffixes
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_format import NumberedRow, RowFormat
from priorkit.data.io.rows import column_names, files_of, read_rows
from priorkit.data.text.documents import read_documents, text_suffixes


class Paragraphs(RowFormat):
    """A row per paragraph, with the column ``text``."""

    suffixes = (".paragraphs",)

    def read(self, path: Path, rejects: Rejects, columns: list[str] | None) -> Iterator[NumberedRow]:
        for number, text in enumerate(path.read_text(encoding="utf-8").split("\n\n"), start=1):
            yield number, {"text": text.strip()}


@pytest.fixture
def paragraphs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of a format that priorkit does not ship."""
    monkeypatch.setattr(formats, "ROW_FORMATS", [*ROW_FORMATS])
    register_row_format(Paragraphs())
    path = tmp_path / "notes.paragraphs"
    path.write_text("\n\n".join(f"paragraph {number} of a circle" for number in range(40)))
    return path


def test_a_registered_format_is_read_like_any_other(paragraphs: Path) -> None:
    rows = list(read_rows(paragraphs, Rejects(0)))
    assert rows[0] == (1, {"text": "paragraph 0 of a circle"})
    assert len(rows) == 40
    assert column_names(paragraphs) == ["text"]
    assert files_of(paragraphs.parent) == [paragraphs]
    assert ".paragraphs" in text_suffixes()
    assert ".paragraphs" in name_suffixes()
    assert len(list(read_documents(paragraphs, Rejects(0)))) == 40


def test_mix_reads_a_registered_format(paragraphs: Path, tmp_path: Path, cli) -> None:
    lines = tmp_path / "lines.jsonl"
    texts = paragraphs.read_text().split("\n\n")
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    tokenizer = cli("tokenizer", f"a={paragraphs}", "--vocab-size", 300, "--out", tmp_path / "tokenizer").path
    tokens = [
        (cli("mix", f"a={path}", "--tokenizer", tokenizer, "--context-length", 16, "--workers", 1,
             "--out", tmp_path / path.stem).path / "tokens-00000.safetensors").read_bytes()
        for path in (paragraphs, lines)
    ]  # fmt: skip
    assert tokens[0] == tokens[1]


def test_a_suffix_belongs_to_one_format(paragraphs: Path) -> None:
    with pytest.raises(ValueError, match=r"a format for \.paragraphs already"):
        register_row_format(Paragraphs())


def test_the_longest_suffix_decides(tmp_path: Path) -> None:
    suffixes = row_suffixes()
    assert len(set(suffixes)) == len(suffixes)
    for suffix in suffixes:
        found = format_of(tmp_path / f"A{suffix.upper()}")
        assert found is not None
        assert suffix in found.suffixes
    assert format_of(tmp_path / "a.xlsx") is None
    (tmp_path / "a.xlsx").write_text("a,b")
    with pytest.raises(InputError, match="unknown file type"):
        list(read_rows(tmp_path / "a.xlsx", Rejects(0)))
