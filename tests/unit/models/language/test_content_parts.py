"""Templates of strings that take lists: strings render as before, lists as the string with image tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils import chat_template_utils

from priorkit.models.language.content_parts import accept_parts, renders_strings, with_parts
from priorkit.models.language.tokenizer import CHAT_TEMPLATE, load_tokenizer, save_tokenizer, train_bpe
from tests.support.chat_templates import CONCATENATING, LISTS_ONLY, OTHER_IMAGES

IMAGE = "<image>"
TEXTS = st.text(st.sampled_from("ab \n\t{}%'\"<>é漢😀"), max_size=8)
PARTS = st.lists(st.one_of(st.just(None), TEXTS), min_size=1, max_size=5)
"""Texts, and None for an image."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_bpe(["What is it? A heron. Sure? Yes indeed."] * 3, 300), folder)
    return load_tokenizer(folder)


def render(tokenizer: Any, template: str, messages: list[dict[str, Any]], **options: Any) -> str:
    """The text, or the template's own refusal."""
    try:
        return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
    except jinja2.TemplateError as error:
        return f"refused: {error}"


def as_list(parts: list[str | None]) -> list[dict[str, str]]:
    return [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]


def as_string(parts: list[str | None], image: str = IMAGE) -> str:
    """The string that a list stands for: a line break after an image before what does not begin with white space."""
    text, after_image = "", False
    for part in parts:
        piece = image if part is None else part
        if piece:
            text += ("\n" if after_image and not piece[0].isspace() else "") + piece
            after_image = part is None
    return text


def conversation(system: Any, turns: list[Any]) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, *({"role": roles[place % 2], "content": turn} for place, turn in enumerate(turns))]


@pytest.mark.parametrize("name", CONCATENATING)
@settings(deadline=None, max_examples=60)
@given(
    system=st.one_of(st.none(), TEXTS),
    turns=st.lists(PARTS, min_size=1, max_size=4),
    prompt=st.booleans(),
    mixed=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_lists_and_strings_render_as_the_own_template_renders_strings(
    tokenizer: Any,
    name: str,
    system: str | None,
    turns: list[list[str | None]],
    prompt: bool,
    mixed: list[bool],
) -> None:
    own, taking_lists = CONCATENATING[name], with_parts(CONCATENATING[name], IMAGE)
    strings = conversation(system, [as_string(turn) for turn in turns])
    lists = conversation(
        None if system is None else [{"type": "text", "text": system}], [as_list(turn) for turn in turns]
    )
    some = conversation(
        system,
        [as_list(turn) if a_list else as_string(turn) for turn, a_list in zip(turns, mixed, strict=False)],
    )
    expected = render(tokenizer, own, strings, add_generation_prompt=prompt)
    for messages in (strings, lists, some):
        assert render(tokenizer, taking_lists, messages, add_generation_prompt=prompt) == expected


@pytest.mark.parametrize("name", CONCATENATING)
def test_an_image_is_in_its_place(tokenizer: Any, name: str) -> None:
    template = with_parts(CONCATENATING[name], IMAGE)

    def text(*parts: str | None) -> str:
        return render(
            tokenizer, template, conversation(None, [as_list(list(parts))]), add_generation_prompt=True
        )

    plain = text("Where is it?")
    assert text(None, "Where is it?") == plain.replace("Where", f"{IMAGE}\nWhere")
    assert text(None, None, "Where is it?") == plain.replace("Where", f"{IMAGE}\n{IMAGE}\nWhere")
    assert text("Where", None, " is it?") == plain.replace("Where", f"Where{IMAGE}")
    assert text("Where is it?", None) == plain.replace("it?", f"it?{IMAGE}")


def test_parts_in_the_forms_of_other_libraries(tokenizer: Any) -> None:
    template = with_parts(CONCATENATING["qwen2"], IMAGE)
    expected = render(tokenizer, template, conversation("S", [f"{IMAGE}\nQ"]))
    for image in (
        {"type": "image", "url": "x.png"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"image": "x"},
    ):
        for question in ({"type": "text", "text": "Q"}, {"text": "Q"}, "Q"):
            messages = conversation("S", [[image, question]])
            assert render(tokenizer, template, messages) == expected


def test_other_media_are_refused_by_name(tokenizer: Any) -> None:
    template = with_parts(CONCATENATING["qwen2"], IMAGE)
    messages = conversation(None, [[{"type": "video", "url": "x.mp4"}, {"type": "text", "text": "Q"}]])
    assert render(tokenizer, template, messages) == "refused: this model takes text and images, not video"


def test_tools_and_other_fields_pass_through(tokenizer: Any) -> None:
    own = CONCATENATING["qwen25"]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "look"}}]}

    def messages(*answers: Any) -> list[dict[str, Any]]:
        return [
            {"role": "user", "content": "Q"},
            call,
            {"role": "tool", "name": "look", "content": answers[0]},
        ]

    expected = render(tokenizer, own, messages("a heron"), tools=tools)
    assert "<tool_call>" in expected
    for answer in ("a heron", [{"type": "text", "text": "a heron"}]):
        assert render(tokenizer, with_parts(own, IMAGE), messages(answer), tools=tools) == expected
    returned = [{"species": "heron", "count": 2}]
    template = "{% for message in messages %}{{ (message.content or '') | tojson }}{% endfor %}"
    assert render(tokenizer, with_parts(template, IMAGE), messages(returned)) == render(
        tokenizer, template, messages(returned)
    )


