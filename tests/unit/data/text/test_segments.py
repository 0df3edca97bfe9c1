"""Documents are cut into segments of which no character is lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.core.errors import InputError
from priorkit.data.io.rejects import Rejects
from priorkit.data.text.documents import text_files
from priorkit.data.text.segments import Record, SegmentStore, cut, read_records, segments_of
from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe

GOLDEN = Path(__file__).parents[3] / "golden"
PLAIN = load_tokenizer(GOLDEN / "tiny-llama")


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """A tokenizer whose tokens span several characters and parts of characters."""
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_bpe(["the cat sat on the mat, façade and 日本語 naïve "] * 20, 320), folder)
    return load_tokenizer(folder)


@settings(max_examples=150, deadline=None)
@given(text=st.text(min_size=1, max_size=200), length=st.integers(1, 40))
def test_segments_give_the_document_back(merged, text: str, length: int) -> None:
    for tokenizer in (merged, PLAIN):
        found = list(segments_of(iter([Record("a", text, "")]), "s", tokenizer, length))
        assert "".join(segment.text for segment in found) == text
        assert all(segment.text for segment in found)
        assert [segment.segment for segment in found] == list(range(len(found)))
        offsets = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).offsets
        assert sum(segment.tokens for segment in found) == len(offsets)


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="abc de\n", min_size=1, max_size=200), length=st.integers(1, 40))
def test_segments_have_the_requested_length(merged, text: str, length: int) -> None:
    """Exactly, where no boundary can fall within a character."""
    found = list(segments_of(iter([Record("a", text, "")]), "s", merged, length))
    assert [segment.tokens for segment in found[:-1]] == [length] * (len(found) - 1)
    assert 1 <= found[-1].tokens <= length


@given(
    text=st.text(min_size=1, max_size=50),
    places=st.lists(st.integers(0, 60), max_size=60).map(sorted),
    length=st.integers(1, 10),
)
def test_any_offsets_give_the_text_back(text: str, places: list[int], length: int) -> None:
    pieces = cut(text, [(place, place + 1) for place in places], length)
    assert "".join(piece for piece, _ in pieces) == text
    assert all(piece for piece, _ in pieces)
    assert sum(count for _, count in pieces) == len(places)


def test_a_long_document_is_cut_every_1024_tokens(merged) -> None:
    text = "the cat sat on the mat, " * 900
    total = len(merged.backend_tokenizer.encode(text, add_special_tokens=False).ids)
    found = list(segments_of(iter([Record("a", text, "")]), "s", merged, 1024))
    assert [segment.tokens for segment in found] == [1024] * (total // 1024) + [total % 1024]


def test_records_keep_ids_and_plain_metadata(tmp_path: Path) -> None:
    rows = [
        {
            "id": "x",
            "text": "one",
            "url": "u",
            "stars": 3,
            "nested": {"a": 1},
            "long": "y" * 2000,
            "n": float("nan"),
        },
        {"text": "two"},
        {"id": 7, "text": None},
        {"id": 8, "text": " \n"},
    ]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.txt").write_text("three\n")
    rejects = Rejects(0.5)
    found = list(read_records(tmp_path, rejects))
    assert found == [
        Record("x", "one", '{"url": "u", "stars": 3}'),
        Record("1", "two", ""),
        Record("b", "three\n", ""),
    ]
    assert (len(rejects), rejects.total) == (1, 4)
    (tmp_path / "c.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no documents here"):
        list(read_records(tmp_path / "c.jsonl", Rejects(1)))


def test_an_artifact_gives_its_text_and_nothing_below(tmp_path: Path) -> None:
    (tmp_path / "text" / "heldout").mkdir(parents=True)
    (tmp_path / "priorkit.json").write_text("{}")
    for file in ("text/a.jsonl", "text/heldout/a.jsonl", "table.jsonl"):
        (tmp_path / file).write_text('{"text": "x"}\n')
    assert text_files(tmp_path) == [tmp_path / "text" / "a.jsonl"]
    (tmp_path / "priorkit.json").unlink()
    assert len(text_files(tmp_path)) == 3


def test_the_store_yields_chosen_segments_of_all_sources(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path, 2)
    counts = [1500, 700]
    for source, count in enumerate(counts):
        records = (Record(str(n), f"{source}-{n}", "") for n in range(count))
        assert store.write(source, segments_of(records, str(source), PLAIN, 50)) == count
    everything = [text for batch in store.texts() for text in batch]
    assert len(everything) == 2200
    numbers = np.array([0, 1023, 1024, 1499, 1500, 2199])
    assert list(store.chosen(numbers)) == [everything[n] for n in numbers]
    assert list(store.chosen(np.zeros(0, dtype=np.int64))) == []
