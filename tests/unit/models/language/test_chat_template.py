"""Supervised tokens, compared as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from priorkit.core.errors import InputError
from priorkit.data.conversations.conversation import Conversation, Turn
from priorkit.models.kernels.cross_entropy import IGNORE
from priorkit.models.language.chat_template import ChatTokenizer, TooLongError, check_chat_template
from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe
from priorkit.training.finetuning.batches import tokenize_conversation

CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
PARTS = """\
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{{ 'USER: ' }}
{%- for part in message['content'] if part['type'] == 'image' -%}{{ '<image>\\n' }}{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] + ' ' }}{%- endfor -%}
{%- else -%}{{ 'ASSISTANT: ' }}
{%- for part in message['content'] -%}{{ part['text'] + ' ' }}{%- endfor -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
"""
THINKS_LAST = """\
{%- set ns = namespace(last=-1) -%}
{%- for message in messages if message['role'] == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endfor -%}
{%- set seen = namespace(users=-1) -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{%- set seen.users = seen.users + 1 -%}{%- endif -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{%- set thoughts, words = '', message['content'] -%}
{%- if '</think>' in words -%}
{%- set thoughts = words.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
{%- set words = words.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{%- if seen.users == ns.last -%}{{- '<think>\\n' + thoughts + '\\n</think>\\n\\n' -}}{%- endif -%}
{{- words -}}
{%- else -%}{{- message['content'] | trim -}}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""As Qwen3's: thoughts, even empty ones, in the last answer only."""
NO_SYSTEM = """\
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
{%- for message in messages -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{- '<|im_start|>' + role + '\\n' + message['content'] | trim + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>model\\n' -}}{%- endif -%}
"""
"""As Gemma 2's."""
TURNS = [
    ("user", "<image>\nWhat is it?"),
    ("assistant", "A heron."),
    ("user", "Sure?"),
    ("assistant", "Yes\nindeed"),
]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    save_tokenizer(train_bpe(["What is it? A heron. Sure? Yes indeed."] * 3, 300), tmp_path)
    return load_tokenizer(tmp_path)


def supervised(chat: ChatTokenizer, turns: list[tuple[str, str]] = TURNS) -> list[str]:
    """The supervised spans as text."""
    encoded = chat.encode(turns)
    stretches: list[list[int]] = [[]]
    for token, label in zip(encoded.input_ids, encoded.labels, strict=True):
        assert label in (token, IGNORE)
        if label != IGNORE:
            stretches[-1].append(token)
        elif stretches[-1]:
            stretches.append([])
    return [chat.tokenizer.decode(stretch) for stretch in stretches if stretch]


def test_only_answers_and_their_end_tokens_are_supervised(tokenizer: Any) -> None:
    assert supervised(ChatTokenizer(tokenizer, 4, 500)) == [" A heron.</s>", " Yes\nindeed</s>"]


def test_chatmls_line_break_after_the_end_token_is_not_supervised(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    chat = ChatTokenizer(tokenizer, 2, 500)
    assert supervised(chat) == ["A heron.<|im_end|>", "Yes\nindeed<|im_end|>"]
    assert chat.render(TURNS, add_generation_prompt=False).endswith("<|im_end|>\n")


def test_answers_that_end_in_white_space_keep_their_end_token(tokenizer: Any) -> None:
    assert supervised(ChatTokenizer(tokenizer, 1, 500), [("user", "q"), ("assistant", "so \n")]) == [
        " so \n</s>"
    ]


def test_a_template_that_needs_lists_of_parts(tokenizer: Any) -> None:
    tokenizer.chat_template = PARTS
    chat = ChatTokenizer(tokenizer, 3, 500)
    assert (
        chat.render(TURNS[:2], add_generation_prompt=True)
        == "USER: <image>\nWhat is it? ASSISTANT: A heron. ASSISTANT:"
    )
    assert [text.strip() for text in supervised(chat)] == ["A heron.", "Yes\nindeed"]
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert chat.encode(TURNS).input_ids.count(image) == 3


def test_another_models_image_token(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|picture|>"]})
    chat = ChatTokenizer(tokenizer, 5, 500, "<|picture|>")
    ids = chat.encode(TURNS).input_ids
    assert ids.count(tokenizer.convert_tokens_to_ids("<|picture|>")) == 5
    assert tokenizer.convert_tokens_to_ids("<image>") not in ids
    assert chat.prompt(TURNS[:1]) == ids[: len(chat.prompt(TURNS[:1]))]


def test_a_long_conversation_is_truncated(tokenizer: Any) -> None:
    full = ChatTokenizer(tokenizer, 4, 500).encode(TURNS)
    cut = ChatTokenizer(tokenizer, 4, len(full.input_ids) - 3).encode(TURNS)
    assert cut.truncated
    assert not full.truncated
    assert cut.input_ids == full.input_ids[:-3]
    assert cut.labels == full.labels[:-3]


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (9, "an image is beyond the maximum length of 9 tokens"),
        (26, "no answer begins within the maximum length"),
    ],
)
def test_conversations_without_a_supervised_token_within_the_maximum_length(
    tokenizer: Any, length: int, message: str
) -> None:
    with pytest.raises(TooLongError, match=message):
        ChatTokenizer(tokenizer, 12, length).encode(TURNS)


def with_turn_tokens(tokenizer: Any, template: str) -> ChatTokenizer:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return ChatTokenizer(tokenizer, 2, 500)


def test_a_template_that_thinks_in_the_last_answer_only(tokenizer: Any) -> None:
    chat = with_turn_tokens(tokenizer, THINKS_LAST)
    empty = "<think>\n\n</think>\n\n"
    assert supervised(chat) == ["A heron.<|im_end|>", f"{empty}Yes\nindeed<|im_end|>"]
    three = [*TURNS, ("user", "<|im_start|> A heron."), ("assistant", "No \n")]
    assert supervised(chat, three) == [
        "A heron.<|im_end|>",
        "Yes\nindeed<|im_end|>",
        f"{empty}No \n<|im_end|>",
    ]
    # A single round is unchanged, and the answer can be generated from the prompt.
    assert supervised(chat, TURNS[:2]) == [f"{empty}A heron.<|im_end|>"]
    encoded = chat.encode(TURNS)
    first = next(position for position, label in enumerate(encoded.labels) if label != IGNORE)
    assert encoded.input_ids[:first] == chat.prompt(TURNS[:1])


def test_thoughts_that_a_template_leaves_out_of_earlier_answers(tokenizer: Any) -> None:
    chat = with_turn_tokens(tokenizer, THINKS_LAST)
    thought = [
        (role, f"<think>\nso\n</think>\n\n{words}" if role == "assistant" else words) for role, words in TURNS
    ]
    assert supervised(chat, thought) == [
        "A heron.<|im_end|>",
        "<think>\nso\n</think>\n\nYes\nindeed<|im_end|>",
    ]


@pytest.mark.parametrize(
    "template", [None, CHATML, PARTS, NO_SYSTEM], ids=["own", "chatml", "parts", "gemma"]
)
def test_marks_find_the_answers_that_prefixes_find(tokenizer: Any, template: str | None) -> None:
    chat = with_turn_tokens(tokenizer, template or tokenizer.chat_template)
    for turns in (TURNS, TURNS[:2], [("user", "q"), ("assistant", "A heron. ")], [*TURNS[2:], *TURNS[2:]]):
        text, spans = chat._spans(turns)
        assert chat._marked_spans(turns, text) == spans


def test_a_templates_refusal_is_reported(tokenizer: Any) -> None:
    chat = with_turn_tokens(tokenizer, NO_SYSTEM)
    assert supervised(chat) == ["A heron.<|im_end|>", "Yes\nindeed<|im_end|>"]
    talk = Conversation("17", (Turn("system", "Be brief."), Turn("user", "q"), Turn("assistant", "a")), ())
    with pytest.raises(InputError) as caught:
        tokenize_conversation(chat, talk)
    problem = caught.value.problems[0]
    assert problem.what == "the chat template refuses the conversation: System role not supported"
    assert problem.where.startswith("conversation 17: ")
    assert chat.template_problem(TURNS) == ""
    assert "System role not supported" in chat.template_problem([("system", "Be brief."), *TURNS])


def test_templates_that_change_the_text_of_turns_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] if m['role'] == 'user' or loop.last }}{% endfor %}"
    )
    with pytest.raises(InputError, match="changes the text of turns"):
        ChatTokenizer(tokenizer, 1, 500).encode(TURNS)
    with pytest.raises(InputError, match="changes the text of turns") as caught:
        check_chat_template(tokenizer, tmp_path)
    assert caught.value.problems[0].where == str(tmp_path)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | replace('<image>', '') }}{% endfor %}"
    with pytest.raises(InputError, match="renders 1 images as 0 image tokens"):
        ChatTokenizer(tokenizer, 1, 500).encode(TURNS)
    check_chat_template(tokenizer, tmp_path)
    with pytest.raises(InputError, match="renders 1 images as 0 image tokens"):
        check_chat_template(tokenizer, tmp_path, "<image>")
