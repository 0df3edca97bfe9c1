"""Folded models and merged adapters against PEFT itself, on small random models of several families."""

from __future__ import annotations

import json
import random

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
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


def random_options(draw, kind):
    """LoRA options that PEFT accepts, at random; None for the options of ``save_pretrained``."""
    transposed = kind == "gpt2"
    modules = (
        ["c_attn", "c_proj", "c_fc"]
        if transposed
        else ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    embedding, norm = ("wte", "ln_f") if transposed else ("embed_tokens", "norm")
    targets = draw.sample([*modules, embedding, "lm_head"], draw.randint(1, 4))
    saved = [name for name in (embedding, "lm_head", norm) if name not in targets and draw.random() < 0.3]
    layer = "h.1" if transposed else "layers.1"
    options = {
        "r": draw.choice([2, 3, 5]),
        "lora_alpha": draw.choice([2, 7]),
        "target_modules": targets,
        "modules_to_save": saved or None,
        "use_rslora": draw.random() < 0.3,
        "fan_in_fan_out": draw.random() < 0.5,
        "bias": draw.choice(["none", "lora_only"] if transposed else ["none"]),
    }
    if targets[0] in modules:
        options["rank_pattern"] = {f"{layer}.*{targets[0]}": 4} if draw.random() < 0.5 else {}
        options["alpha_pattern"] = {targets[0]: 3} if draw.random() < 0.5 else {}
        options["exclude_modules"] = [f"{layer}.self_attn.{targets[0]}"] if draw.random() < 0.3 else None
    return options, {"save_embedding_layers": draw.choice([True, False, "auto"])}


def random_base(draw, folder):
    torch.manual_seed(draw.randrange(100))
    kind, tied = draw.choice(["llama", "llama", "gpt2"]), draw.random() < 0.5
    if kind == "gpt2":
        fields = {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4}
        model = GPT2LMHeadModel(GPT2Config(**fields, tie_word_embeddings=tied))
    else:
        model = LlamaForCausalLM(LlamaConfig(**TEXT, tie_word_embeddings=tied))
    model.save_pretrained(folder)
    return kind, type(model)


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.filterwarnings("ignore")
def test_random_adapters_fold_as_peft_applies_them(seed, tmp_path):
    draw = random.Random(seed)
    kind, model = random_base(draw, tmp_path / "base")
    options, saving = random_options(draw, kind)
    options["use_dora"] = draw.random() < 0.3 and "lm_head" not in options["target_modules"]
    trained(model.from_pretrained(tmp_path / "base"), seed, **options).save_pretrained(
        tmp_path / "adapter", **saving
    )
    expected = answer(
        PeftModel.from_pretrained(model.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    )
    merge(tmp_path / "adapter", base=str(tmp_path / "base"), out=tmp_path / "out")
    folded, info = model.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    torch.testing.assert_close(answer(folded), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.filterwarnings("ignore")
def test_random_adapters_join_to_the_sum_of_their_deltas_in_peft(seed, tmp_path):
    draw = random.Random(1000 + seed)
    kind, model = random_base(draw, tmp_path / "base")
    base = model.from_pretrained(tmp_path / "base").state_dict()
    total = {name: torch.zeros_like(values) for name, values in base.items()}
    for number in range(2):
        options, _ = random_options(draw, kind)
        options |= {"modules_to_save": None, "bias": "none"}
        options["target_modules"] = [
            name for name in options["target_modules"] if name not in ("wte", "embed_tokens", "lm_head")
        ] or ["c_attn" if kind == "gpt2" else "v_proj"]
        adapter = tmp_path / f"adapter{number}"
        trained(model.from_pretrained(tmp_path / "base"), number, **options).save_pretrained(adapter)
        total = added(total, deltas(model, tmp_path / "base", adapter, base))
    inputs = (tmp_path / "adapter0", tmp_path / "adapter1")
    merge(*inputs, out=tmp_path / "joined", method="task_arithmetic")
    found = deltas(model, tmp_path / "base", tmp_path / "joined", base)
    for name, values in total.items():
        torch.testing.assert_close(found[name], values, rtol=0, atol=1e-5)


def deltas(model, base_folder, adapter, base):
    """What PEFT makes of an adapter, as differences from the base."""
    peft = PeftModel.from_pretrained(model.from_pretrained(base_folder), adapter)
    return {name: values - base[name] for name, values in peft.merge_and_unload().state_dict().items()}


def added(one, other):
    return {name: one[name] + other[name] for name in one}


@pytest.mark.filterwarnings("ignore")
def test_trained_biases_are_kept_when_adapters_are_joined(tmp_path):
    torch.manual_seed(0)
    gpt2().save_pretrained(tmp_path / "base")
    for number in range(2):
        model = GPT2LMHeadModel.from_pretrained(tmp_path / "base")
        options = {"target_modules": ["c_attn"], "bias": "all", "fan_in_fan_out": True}
        trained(model, number, **options).save_pretrained(tmp_path / f"a{number}")
    merge(tmp_path / "a0", tmp_path / "a1", out=tmp_path / "joined")
    merge(tmp_path / "a0", tmp_path / "a1", base=str(tmp_path / "base"), out=tmp_path / "folded")
    joined = PeftModel.from_pretrained(
        GPT2LMHeadModel.from_pretrained(tmp_path / "base"), tmp_path / "joined"
    )
    folded = GPT2LMHeadModel.from_pretrained(tmp_path / "folded")
    torch.testing.assert_close(answer(joined), answer(folded), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_original_modules_saved_along_are_ignored(tmp_path):
    torch.manual_seed(0)
    llama().save_pretrained(tmp_path / "base")
    peft = trained(
        llama_of(tmp_path / "base"), 1, target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"]
    )
    peft.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    merge(tmp_path / "adapter", base=str(tmp_path / "base"), out=tmp_path / "out")
    torch.testing.assert_close(answer(llama_of(tmp_path / "out")), answer(peft), rtol=0, atol=1e-5)


def llama_of(folder):
    return LlamaForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize(
    "fields", [("lora_alpha",), ("fan_in_fan_out", "use_rslora", "bias", "alpha_pattern")]
)
@pytest.mark.filterwarnings("ignore")
def test_fields_that_a_configuration_lacks_have_pefts_defaults(fields, tmp_path):
    torch.manual_seed(0)
    llama().save_pretrained(tmp_path / "base")
    trained(llama_of(tmp_path / "base"), 1, target_modules=["q_proj"], r=3).save_pretrained(
        tmp_path / "adapter"
    )
    file = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in config.items() if key not in fields}))
    expected = answer(PeftModel.from_pretrained(llama_of(tmp_path / "base"), tmp_path / "adapter"))
    merge(tmp_path / "adapter", base=str(tmp_path / "base"), out=tmp_path / "out")
    torch.testing.assert_close(answer(llama_of(tmp_path / "out")), expected, rtol=0, atol=1e-5)


def saved_as(folder, form, seed):
    """A model whose file and configuration treat the head in one of four ways."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**TEXT, tie_word_embeddings=form != "untied"))
    model.save_pretrained(folder)
    if form in ("repeated", "different"):
        tensors = load_file(folder / "model.safetensors")
        head = tensors["model.embed_tokens.weight"].clone()
        tensors["lm_head.weight"] = head + torch.randn_like(head) if form == "different" else head
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


FORMS = ("tied", "repeated", "different", "untied")


@pytest.mark.parametrize("second", FORMS)
@pytest.mark.parametrize("first", FORMS)
def test_tied_and_untied_models_merge_as_transformers_loads_them(first, second, tmp_path):
    saved_as(tmp_path / "0", first, 0)
    saved_as(tmp_path / "1", second, 1)
    for number, weights in enumerate(((1.0, 0.0), (0.0, 1.0))):
        merge(tmp_path / "0", tmp_path / "1", weight=weights, out=tmp_path / f"out{number}")
        merged = llama_of(tmp_path / f"out{number}")
        torch.testing.assert_close(
            answer(merged), answer(llama_of(tmp_path / str(number))), rtol=0, atol=1e-5
        )
    tied = "lm_head.weight" not in load_file(tmp_path / "out0" / "model.safetensors")
    assert tied == (first in FORMS[:2] and second in FORMS[:2])
    assert json.loads((tmp_path / "out0" / "config.json").read_text())["tie_word_embeddings"] == tied
