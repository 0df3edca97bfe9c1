"""Conversations of a run through gigatoken: the same samples, or tokenizers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from priorkit.data.conversations.conversation import Turn
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe
from priorkit.training.engine.validation_loss import ValidationText
from priorkit.training.finetuning.batches import use_fast_encoding
from tests.support.gigatoken import stand_in  # noqa: F401

TEXTS = ["What is shown?", "A grey heron, naïve and\tüber.", "def f(x):\n    return x ** 2\n"] * 4
pytestmark = pytest.mark.usefixtures("stand_in")


@dataclass(frozen=True)
class Talk:
    """A conversation as far as it is encoded."""

    turns: tuple[Turn, ...]


def talk(question: str, *more: str) -> Talk:
    texts = [question, *more]
    return Talk(tuple(Turn(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)))


TALKS = [
    talk("<image>\nWhat is shown?", "A grey heron."),
    talk("Is it naïve?", " Yes, über. ", "<image> And this?", "No.\n\nNothing"),
]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    save_tokenizer(train_bpe(TEXTS, 330, "qwen2"), tmp_path)
    return load_tokenizer(tmp_path)


def encoded(chat: ChatTokenizer, talks: list[Talk]) -> list[Any]:
    return [chat.encode([(turn.role, turn.text) for turn in one.turns]) for one in talks]


def test_samples_are_the_same(tokenizer: Any) -> None:
    plain, fast = ChatTokenizer(tokenizer, 3, 200), ChatTokenizer(tokenizer, 3, 200)
    assert use_fast_encoding(fast, TALKS)
    assert fast.encode_text != fast.tokenizer_encoding
    assert encoded(fast, TALKS) == encoded(plain, TALKS)
    (first, _) = encoded(plain, TALKS)
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert first.input_ids.count(image) == 3
    assert (
        tokenizer.decode([label for label in first.labels if label >= 0]).strip().startswith("A grey heron.")
    )


def test_a_difference_in_the_compared_conversations_leaves_tokenizers(tokenizer: Any) -> None:
    chat = ChatTokenizer(tokenizer, 3, 200)
    assert not use_fast_encoding(chat, [talk("WRONG", "yes")])
    assert chat.encode_text == chat.tokenizer_encoding


def test_a_difference_found_later_ends_its_use(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain, chat = ChatTokenizer(tokenizer, 3, 200), ChatTokenizer(tokenizer, 3, 200)
    assert use_fast_encoding(chat, TALKS)
    monkeypatch.setattr("priorkit.data.text.fast_encoder.COMPARED_DOCUMENTS", 1)
    wrong = [talk("Is it?", "WRONG")]
    assert encoded(chat, wrong) == encoded(plain, wrong)
    assert "not used from here on" in caplog.text
    assert chat.encode_text == chat.tokenizer_encoding


def test_without_gigatoken_nothing_changes(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    assert not use_fast_encoding(ChatTokenizer(tokenizer, 3, 200), TALKS)


@pytest.mark.parametrize("within", [False, True])
def test_validation_texts_are_the_same(tokenizer: Any, within: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("priorkit.data.text.fast_encoder.COMPARED_DOCUMENTS", 3)
    texts = [f"heron number {number}" for number in range(9)]
    kept = []
    for documents, fast in ((texts, True), (texts, False), ([*texts, "WRONG", "x"], True)):
        if not fast:
            with monkeypatch.context() as context:
                context.setitem(sys.modules, "gigatoken", None)
                kept.append(ValidationText(iter(documents), tokenizer, 16, 4, within))
        else:
            kept.append(ValidationText(iter(documents), tokenizer, 16, 4, within))
    assert kept[0]._ids_RT.tolist() == kept[1]._ids_RT.tolist()
    assert kept[0]._bytes == kept[1]._bytes == sum(map(len, texts))
    expected = [*kept[1]._ids_RT.flatten().tolist()[: kept[1]._tokens]]
    expected += [*tokenizer("WRONG")["input_ids"], 1, *tokenizer("x")["input_ids"], 1]
    assert kept[2]._ids_RT.flatten().tolist()[: kept[2]._tokens] == [
        token if token != 1 else tokenizer.eos_token_id for token in expected
    ]
