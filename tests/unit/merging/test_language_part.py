"""Language models and adapters merged into multimodal models, against the same arithmetic in torch."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from priorkit.core.errors import InputError
from priorkit.merging.lineage import check_lineage
from priorkit.merging.plan import MergeRequest, plan_merge
from tests.support.image_text_models import LLAMA, MROPE

TEXT: dict[str, Any] = {**LLAMA, "vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TOWER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip


def llama(folder: Path, seed: int, **changes: Any) -> Path:
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**{**TEXT, **changes})).save_pretrained(folder)
    return folder


def llava(folder: Path, seed: int, rows: int = 60) -> Path:
    torch.manual_seed(seed)
    config = LlavaConfig(
        text_config=LlamaConfig(**{**TEXT, "vocab_size": rows}), vision_config=CLIPVisionConfig(**TOWER),
        image_token_index=rows - 1,
    )  # fmt: skip
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


def merged(cli: Any, out: Path, *arguments: object) -> dict[str, torch.Tensor]:
    done = cli("merge-adapters", *arguments, "--out", out)
    assert done.code == 0, done.err
    return load_file(out / "model.safetensors")


def language(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a LLaVA's language part by the bare language model's names."""
    named = {name.replace("language_model.model.", "model."): value for name, value in state.items()}
    return {
        name.replace("language_model.lm_head", "lm_head"): value
        for name, value in named.items()
        if name.startswith(("model.", "language_model.lm_head", "lm_head"))
    }


@pytest.mark.parametrize("rows", [60, 63])
def test_a_language_model_is_interpolated_into_the_language_part(cli, tmp_path: Path, rows: int) -> None:
    base, llm = llava(tmp_path / "base", 0, rows), llama(tmp_path / "llm", 1)
    found = merged(
        cli, tmp_path / "out", llm, "--base", base, "--weight", 0.25, "--method", "task_arithmetic"
    )
    before, other = load_file(base / "model.safetensors"), load_file(llm / "model.safetensors")
    changed = language(found)
    assert set(changed) == set(language(before)) == set(other)
    for name, value in language(before).items():
        expected = value.clone()
        part = other[name].shape[0]
        expected[:part] = value[:part] + 0.25 * (other[name] - value[:part])
        torch.testing.assert_close(changed[name], expected, atol=1e-6, rtol=1e-5)
    rest = [name for name in before if "language_model" not in name and "lm_head" not in name]
    assert rest
    assert all(torch.equal(found[name], before[name]) for name in rest)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert model.get_output_embeddings().weight.shape[0] == rows


def test_an_adapter_of_the_language_model_goes_into_the_multimodal_model(cli, tmp_path: Path) -> None:
    base, llm = llava(tmp_path / "base", 0), llama(tmp_path / "llm", 1)
    adapted = get_peft_model(
        LlamaForCausalLM.from_pretrained(llm), LoraConfig(r=2, target_modules=["q_proj", "down_proj"])
    )
    torch.manual_seed(5)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    adapted.save_pretrained(tmp_path / "adapter")
    delta = {
        name: value - load_file(llm / "model.safetensors")[name]
        for name, value in adapted.merge_and_unload().state_dict().items()
    }
    found = language(merged(cli, tmp_path / "out", tmp_path / "adapter", "--base", base))
    for name, value in language(load_file(base / "model.safetensors")).items():
        torch.testing.assert_close(found[name], value + delta[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_two_multimodal_models_are_merged(cli, tmp_path: Path, method: str) -> None:
    one, other = llava(tmp_path / "one", 0), llava(tmp_path / "other", 1)
    more = ("--t", 0.5) if method == "slerp" else ()
    found = merged(cli, tmp_path / "out", one, other, "--method", method, *more)
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert set(found) == set(first)
    if method == "linear":
        for name, value in found.items():
            torch.testing.assert_close(value, (first[name] + second[name]) / 2, atol=1e-6, rtol=1e-5)
    AutoModelForImageTextToText.from_pretrained(tmp_path / "out")


def test_families_of_transformers_take_their_language_model(cli, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config={**TEXT, "rope_parameters": MROPE},
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=50, video_token_id=51, vision_start_token_id=52, vision_end_token_id=53,
    )  # fmt: skip
    Qwen2VLForConditionalGeneration(config).save_pretrained(tmp_path / "base")
    Qwen2ForCausalLM(Qwen2Config(**TEXT)).save_pretrained(tmp_path / "llm")
    found = merged(
        cli, tmp_path / "out", tmp_path / "llm", "--base", tmp_path / "base", "--weight", 1, "--method",
        "task_arithmetic",
    )  # fmt: skip
    llm, base = (
        load_file(tmp_path / "llm" / "model.safetensors"),
        load_file(tmp_path / "base" / "model.safetensors"),
    )
    name = next(name for name in found if name.endswith("layers.1.mlp.up_proj.weight"))
    torch.testing.assert_close(found[name], llm["model.layers.1.mlp.up_proj.weight"], atol=1e-6, rtol=1e-5)
    assert all(torch.equal(found[name], base[name]) for name in base if "visual" in name)


def test_other_language_models_are_refused(tmp_path: Path) -> None:
    base = llava(tmp_path / "base", 0)
    Qwen2ForCausalLM(Qwen2Config(**TEXT)).save_pretrained(tmp_path / "qwen")
    with pytest.raises(InputError, match="of type 'qwen2', the language part of --base is 'llama'"):
        plan_merge(MergeRequest(), [("INPUT 1", tmp_path / "qwen")], ("--base", base))
    deeper = llama(tmp_path / "deeper", 1, num_hidden_layers=3)
    with pytest.raises(InputError, match="num_hidden_layers"):
        plan_merge(MergeRequest(), [("INPUT 1", deeper)], ("--base", base))
    larger = llama(tmp_path / "larger", 1, vocab_size=99)
    with pytest.raises(InputError, match="shapes differ"):
        plan_merge(MergeRequest(), [("INPUT 1", larger)], ("--base", base))


@pytest.mark.parametrize(("kind", "warned"), [("llm", True), ("known", False)])
def test_an_adapter_of_another_language_model_is_warned_of(
    caplog: pytest.LogCaptureFixture, kind: str, warned: bool
) -> None:
    digest = "d" * 64 if kind == "known" else "e" * 64
    trained = SimpleNamespace(kind="llm", digest=digest, path="llm")
    adapter: Any = SimpleNamespace(
        kind="adapter", owner=SimpleNamespace(manifest=SimpleNamespace(inputs=[trained]))
    )
    aligned = SimpleNamespace(inputs=[SimpleNamespace(kind="llm", digest="d" * 64)])
    base: Any = SimpleNamespace(kind="mllm", owner=SimpleNamespace(manifest=aligned), digest=lambda: "f" * 64)
    with caplog.at_level(logging.WARNING):
        check_lineage(["INPUT 1"], [adapter], base)
    assert ("its shapes are compared" in caplog.text) == warned
