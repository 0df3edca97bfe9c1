"""Folded models and merged adapters against PEFT itself, on small random models of several families."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from priorkit.core.errors import InputError
from priorkit.steps.merge_adapters import MergeAdaptersSettings, run

TEXT = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 16,
}
IDS = torch.arange(6, 18)[None]
PIXELS = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def llama():
    return LlamaForCausalLM(LlamaConfig(**TEXT))


def gpt2():
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, tie_word_embeddings=False)
    )


def llava():
    vision = CLIPVisionConfig(**VISION).to_dict()
    text = LlamaConfig(**TEXT).to_dict()
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_id=5)
    )


def clip():
    text = {**TEXT, "projection_dim": 16, "eos_token_id": 2}
    del text["num_key_value_heads"]
    return CLIPModel(CLIPConfig(vision_config=VISION, text_config=text, projection_dim=16))


def answer(model):
    """A model's output for a fixed input."""
    inputs = {"input_ids": IDS}
    kind = model.config.model_type
    if kind == "llava":
        inputs = {"input_ids": torch.cat([torch.full((1, 4), 5), IDS], 1), "pixel_values": PIXELS}
    elif kind == "clip":
        inputs |= {"pixel_values": PIXELS, "attention_mask": torch.ones_like(IDS)}
    with torch.no_grad():
        out = model.eval()(**inputs)
    return out.logits_per_image if kind == "clip" else out.logits


def trained(model, seed, **options):
    """A PEFT model with all trainable weights moved at random."""
    peft = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 6, **options}))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in peft.parameters():
            if values.requires_grad:
                values.add_(torch.randn(values.shape, generator=draw) * 0.05)
    return peft


def merge(*inputs, out, **options):
    run(MergeAdaptersSettings(inputs=tuple(map(str, inputs)), out=str(out), quiet=True, **options))
    return out


