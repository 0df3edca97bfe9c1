"""Multimodal models are transformers' LLaVA, adapters are PEFT's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForCausalLM, AutoProcessor, CLIPModel, LlavaForConditionalGeneration

from priorkit.data.images.decoding import decode
from priorkit.data.io.rejects import Rejects
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.models.multimodal.llava import load_llava
from tests.support.conversations import all_conversations

SHORT = ("--steps", 2, "--batch-size", 4, "--precision", "fp32", "--device", "cpu")


def our_logits(
    folder: Path, turns: list[tuple[str, str]], image: Image.Image
) -> tuple[list[int], torch.Tensor]:
    multimodal = load_llava(folder)
    multimodal.model.eval()
    chat = ChatTokenizer(multimodal.tokenizer, multimodal.image_tokens, multimodal.max_length)
    ids = chat.prompt(turns)
    with torch.no_grad():
        features = multimodal.patch_features(multimodal.prepare(image)[None])
        tokens = torch.tensor([ids])
        hidden = multimodal.hidden(tokens, torch.ones_like(tokens), features).last_hidden_state
        return ids, multimodal.model.lm_head(hidden)


def test_llava_and_auto_processor_give_the_same_logits(artifacts) -> None:
    sample = next(s for s in all_conversations(artifacts.captions, Rejects(0)) if s.images)
    image = decode(sample.images[0])
    question = sample.turns[0].text.replace("<image>\n", "")
    model = LlavaForConditionalGeneration.from_pretrained(artifacts.mllm).eval()
    processor = AutoProcessor.from_pretrained(artifacts.mllm)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    batch = processor(text=prompt, images=image, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        theirs = model(**batch).logits
    ids, ours = our_logits(artifacts.mllm, [("user", f"<image>\n{question}")], image)
    assert batch["input_ids"][0].tolist() == ids
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        written = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert written.shape[1] <= len(ids) + 3


def test_the_chat_template_gives_the_same_text_for_strings_and_parts(artifacts) -> None:
    processor = AutoProcessor.from_pretrained(artifacts.mllm)
    assert processor.chat_template == processor.tokenizer.chat_template
    words = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<image>\nWhat is it?"},
        {"role": "assistant", "content": "A heron."},
    ]
    parts = [
        words[0],
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A heron."}]},
    ]
    text = processor.tokenizer.apply_chat_template(words, tokenize=False)
    assert text == "Be brief.\nUSER: <image>\nWhat is it?\nASSISTANT: A heron.</s>"
    assert processor.apply_chat_template(parts) == text


def test_alignment_trains_only_the_projector(artifacts) -> None:
    model = LlavaForConditionalGeneration.from_pretrained(artifacts.mllm)
    language, encoder = (
        AutoModelForCausalLM.from_pretrained(artifacts.llm),
        CLIPModel.from_pretrained(artifacts.encoder),
    )
    for name, value in language.get_decoder().state_dict().items():
        assert torch.equal(model.model.language_model.state_dict()[name][: len(value)], value), name
    tower = {
        name.removeprefix("vision_model."): v for name, v in model.model.vision_tower.state_dict().items()
    }
    for name, value in encoder.vision_model.state_dict().items():
        assert torch.equal(tower[name], value), name


@pytest.mark.parametrize(
    ("extra", "parts"),
    [
        ((), {"projector", "llm"}),
        (
            ("--train", "projector,llm,encoder", "--encoder-learning-rate", "1e-3"),
            {"projector", "llm", "encoder"},
        ),
        (("--train", "projector"), {"projector"}),
    ],
)
def test_tuning_changes_the_parts_that_are_named(
    artifacts, cli, tmp_path: Path, extra: tuple[object, ...], parts: set[str]
) -> None:
    found = cli("tune", artifacts.mllm, artifacts.instructions, *SHORT, *extra, "--out", tmp_path / "tuned")
    assert found.code == 0, found.err
    before, after = (
        LlavaForConditionalGeneration.from_pretrained(path) for path in (artifacts.mllm, found.path)
    )
    parameter_part = load_llava(artifacts.mllm).parameter_part
    changed = {
        parameter_part(name) for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(old, new)
    }  # fmt: skip
    assert changed == parts


def test_workers_and_cached_features_change_nothing(artifacts, cli, tmp_path: Path) -> None:
    from priorkit.core.artifact import open_artifact

    for name, extra in (("a", ()), ("b", ("--workers", 2))):
        found = cli("tune", artifacts.mllm, artifacts.instructions, *SHORT, *extra, "--out", tmp_path / name)
        assert found.code == 0, found.err
    assert open_artifact(tmp_path / "a").digest == open_artifact(tmp_path / "b").digest


def test_a_lora_adapter_loads_in_peft_and_gives_the_logits_of_training(
    artifacts, cli, tmp_path: Path
) -> None:
    found = cli(
        "tune", artifacts.mllm, artifacts.instructions, *SHORT, "--lora-rank", 4, "--learning-rate", "1e-2", "--warmup-steps", 0,
        "--out", tmp_path / "adapter",
    )  # fmt: skip
    assert found.code == 0, found.err
    base = LlavaForConditionalGeneration.from_pretrained(artifacts.mllm).eval()
    ids = torch.tensor([AutoProcessor.from_pretrained(found.path).tokenizer("a heron in the")["input_ids"]])
    with torch.no_grad():
        plain = base(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, found.path).eval()
        changed = adapted(input_ids=ids).logits
        assert not torch.allclose(plain, changed)
        folded = adapted.merge_and_unload()
        torch.testing.assert_close(folded(input_ids=ids).logits, changed, rtol=1e-4, atol=1e-5)
    assert adapted.peft_config["default"].base_model_name_or_path == str(artifacts.mllm.resolve())
