"""Names and facts without an image against plain forward passes; files of facts; names that cannot be written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from priorkit.core.errors import InputError
from priorkit.data.images.decoding import ImageRef
from priorkit.data.images.entities import EntityImages
from priorkit.data.io.rejects import Rejects
from priorkit.inference.diagnosis.asking import SHORT
from priorkit.inference.diagnosis.facts import Fact, read_facts
from priorkit.inference.diagnosis.language import (
    CONTEXTS,
    fact_margins,
    fact_margins_of_images,
    name_log_probabilities,
    unwritable_names,
)
from priorkit.inference.diagnosis.native import NativeAsker
from priorkit.inference.model_adapter import ModelAdapter

FACTS = [
    Fact("red circle", "Which colour has the {}?", "red", ("green", "black and white")),
    Fact("blue square", "Is the {} round?", "no, it is not", ("yes",)),
]


def whole(llava: ModelAdapter, prompt: tuple[int, ...], answer: tuple[int, ...]) -> float:
    assert llava.multimodal is not None
    with torch.no_grad():
        logits = llava.multimodal.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].double()
    logs = logits.log_softmax(-1)
    return sum(float(logs[len(prompt) - 1 + place, token]) for place, token in enumerate(answer))


def test_names_after_neutral_contexts(llava: ModelAdapter, tmp_path: Path) -> None:
    asker = NativeAsker(llava, tmp_path, 4)
    found = name_log_probabilities(asker, ["red circle", "star"])
    assert found.shape == (2, len(CONTEXTS))
    for column, context in enumerate(CONTEXTS):
        prompt, answers = asker.plain(context, ["red circle", "star"])
        expected = [whole(llava, prompt, answer) for answer in answers]
        np.testing.assert_allclose(found[:, column], expected, atol=1e-4)


def test_facts_are_compared_per_token(llava: ModelAdapter, tmp_path: Path) -> None:
    asker = NativeAsker(llava, tmp_path, 4)
    found = fact_margins(asker, FACTS)
    for fact, margin in zip(FACTS, found, strict=True):
        prompt, answers = asker.chat(
            f"{fact.about(fact.entity)}\n{SHORT}", (fact.true, *fact.false), image=False
        )
        values = [whole(llava, prompt, answer) / len(answer) for answer in answers]
        assert margin == pytest.approx(values[0] - max(values[1:]), abs=1e-4)


def test_facts_are_asked_about_a_bounded_number_of_images(
    llava: ModelAdapter, images: list[ImageRef], tmp_path: Path
) -> None:
    entities = EntityImages(("blue square", "red circle"), tuple(images), (0, 1, 1, 1, 1, 1))
    found = fact_margins_of_images(NativeAsker(llava, tmp_path, 4), FACTS, entities, "one in the image", 2)
    assert [len(margins) for margins in found] == [2, 1]
    assert all(np.isfinite(margins).all() for margins in found)


def test_facts_are_read_and_what_is_none_is_said(tmp_path: Path) -> None:
    rows = [
        {"entity": "Red Circle", "question": "What is the {}?", "true": "round", "false": ["square"]},
        {"entity": "red circle", "question": "And the {}?", "true": "a", "false": "b| c"},
        {"entity": "dodo", "question": "What is the {}?", "true": "x", "false": ["y"]},
    ]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts, unknown = read_facts(tmp_path / "facts.jsonl", ["red circle"], Rejects(0.0))
    assert [(fact.entity, fact.false) for fact in facts] == [
        ("red circle", ("square",)),
        ("red circle", ("b", "c")),
    ]
    assert unknown == ["dodo"]
    with pytest.raises(
        InputError,
        match="no fact is about an entity of the images; they are about others, such as 'Red Circle'",
    ):
        read_facts(tmp_path / "facts.jsonl", ["moa"], Rejects(0.0))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"entity": "a", "question": "What?", "true": "x", "false": ["y"]}, "no {}"),
        ({"entity": "a", "question": "The {}?", "true": "x", "false": ["x"]}, "differ from the true one"),
        ({"entity": "a", "question": "The {}?", "true": "x", "false": 3}, "no list of texts"),
        ({"entity": "a", "question": "The {}?", "false": ["y"]}, "'true' is no text"),
    ],
)
def test_rows_that_hold_no_fact_are_rejected(row: dict, words: str, tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text(json.dumps(row) + "\n")
    rejects = Rejects(0.0)
    with pytest.raises(InputError):
        read_facts(tmp_path / "facts.jsonl", ["a"], rejects)
    assert words in str(rejects.rows[0]["reason"])
    with pytest.raises(InputError, match="expected a table of facts"):
        read_facts(tmp_path, ["a"], Rejects(0.0))


def test_names_that_a_tokenizer_cannot_write_are_found(llava: ModelAdapter) -> None:
    assert unwritable_names(llava.tokenizer, ["red circle", "Ωmega"]) == []
    words = Tokenizer(models.WordLevel({"red": 0, "circle": 1, "[UNK]": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    limited = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    assert unwritable_names(limited, ["red circle", "blue circle"]) == ["blue circle"]
