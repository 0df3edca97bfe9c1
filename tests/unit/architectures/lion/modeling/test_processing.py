"""Prompts: tags of all kinds, questions for the Q-Former, nothing cut in silence."""

from __future__ import annotations

import copy

import pytest
import torch

from priorkit.architectures.lion.modeling.processing import question_ids
from priorkit.core.errors import InputError
from priorkit.data.conversations.tag_prompt import SOFT_TOKEN, clean_tag, tag_sentence
from tests.support.lion_models import build_lion, picture


def test_the_tag_instruction_is_the_papers() -> None:
    assert tag_sentence(["dog", "red ball"], "soft") == (
        f"According to {SOFT_TOKEN}, you are allowed to use or partially use the following tags: "
        "[dog, red ball]. "
    )
    assert SOFT_TOKEN not in tag_sentence(["dog"], "hard")
    assert tag_sentence(["dog"], "off") == ""


def test_tags_with_brackets_commas_other_scripts_and_none() -> None:
    assert clean_tag(" a [b], c\n") == "a (b) c"
    assert clean_tag(f"{SOFT_TOKEN}<image>") == ""
    assert "[собака, 犬, a (b)]" in tag_sentence(["собака", "犬", "a [b]", "犬", " "], "hard")
    assert "tags: []. " in tag_sentence([], "soft")


def test_the_question_loses_its_beginning_and_never_holds_placeholders(base) -> None:
    lion = build_lion(base)
    tokenizer = lion.tokenizer
    whole = tokenizer("Find the red circle.", add_special_tokens=False)["input_ids"]
    assert question_ids(tokenizer, "<image>\nFind the red circle.", 100) == whole
    assert question_ids(tokenizer, "Find the red circle.", 3) == whole[-3:]


def test_a_prompt_begins_as_the_tokenizer_begins_a_text(base) -> None:
    lion = build_lion(base)
    plain = lion.processor(text=["What?"])["input_ids"][0].tolist()
    lion.processor.tokenizer = copy.deepcopy(lion.tokenizer)
    lion.processor.tokenizer.add_bos_token = True
    bos = lion.processor.tokenizer.bos_token_id
    assert lion.processor(text=["What?"])["input_ids"][0].tolist() == [bos, *plain]
    assert lion.processor(text=["<s>What?"])["input_ids"][0].tolist() == [bos, *plain]


def test_the_processor_expands_pads_and_refuses(base) -> None:
    lion = build_lion(base)
    image = lion.model.config.image_token_id
    batch = lion.processor(
        images=[picture(0), picture(1)],
        text=["<image>\nWhat?", "<image>\nWhat is shown in the image?"],
        task_types="image-level",
        tags=[["a"], ["b"]],
    )
    count = lion.model.config.image_seq_length
    assert (batch["input_ids"] == image).sum(1).tolist() == [count, count]
    assert batch["attention_mask"][0, 0] == 0
    assert batch["attention_mask"][:, -1].tolist() == [1, 1]
    assert torch.equal(batch["task_types"], torch.tensor([1, 1]))
    with pytest.raises(InputError, match="did you mean 'region-level'"):
        lion.processor(text=["a"], task_types=["regional-level"])
    with pytest.raises(InputError, match="never cut"):
        lion.processor(images=[picture(0)], text=["<image>\nWhat?"], max_length=count)
    with pytest.raises(InputError, match="reserved token"):
        lion.processor(text=[f"what is {SOFT_TOKEN}?"])
    with pytest.raises(InputError, match="1 image placeholders, 2 images"):
        lion.processor(images=[picture(0), picture(1)], text=["<image>\nWhat?"])