FAMILIES = {
    "all linear layers": (llama, {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}),
    "rank-stabilised": (llama, {"target_modules": ["q_proj", "up_proj"], "use_rslora": True}),
    "patterns and whole modules": (
        llama,
        {
            "target_modules": ["q_proj", "v_proj"],
            "modules_to_save": ["lm_head", "norm"],
            "rank_pattern": {"layers.1.self_attn.q_proj": 7},
            "alpha_pattern": {"q_proj": 3},
        },
    ),
    "embeddings": (llama, {"target_modules": ["q_proj", "embed_tokens"]}),
    "DoRA": (llama, {"target_modules": ["q_proj", "down_proj"], "use_dora": True}),
    "DoRA of embeddings": (llama, {"target_modules": ["embed_tokens"], "use_dora": True}),
    "transposed layers": (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "transposed DoRA": (gpt2, {"target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}),
    "LLaVA": (
        llava,
        {
            "target_modules": r".*language_model.*(q_proj|v_proj)|.*vision_tower.*q_proj|.*linear_1",
            "modules_to_save": ["lm_head"],
        },
    ),
    "CLIP with convolution": (clip, {"target_modules": ["q_proj", "fc1", "patch_embedding"]}),
    "CLIP with DoRA": (clip, {"target_modules": ["q_proj", "patch_embedding"], "use_dora": True}),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore")
def test_a_folded_model_answers_as_the_adapter_model(family, tmp_path):
    make, options = FAMILIES[family]
    torch.manual_seed(0)
    model = make()
    model.save_pretrained(tmp_path / "base")
    before = answer(model)
    peft = trained(model, 3, **options)
    peft.save_pretrained(tmp_path / "adapter")
    expected = answer(peft)
    merge(tmp_path / "adapter", base=str(tmp_path / "base"), out=tmp_path / "out")
    folded, info = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    assert (expected - before).abs().max() > 1e-3
    torch.testing.assert_close(answer(folded), expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_adapters_joined_into_one_answer_as_their_sum(tmp_path):
    torch.manual_seed(0)
    llama().save_pretrained(tmp_path / "base")
    for number, options in enumerate(({"r": 3}, {"r": 5, "target_modules": ["q_proj", "down_proj"]})):
        model = LlamaForCausalLM.from_pretrained(tmp_path / "base")
        trained(model, number, **{"target_modules": ["q_proj", "v_proj"], **options}).save_pretrained(
            tmp_path / f"adapter{number}"
        )
    inputs = (tmp_path / "adapter0", tmp_path / "adapter1")
    options = {"weight": (0.7, -0.4), "normalize": False}
    merge(*inputs, out=tmp_path / "one", **options)
    merge(*inputs, out=tmp_path / "folded", base=str(tmp_path / "base"), **options)
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    joined = PeftModel.from_pretrained(base, tmp_path / "one")
    folded = LlamaForCausalLM.from_pretrained(tmp_path / "folded")
    torch.testing.assert_close(answer(joined), answer(folded), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_the_factor_method_is_pefts_linear(tmp_path):
    torch.manual_seed(0)
    llama().save_pretrained(tmp_path / "base")
    for number in range(2):
        model = LlamaForCausalLM.from_pretrained(tmp_path / "base")
        trained(model, number, target_modules=["q_proj", "up_proj"]).save_pretrained(tmp_path / f"a{number}")
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    peft = PeftModel.from_pretrained(base, tmp_path / "a0", adapter_name="a0")
    peft.load_adapter(tmp_path / "a1", adapter_name="a1")
    peft.add_weighted_adapter(["a0", "a1"], [0.8, -0.3], "sum", combination_type="linear")
    peft.set_adapter("sum")
    expected = answer(peft)
    merge(
        tmp_path / "a0", tmp_path / "a1", out=tmp_path / "m", method="peft_factor_linear", weight=(0.8, -0.3)
    )
    merged = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "m")
    torch.testing.assert_close(answer(merged), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", [llama, gpt2, llava])
@pytest.mark.filterwarnings("ignore")
def test_a_lora_extracted_from_two_models_turns_one_into_the_other(make, tmp_path):
    torch.manual_seed(0)
    model = make()
    model.save_pretrained(tmp_path / "base")
    targets = {"gpt2": ["c_attn", "c_proj"], "llava": ["q_proj", "linear_2"]}.get(
        model.config.model_type, "all-linear"
    )
    fan = model.config.model_type == "gpt2"
    trained(model, 5, target_modules=targets, fan_in_fan_out=fan).merge_and_unload().save_pretrained(
        tmp_path / "tuned"
    )
    merge(
        tmp_path / "tuned",
        base=str(tmp_path / "base"),
        method="task_arithmetic",
        extract=True,
        rank=4,
        out=tmp_path / "x",
    )
    peft = PeftModel.from_pretrained(type(model).from_pretrained(tmp_path / "base"), tmp_path / "x")
    tuned = type(model).from_pretrained(tmp_path / "tuned")
    torch.testing.assert_close(answer(peft), answer(tuned), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_language_models_lora_is_folded_into_a_multimodal_model(tmp_path):
    torch.manual_seed(0)
    llava().save_pretrained(tmp_path / "mllm")
    trained(llama(), 1, target_modules=["q_proj"]).save_pretrained(tmp_path / "adapter")
    merge(tmp_path / "adapter", base=str(tmp_path / "mllm"), out=tmp_path / "out")
    before = LlavaForConditionalGeneration.from_pretrained(tmp_path / "mllm").state_dict()
    after = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out").state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {f"model.language_model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)}


@pytest.mark.filterwarnings("ignore")
def test_changes_of_tied_embeddings_are_refused(tmp_path):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**TEXT, tie_word_embeddings=True))
    model.save_pretrained(tmp_path / "base")
    trained(model, 1, target_modules=["q_proj", "embed_tokens"]).save_pretrained(tmp_path / "adapter")
    with pytest.raises(InputError, match="ties to its head"):
        merge(tmp_path / "adapter", base=str(tmp_path / "base"), out=tmp_path / "out")
