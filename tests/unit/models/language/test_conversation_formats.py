"""Conversation formats by name: the texts of LLaVA's release, labels on the answers, templates from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from priorkit.core.errors import InputError, UsageError
from priorkit.models.kernels.cross_entropy import IGNORE
from priorkit.models.language.chat_template import ChatTokenizer, check_chat_template
from priorkit.models.language.content_parts import accept_parts
from priorkit.models.language.conversation_formats import (
    ChatTemplateSettings,
    format_names,
    resolve_template,
    use_template,
)
from tests.support.chat_models import make_tokenizer

TURNS = [("user", "<image>\nWhat is it?"), ("assistant", "A cat."), ("user", "Sure?"), ("assistant", "Yes.")]
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
LLAVA = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
RELEASED = {
    "vicuna": VICUNA + "USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT: Yes.</s>",
    "llava-v1": VICUNA.replace("curious user", "curious human").replace("user's", "human's")
    + "USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT: Yes.</s>",
    "llava-plain": "<image>A cat.\nYes.\n",
    "llava-llama-2": f"<s>[INST] <<SYS>>\n{LLAVA}\n<</SYS>>\n\n<image>\nWhat is it? [/INST] A cat. </s>"
    "<s>[INST] Sure? [/INST] Yes. </s>",
    "chatml": "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\nA cat.<|im_end|>\n"
    "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n",
}
"""What ``Conversation.get_prompt`` of the release gives (053c284), with Llama's special tokens."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("name", format_names())
def test_conversations_are_written_as_released(tokenizer, name):
    use_template(tokenizer, name, "<image>")
    chat = ChatTokenizer(tokenizer, image_tokens=1, max_length=1000)
    assert chat.render(TURNS, add_generation_prompt=False) == RELEASED[name]
    check_chat_template(tokenizer, Path(), "<image>")


@pytest.mark.parametrize("name", format_names())
def test_the_answers_and_their_ends_are_supervised(tokenizer, name):
    use_template(tokenizer, name, "<image>")
    encoded = ChatTokenizer(tokenizer, image_tokens=1, max_length=1000).encode(TURNS)
    kept = [label for label in encoded.labels if label != IGNORE]
    text = tokenizer.decode(kept)
    ends = {"llava-plain": "\n", "chatml": "<|im_end|>", "llava-llama-2": " </s>"}
    end = ends.get(name, "</s>")
    assert "".join(text.split()) == "".join(f"A cat.{end}Yes.{end}".split())


@pytest.mark.parametrize("name", ["vicuna", "llava-v1", "llava-llama-2"])
def test_a_system_turn_replaces_the_formats_own(tokenizer, name):
    use_template(tokenizer, name)
    turns = [("system", "Be brief."), *TURNS[2:]]
    text = ChatTokenizer(tokenizer, 1, 1000).render(turns, add_generation_prompt=False)
    assert "Be brief." in text
    assert "helpful" not in text


def test_templates_come_from_files(tmp_path, tokenizer):
    path = tmp_path / "mine.jinja"
    path.write_text("{% for message in messages %}[{{ message['content'] }}]{% endfor %}")
    assert resolve_template(str(path)) == path.read_text()
    assert ChatTemplateSettings(chat_template=str(path)).template_files() == {
        "chat template": (tmp_path, ("mine.jinja",))
    }
    assert ChatTemplateSettings(chat_template="vicuna").template_files() == {}
    assert resolve_template(None) is None
    before = tokenizer.chat_template
    use_template(tokenizer, None)
    assert tokenizer.chat_template == before
    path.write_text("{% for message in %}")
    with pytest.raises(InputError, match=r"mine\.jinja:1: not a Jinja template"):
        resolve_template(str(path))
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="not readable as text"):
        resolve_template(str(path))
    with pytest.raises(
        UsageError, match=r"no conversation format and no file 'vicunna'.*\n.*did you mean 'vicuna'"
    ):
        resolve_template("vicunna")


def test_a_format_takes_lists_of_parts(tokenizer):
    for name in format_names():
        use_template(tokenizer, name, "<image>")
        accept_parts(tokenizer, "<image>")
        parts = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
        text = tokenizer.apply_chat_template(parts, tokenize=False)
        assert text.count("<image>") == 1