def test_assistant_tokens_are_found_in_generation_blocks(tokenizer: Any) -> None:
    own = CONCATENATING["generation"]
    masks = [
        tokenizer.apply_chat_template(
            conversation(None, turns),
            chat_template=template,
            return_assistant_tokens_mask=True,
            return_dict=True,
        )
        for template, turns in (
            (own, ["Q", "It is A.", "Why?", "So."]),
            (with_parts(own, IMAGE), [as_list(["Q"]), as_list(["It is A."]), as_list(["Why?"]), "So."]),
        )
    ]
    assert masks[0]["assistant_masks"] == masks[1]["assistant_masks"]
    assert 0 < sum(masks[1]["assistant_masks"]) < len(masks[1]["input_ids"])


def test_the_last_message_can_be_continued(tokenizer: Any) -> None:
    template = with_parts(CONCATENATING["qwen2"], IMAGE)
    messages = conversation(None, [as_list([None, "Q"]), as_list(["It is"])])
    text = render(tokenizer, template, messages, continue_final_message=True)
    assert text.endswith(f"{IMAGE}\nQ<|im_end|>\n<|im_start|>assistant\nIt is")


@pytest.mark.parametrize("token", ["<|image|>", "<'\"\\image>", "<漢😀>"])
def test_any_image_token(tokenizer: Any, token: str) -> None:
    template = with_parts(CONCATENATING["llama3"], token)
    text = render(tokenizer, template, conversation(None, [as_list([None, "Q", None])]))
    assert f"{token}\nQ{token}" in text


def test_vllm_recognizes_that_lists_are_taken() -> None:
    """vLLM looks for a loop over ``message['content']`` in a loop over ``messages`` (``_detect_content_format``)."""
    template = with_parts(CONCATENATING["qwen2"], IMAGE)
    tree = chat_template_utils._compile_jinja_template(template).environment.parse(template)
    loops = list(tree.find_all(jinja2.nodes.For))
    assert all(isinstance(loop.target, jinja2.nodes.Name) for loop in loops)
    messages = {
        loop.target.name
        for loop in loops
        if isinstance(loop.iter, jinja2.nodes.Name) and loop.iter.name == "messages"
    }
    contents = [
        loop.iter
        for loop in loops
        if isinstance(loop.iter, jinja2.nodes.Getitem) and isinstance(loop.iter.node, jinja2.nodes.Name)
    ]
    assert any(
        content.node.name in messages and content.arg == jinja2.nodes.Const("content") for content in contents
    )


@pytest.mark.parametrize("template", [LISTS_ONLY, CHAT_TEMPLATE], ids=["lists only", "default"])
def test_a_template_that_takes_lists_is_kept(tokenizer: Any, template: str) -> None:
    tokenizer.chat_template = template
    accept_parts(tokenizer, IMAGE)
    assert tokenizer.chat_template == template
    assert renders_strings(tokenizer) == (template == CHAT_TEMPLATE)


@pytest.mark.parametrize("name", [*CONCATENATING, "other images"])
def test_accepting_twice_changes_nothing(tokenizer: Any, name: str) -> None:
    own = OTHER_IMAGES if name == "other images" else CONCATENATING[name]
    tokenizer.chat_template = own
    accept_parts(tokenizer, IMAGE)
    once = tokenizer.chat_template
    assert once == with_parts(own, IMAGE)
    accept_parts(tokenizer, IMAGE)
    assert tokenizer.chat_template == once


def test_named_templates_survive_saving(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.chat_template = {"default": CONCATENATING["qwen2"], "tool_use": CONCATENATING["qwen25"]}
    accept_parts(tokenizer, IMAGE)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path).chat_template
    assert loaded == {
        "default": with_parts(CONCATENATING["qwen2"], IMAGE),
        "tool_use": with_parts(CONCATENATING["qwen25"], IMAGE),
    }
