"""Reasoning blocks are removed from answers, whatever their marks and wherever they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.scoring.answers.reasoning import MARKS, TAGS, final_answer

TAG_BLOCKS = tuple(f"<{tag}>It is small.</{tag}>" for tag in (*TAGS, *(tag.upper() for tag in TAGS)))
BLOCKS = (
    *(mark.example for mark in MARKS),
    *TAG_BLOCKS,
    "<seed:think>Hm.</seed:think>",
    '<think id="1">Hm.</think>',
)
words = st.text(st.characters(categories=("Ll", "Lu", "Nd"), include_characters=" .,"), min_size=1).filter(
    str.strip
)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("space", ["", " ", "\n", "\n\n"])
def test_a_block_before_the_answer(block: str, space: str) -> None:
    if block.endswith("answer") and not space:  # a role's name ends with its line
        return
    assert final_answer(f"{block}{space}the cat") == "the cat"


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.startswith(("analysis", "Here"))])
def test_a_block_within_or_after_the_answer(block: str) -> None:
    assert final_answer(f"the {block} cat") == "the cat"
    assert final_answer(f"the cat\n{block}") == "the cat"
    assert final_answer(f"{block}\nthe\n{block}\ncat") == "the\ncat"


@pytest.mark.parametrize("block", [*TAG_BLOCKS, *(mark.example for mark in MARKS if mark.opened_by_prompt)])
def test_a_block_that_the_prompt_opened(block: str) -> None:
    end = block[block.index("small.") + len("small.") :]
    assert final_answer(f"It is small.{end}the cat") == "the cat"
    assert final_answer(f"{end}\n\nthe cat") == "the cat"


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.startswith(("analysis", "Here"))])
def test_a_block_that_is_not_closed(block: str) -> None:
    assert final_answer(block[:-4]) == ""
    assert final_answer(f"the cat\n{block[:-4]}") == "the cat"


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("<think>\n\n</think>\n\ncat", "cat"),
        ("<think></think>", ""),
        ("<think>I write <think> first.</think>cat", "cat"),
        ("<think>a<think>b</think>c</think>cat", "cat"),
        ("<think>Hm.</think><answer>cat</answer>", "cat"),
        ("<think>Hm.</think>It is <answer>\ncat\n</answer>", "cat"),
        ("<think>Hm.</think><answer>cat", "cat"),
        ("<think>Hm.</think><|begin_of_box|>cat<|end_of_box|>", "cat"),
        ("<|begin_of_box|>cat<|end_of_box|>", "cat"),
        ("<SUMMARY>s</SUMMARY><REASONING>r</REASONING><CONCLUSION>cat</CONCLUSION>", "cat"),
        ("<|channel|>final<|message|>cat<|return|>", "cat"),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>b<|end|>"
            "<|start|>assistant<|channel|>final<|message|>cat<|return|>",
            "cat",
        ),
        ("<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>cat", "cat"),
        (
            "<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>cat<|end_of_solution|>",
            "cat",
        ),
        ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>cat<|END_RESPONSE|>", "cat"),
    ],
)
def test_forms_that_models_write(prediction: str, answer: str) -> None:
    assert final_answer(prediction) == answer


@pytest.mark.parametrize(
    "prediction",
    [
        "",
        " cat\n",
        "<answer>C</answer>",
        "analysis of the cat",
        "Here is my thought process: it is a cat.",
        "a < b, a > b",
        "[0.1,0.2,0.3,0.4]",
        "cat<|im_end|>",
        "<box>(1,2),(3,4)</box>",
    ],
)
def test_an_answer_without_reasoning_stays_as_it_is(prediction: str) -> None:
    assert final_answer(prediction) == prediction


@given(words, words)
def test_any_reasoning_before_any_answer(thought: str, answer: str) -> None:
    assert final_answer(f"<think>{thought}</think>{answer}") == answer.strip()
    assert final_answer(answer) == answer
