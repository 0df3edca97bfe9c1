"""Every multimodal artifact renders lists and strings as transformers' processor does, whatever its model's template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer, pipeline

from priorkit.architectures.registry import check_model
from priorkit.data.conversations.conversation import Conversation, Turn
from priorkit.inference.loading import load_model_adapter
from priorkit.models.multimodal.llava import load_llava
from priorkit.training.finetuning.batches import tokenize_conversation
from tests.support.chat_templates import CONCATENATING, LISTS_ONLY

SHORT = ("--steps", 1, "--batch-size", 4, "--precision", "fp32", "--device", "cpu")
QUESTION = "What is it?"
PARTS = [{"type": "image"}, {"type": "text", "text": QUESTION}]


def made(cli: Any, *words: object) -> Path:
    found = cli(*words)
    assert found.code == 0, found.err
    return found.path


def with_template(model: Path, folder: Path, template: str | dict[str, str] | None) -> Path:
    """A copy of a model with another chat template or none, as its tokenizer saves it."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("priorkit.json", "recipe.toml"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template or None
    (folder / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(folder)
    return folder


def check_renders(folder: Path, llm: Path, template: str) -> None:
    processor, tokenizer = AutoProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    own = AutoTokenizer.from_pretrained(llm)
    assert processor.chat_template == processor.tokenizer.chat_template == tokenizer.chat_template

    def string(content: str) -> str:
        message = [{"role": "user", "content": content}]
        options = {"tokenize": False, "add_generation_prompt": True}
        expected = own.apply_chat_template(message, chat_template=template, **options)
        for found in (tokenizer, processor):
            assert found.apply_chat_template(message, **options) == expected
        return expected

    message = [{"role": "user", "content": PARTS}]
    assert processor.apply_chat_template(message, add_generation_prompt=True) == string(
        f"<image>\n{QUESTION}"
    )
    message = [{"role": "user", "content": PARTS[1:]}]
    assert processor.apply_chat_template(message, add_generation_prompt=True) == string(QUESTION)


@pytest.mark.parametrize("name", ["qwen2", "llama2"])
def test_artifacts_keep_a_template_that_takes_lists(artifacts, cli, tmp_path: Path, name: str) -> None:
    template = CONCATENATING[name]
    llm = with_template(artifacts.llm, tmp_path / "llm", template)
    mllm = made(cli, "align", llm, artifacts.encoder, artifacts.captions, *SHORT, "--out", tmp_path / "m")
    check_renders(mllm, llm, template)
    tuned = made(cli, "tune", mllm, artifacts.instructions, *SHORT, "--out", tmp_path / "t")
    check_renders(tuned, llm, template)
    adapter = made(
        cli, "tune", mllm, artifacts.instructions, *SHORT, "--lora-rank", 2, "--out", tmp_path / "a"
    )
    check_renders(adapter, llm, template)
    check_renders(
        made(cli, "merge-adapters", adapter, "--base", mllm, "--out", tmp_path / "f"), llm, template
    )
    blind = made(cli, "blind-tune", mllm, artifacts.instructions, *SHORT, "--out", tmp_path / "b")
    check_renders(blind, llm, template)
    # A model from before, or from elsewhere, whose template takes strings only.
    plain = with_template(mllm, tmp_path / "plain", template)
    check_renders(
        made(cli, "tune", plain, artifacts.instructions, *SHORT, "--out", tmp_path / "t2"), llm, template
    )


def test_named_templates_and_none(artifacts, cli, tmp_path: Path) -> None:
    named = {"default": CONCATENATING["vicuna"], "tool_use": CONCATENATING["qwen25"]}
    llm = with_template(artifacts.llm, tmp_path / "llm", named)
    words = (artifacts.encoder, artifacts.captions, *SHORT)
    mllm = made(cli, "align", llm, *words, "--out", tmp_path / "m")
    check_renders(mllm, llm, named["default"])
    assert set(AutoProcessor.from_pretrained(mllm).chat_template) == set(named)
    tuned = made(cli, "tune", mllm, artifacts.instructions, *SHORT, "--out", tmp_path / "t")
    check_renders(tuned, llm, named["default"])

    without = with_template(artifacts.llm, tmp_path / "no-default", {"rag": named["default"]})
    found = cli("align", without, *words, "--check", "--out", tmp_path / "x")
    assert found.code == 3
    assert "none of the chat templates (rag) is named 'default'" in found.err

    none = with_template(artifacts.llm, tmp_path / "none", None)
    assert not AutoTokenizer.from_pretrained(none).chat_template
    mllm = made(cli, "align", none, *words, "--out", tmp_path / "m2")
    check_renders(mllm, none, AutoTokenizer.from_pretrained(artifacts.llm).chat_template)


def test_evaluation_and_tuning_render_as_the_processor(artifacts, cli, tmp_path: Path) -> None:
    for name, template in (("qwen25", CONCATENATING["qwen25"]), ("lists", LISTS_ONLY)):
        mllm = with_template(artifacts.mllm, tmp_path / name, template)
        Image.linear_gradient("L").convert("RGB").save(tmp_path / "a.png")
        item = {"id": "1", "question": QUESTION, "image": "a.png", "answers": ["a heron"]}
        (tmp_path / "items.jsonl").write_text(json.dumps(item) + "\n")
        words = ("--task", "vqa", "--device", "cpu", "--resamples", 100, "--max-new-tokens", 2)
        out = made(cli, "evaluate", mllm, tmp_path / "items.jsonl", *words, "--out", tmp_path / f"e-{name}")
        sample = json.loads((out / "samples.jsonl").read_text().splitlines()[0])
        multimodal = load_llava(mllm)
        asked = sample["prompt"].partition(QUESTION)[2]
        instruction = asked[: asked.index("<|im_end|>" if name == "qwen25" else " ASSISTANT:")]
        parts = [PARTS[0], {"type": "text", "text": QUESTION + instruction}]
        messages = [{"role": "user", "content": parts}]
        assert sample["prompt"] == multimodal.processor.apply_chat_template(
            messages, add_generation_prompt=True
        )

        turns = (Turn("user", f"<image>\n{QUESTION}"), Turn("assistant", "A heron."))
        encoded = tokenize_conversation(multimodal.chat_tokenizer(), Conversation("1", turns, ()))
        lists = [
            {"role": "user", "content": PARTS},
            {"role": "assistant", "content": [{"type": "text", "text": "A heron."}]},
        ]
        image = Image.open(tmp_path / "a.png")
        batch = multimodal.processor(
            text=multimodal.processor.apply_chat_template(lists), images=image, return_tensors="pt"
        )
        assert batch["input_ids"][0].tolist() == encoded.input_ids


def test_an_image_token_of_another_name_is_asked_about(artifacts, tmp_path: Path) -> None:
    """LLaVA models elsewhere mark images by other tokens; the features go to their positions."""
    mllm = with_template(artifacts.mllm, tmp_path / "m", CONCATENATING["qwen2"])
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        if (mllm / name).is_file():
            (mllm / name).write_text((mllm / name).read_text().replace("<image>", "<|picture|>"))
    subject = load_model_adapter(check_model(mllm), torch.device("cpu"))
    assert subject.image_token == "<|picture|>"
    assert subject.multimodal is not None
    count = subject.multimodal.image_tokens
    image = subject.multimodal.model.config.image_token_id
    for text in (f"<image>\n{QUESTION}", f"<|picture|>\n{QUESTION}"):
        assert subject.encode(text).count(image) == count


def test_the_pipeline_takes_messages_with_images(artifacts, tmp_path: Path) -> None:
    load_llava(with_template(artifacts.mllm, tmp_path / "m", CONCATENATING["qwen2"])).save(tmp_path / "saved")
    image = Image.linear_gradient("L").convert("RGB").resize((60, 50))
    asked = pipeline("image-text-to-text", model=str(tmp_path / "saved"), device="cpu")
    messages = [{"role": "user", "content": [{"type": "image", "image": image}, PARTS[1]]}]
    found = asked(text=messages, max_new_tokens=2, return_full_text=False)
    assert isinstance(found[0]["generated_text"], str)
    turns = [
        *messages,
        {"role": "assistant", "content": [{"type": "text", "text": "A heron."}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "And this? "}, {"type": "image", "image": image}],
        },
    ]
    assert isinstance(asked(text=turns, max_new_tokens=2)[0]["generated_text"], list)
