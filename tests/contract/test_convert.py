"""``priorkit convert`` as its users meet it: every format on a small model, bad input, hints of other steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.small_artifacts import run_in_process as cli

GOLDEN = Path(__file__).parents[1] / "golden"
LLAMA, CLIP, OPEN_CLIP = GOLDEN / "tiny-llama", GOLDEN / "tiny-clip", GOLDEN / "open_clip"


def pickled(source: Path, target: Path, name: str = "pytorch_model.bin", **changes) -> Path:
    """A copy of a model folder with its weights as a PyTorch file; None drops a tensor."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors", "images"))
    tensors = {**load_file(source / "model.safetensors"), **changes}
    torch.save({key: value for key, value in tensors.items() if value is not None}, target / name)
    return target


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def kind(folder: Path) -> str:
    return json.loads((folder / "priorkit.json").read_text())["kind"]


@pytest.mark.parametrize(("source", "expected"), [(LLAMA, "llm"), (CLIP, "encoder")])
def test_a_folder_of_transformers_keeps_its_tensors(tmp_path, source, expected):
    result = cli("convert", pickled(source, tmp_path / "old"), "--out", tmp_path / "new")
    assert result.code == 0, result.err
    assert same(weights_of(tmp_path / "new"), load_file(source / "model.safetensors"))
    assert kind(tmp_path / "new") == expected
    assert (tmp_path / "new" / "tokenizer.json").is_file()
    assert cli("convert", tmp_path / "old", "--out", tmp_path / "new").err.endswith("up to date\n")


def test_shards_are_joined_and_types_changed(tmp_path):
    folder, tensors = pickled(LLAMA, tmp_path / "old"), load_file(LLAMA / "model.safetensors")
    (folder / "pytorch_model.bin").unlink()
    names = sorted(tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, members in shards.items():
        torch.save({name: tensors[name] for name in members}, folder / file)
    index = {"weight_map": {name: file for file, members in shards.items() for name in members}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert cli("convert", folder, "--dtype", "bfloat16", "--out", tmp_path / "new").code == 0
    assert same(weights_of(tmp_path / "new"), {name: tensor.bfloat16() for name, tensor in tensors.items()})
    assert json.loads((tmp_path / "new" / "config.json").read_text())["dtype"] == "bfloat16"
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    result = cli("convert", folder, "--out", tmp_path / "other")
    assert result.code == 3
    assert "names pytorch_model-00002-of-00002.bin, which is not here" in result.err


def test_a_bare_state_dict_takes_the_rest_from_a_model(tmp_path):
    tensors = load_file(LLAMA / "model.safetensors")
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": {f"module.{name}": tensor for name, tensor in tensors.items()}, "step": 9}, path)
    result = cli("convert", path, "--out", tmp_path / "new")
    assert (result.code, "--config" in result.err) == (3, True)
    assert cli("convert", path, "--config", LLAMA, "--out", tmp_path / "new").code == 0
    assert same(weights_of(tmp_path / "new"), tensors)


def test_tied_weights_are_stored_once(tmp_path):
    folder = pickled(LLAMA, tmp_path / "old")
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = torch.load(folder / "pytorch_model.bin")
    torch.save(
        {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}, folder / "pytorch_model.bin"
    )
    assert cli("convert", folder, "--out", tmp_path / "new").code == 0
    assert weights_of(tmp_path / "new").keys() == tensors.keys() - {"lm_head.weight"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.norm.weight": None}, "1 tensors are missing or of another shape, such as model.norm.weight"),
        ({"model.norm.weight": torch.ones(3)}, "1 tensors are missing or of another shape"),
        (
            {"model.norm.weight": torch.full((64,), float("inf"))},
            "tensor model.norm.weight: holds NaN or infinite",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, changes, message):
    if (value := changes["model.norm.weight"]) is not None and value.isinf().any():
        changes = {
            "model.norm.weight": load_file(LLAMA / "model.safetensors")["model.norm.weight"] * float("inf")
        }
    result = cli("convert", pickled(LLAMA, tmp_path / "old", **changes), "--out", tmp_path / "new")
    assert result.code == 3
    assert message in result.err
    assert not (tmp_path / "new").exists()


def test_an_adapter_of_peft_keeps_its_names(tmp_path):
    source = GOLDEN / "lora" / "adapter_a"
    shutil.copytree(source, tmp_path / "old")
    tensors = load_file(source / "adapter_model.safetensors")
    (tmp_path / "old" / "adapter_model.safetensors").unlink()
    torch.save(tensors, tmp_path / "old" / "adapter_model.bin")
    result = cli("merge-adapters", tmp_path / "old", "--out", tmp_path / "merged")
    assert (result.code, f"priorkit convert {tmp_path / 'old'}" in result.err) == (3, True)
    assert cli("convert", tmp_path / "old", "--out", tmp_path / "new").code == 0
    assert kind(tmp_path / "new") == "adapter"
    assert same(load_file(tmp_path / "new" / "adapter_model.safetensors"), tensors)


@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_open_clip_gives_the_features_of_open_clip(tmp_path, file):
    folder = tmp_path / "old"
    folder.mkdir()
    shutil.copy(OPEN_CLIP / "open_clip_config.json", folder)
    tensors = load_file(OPEN_CLIP / "open_clip_model.safetensors")
    (torch.save if file.endswith(".bin") else save_file)(tensors, folder / file)
    result = cli("convert", folder, "--tokenizer", CLIP, "--out", tmp_path / "new")
    assert result.code == 0, result.err
    from transformers import CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(tmp_path / "new").eval()
    expected = json.loads((OPEN_CLIP / "expected.json").read_text())
    generator = torch.Generator().manual_seed(expected["pixel_seed"])
    pixels, ids = torch.randn(2, 3, 28, 28, generator=generator), torch.tensor(expected["input_ids"])
    with torch.no_grad():
        images, texts = model.get_image_features(pixels), model.get_text_features(ids)
    for output, name in ((images, "image_features"), (texts, "text_features")):
        features = getattr(output, "pooler_output", output)
        torch.testing.assert_close(features, torch.tensor(expected[name]), rtol=1e-4, atol=1e-5)
    processor = CLIPProcessor.from_pretrained(tmp_path / "new")
    assert dict(processor.image_processor.size) == {"height": 28, "width": 28}
    assert list(processor.image_processor.image_std) == [0.25, 0.25, 0.25]
    assert processor.tokenizer.model_max_length == 12


def test_open_clip_models_that_are_no_plain_clip_are_refused(tmp_path):
    shutil.copytree(OPEN_CLIP, tmp_path / "old")
    config = json.loads((OPEN_CLIP / "open_clip_config.json").read_text())
    result = cli("convert", tmp_path / "old", "--out", tmp_path / "new")
    assert (result.code, "name CLIP's with --tokenizer" in result.err) == (3, True)
    for part, change in (
        ("vision_cfg", {"timm_model_name": "convnext_base"}),
        ("text_cfg", {"hf_model_name": "x"}),
    ):
        changed = json.loads(json.dumps(config))
        changed["model_cfg"][part] |= change
        (tmp_path / "old" / "open_clip_config.json").write_text(json.dumps(changed))
        result = cli("convert", tmp_path / "old", "--tokenizer", CLIP, "--out", tmp_path / "new")
        assert result.code == 3
        assert f"{part}.{next(iter(change))}" in result.err
    config["model_cfg"]["text_cfg"]["vocab_size"] = 550
    (tmp_path / "old" / "open_clip_config.json").write_text(json.dumps(config))
    result = cli("convert", tmp_path / "old", "--tokenizer", CLIP, "--out", tmp_path / "new")
    assert (result.code, "missing or of another shape" in result.err) == (3, True)


def test_clips_tokenizer_is_read_from_its_file_of_merges(tmp_path):
    import gzip

    from priorkit.conversion.open_clip_tokenizers import clip_tokenizer

    lines = ["#version: 0.2", "r e", "re d</w>", "a t</w>", "c at</w>"]
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    tokenizer = clip_tokenizer(path, 77, 512 + 4 + 2)
    ids = tokenizer("red cat")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<|startoftext|>", "red</w>", "cat</w>", "<|endoftext|>"]
    assert ids == [516, 513, 515, 517]


def original_llava(folder: Path, projector: str, tuned_tower: bool) -> dict[str, torch.Tensor]:
    """A checkpoint as the original code saves it, on the golden Llama and CLIP."""
    shutil.copytree(LLAMA, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_file(LLAMA / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    width, image_width = tensors["model.embed_tokens.weight"].shape[1], 32
    shapes = {
        "0.weight": (width, image_width),
        "0.bias": (width,),
        "2.weight": (width, width),
        "2.bias": (width,),
    }
    if projector == "linear":
        shapes = {"weight": (width, image_width), "bias": (width,)}
    for name, shape in shapes.items():
        tensors[f"model.mm_projector.{name}"] = torch.randn(shape, generator=generator) / 8
    if tuned_tower:
        clip = load_file(CLIP / "model.safetensors")
        for name, tensor in clip.items():
            if name.startswith("vision_model."):
                tensors[f"model.vision_tower.vision_tower.{name}"] = tensor + 0.01
    torch.save(tensors, folder / "pytorch_model.bin")
    config = json.loads((LLAMA / "config.json").read_text()) | {
        "model_type": "llava",
        "architectures": ["LlavaLlamaForCausalLM"],
        "mm_vision_tower": "openai/tiny-clip",
        "mm_projector_type": projector,
        "mm_hidden_size": image_width,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "image_aspect_ratio": "pad",
        "use_mm_proj": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


@pytest.mark.parametrize(("projector", "tuned"), [("mlp2x_gelu", False), ("linear", True)])
def test_an_original_llava_computes_what_its_parts_compute(tmp_path, projector, tuned):
    tensors = original_llava(tmp_path / "old", projector, tuned)
    result = cli("convert", tmp_path / "old", "--encoder", CLIP, "--out", tmp_path / "new")
    assert result.code == 0, result.err
    from PIL import Image
    from transformers import AutoModelForCausalLM, CLIPModel

    from priorkit.models.multimodal.llava import load_llava

    llava = load_llava(tmp_path / "new")
    assert kind(tmp_path / "new") == "mllm"
    clip = CLIPModel.from_pretrained(CLIP).eval()
    if tuned:
        with torch.no_grad():
            for parameter in clip.vision_model.parameters():
                parameter.add_(0.01)
    pixels = llava.prepare(Image.effect_noise((40, 24), 60).convert("RGB"))[None]
    with torch.no_grad():
        features = llava.patch_features(pixels)
        values = llava._preprocessing.normalize(pixels)
        states = clip.vision_model(values, output_hidden_states=True).hidden_states
        torch.testing.assert_close(features, states[-2][:, 1:], rtol=1e-4, atol=1e-5)
        projected = llava.model.model.multi_modal_projector(features)
        expected = (
            features @ tensors.get("model.mm_projector.0.weight", tensors.get("model.mm_projector.weight")).T
        )
        expected = expected + tensors.get("model.mm_projector.0.bias", tensors.get("model.mm_projector.bias"))
        if projector != "linear":
            expected = torch.nn.functional.gelu(expected) @ tensors["model.mm_projector.2.weight"].T
            expected = expected + tensors["model.mm_projector.2.bias"]
        torch.testing.assert_close(projected, expected, rtol=1e-4, atol=1e-5)
        language = AutoModelForCausalLM.from_pretrained(LLAMA).eval()
        ids = torch.arange(3, 20)[None]
        logits = llava.logits(llava.hidden(ids, torch.ones_like(ids), None).last_hidden_state)
        torch.testing.assert_close(
            logits[..., : language.vocab_size], language(ids).logits, rtol=1e-4, atol=1e-4
        )
    text = llava.tokenizer.apply_chat_template(
        [{"role": "user", "content": "<image>\nWhat?"}], tokenize=False
    )
    assert text.startswith("A chat between a curious user") or "<image>" in text
    assert llava.processor.image_processor.do_pad


def test_original_llavas_that_transformers_has_not_are_refused(tmp_path):
    original_llava(tmp_path / "old", "mlp2x_gelu", tuned_tower=False)
    result = cli("convert", tmp_path / "old", "--out", tmp_path / "new")
    assert (result.code, "name it: --encoder openai/tiny-clip" in result.err) == (3, True)
    path = tmp_path / "old" / "config.json"
    config = json.loads(path.read_text())
    for change, message in (
        ({"mm_projector_type": "resampler"}, "no projector 'resampler'"),
        ({"image_aspect_ratio": "anyres"}, "several crops of an image"),
        ({"model_type": "llava_mpt"}, "a LLaVA on 'llava_mpt' cannot be converted"),
    ):
        path.write_text(json.dumps(config | change))
        result = cli("convert", tmp_path / "old", "--encoder", CLIP, "--out", tmp_path / "new")
        assert (result.code, message in result.err) == (3, True), result.err


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection as llama.cpp orders them: rotated pairs next to each other."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, quantized: bool) -> None:
    """The golden Llama as llama.cpp's converter writes it, with one token more in its byte-level vocabulary."""
    import gguf

    config = json.loads((LLAMA / "config.json").read_text())
    tensors = {
        name: tensor.float().numpy() for name, tensor in load_file(LLAMA / "model.safetensors").items()
    }
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"] + 1)
    tokenizer = json.loads((LLAMA / "tokenizer.json").read_text())
    words = {
        **tokenizer["model"]["vocab"],
        **{token["content"]: token["id"] for token in tokenizer["added_tokens"]},
    }
    ordered = sorted(words, key=words.get)
    writer.add_tokenizer_model("gpt2")
    assert len(ordered) == config["vocab_size"]
    writer.add_token_list([*ordered, "th"])
    writer.add_token_types([3 if word in ("<s>", "</s>", "<pad>") else 1 for word in [*ordered, "th"]])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(config.get("bos_token_id") or 0)
    writer.add_eos_token_id(config.get("eos_token_id") or 0)
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    outside = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, values in tensors.items():
        module = name.removesuffix(".weight")
        if module in outside:
            new = outside[module]
            if module != "model.norm":
                values = np.concatenate([values, values[:1]])
        else:
            _, _, number, part = module.split(".", 3)
            new = f"blk.{number}.{names[part]}"
            if names[part] in ("attn_q", "attn_k"):
                key = "num_attention_heads" if names[part] == "attn_q" else "num_key_value_heads"
                values = permuted(values, config[key])
        if quantized and values.ndim == 2 and values.shape[1] % 32 == 0:
            packed = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(f"{new}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(f"{new}.weight", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("quantized", [False, True])
def test_gguf_is_dequantized(tmp_path, quantized):
    pytest.importorskip("gguf", reason="needs the extra [convert]")
    write_gguf(tmp_path / "tiny.gguf", quantized)
    result = cli("convert", tmp_path / "tiny.gguf", "--out", tmp_path / "new")
    assert result.code == 0, result.err
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "new").eval()
    original = AutoModelForCausalLM.from_pretrained(LLAMA).eval()
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        difference = (model(ids).logits[..., : original.vocab_size] - original(ids).logits).abs().max()
    assert quantized or difference < 1e-4
    expected = original.state_dict()
    for name, tensor in model.state_dict().items():
        wanted = expected[name]
        # Q8_0 rounds to a 127th of the largest value in a block of 32.
        step = wanted.abs().max() / 127 if quantized else 1e-6
        assert (tensor[: len(wanted)] - wanted).abs().max() <= step, name
    assert kind(tmp_path / "new") == "llm"
    assert "quantization_config" not in json.loads((tmp_path / "new" / "config.json").read_text())
    plain, new = (AutoTokenizer.from_pretrained(folder) for folder in (LLAMA, tmp_path / "new"))
    ids = new("A cat, 12 dogs.", add_special_tokens=False)["input_ids"]
    assert ids == plain("A cat, 12 dogs.", add_special_tokens=False)["input_ids"]
    assert new.convert_ids_to_tokens(new("the", add_special_tokens=False)["input_ids"]) == ["th", "e"]
    assert new("</s>", add_special_tokens=False)["input_ids"] == [new.eos_token_id]


def test_gguf_that_is_truncated_or_in_parts_is_refused(tmp_path):
    pytest.importorskip("gguf", reason="needs the extra [convert]")
    write_gguf(tmp_path / "tiny.gguf", quantized=False)
    content = (tmp_path / "tiny.gguf").read_bytes()
    for share in (0.1, 0.5, 0.98):
        (tmp_path / "cut.gguf").write_bytes(content[: int(len(content) * share)])
        result = cli("convert", tmp_path / "cut.gguf", "--out", tmp_path / "new")
        assert (result.code, "truncated or damaged" in result.err) == (3, True), result.err
    (tmp_path / "tiny-00001-of-00002.gguf").write_bytes(content)
    result = cli("convert", tmp_path / "tiny-00001-of-00002.gguf", "--out", tmp_path / "new")
    assert (result.code, "one of several parts" in result.err) == (3, True)


def test_gguf_needs_its_package(tmp_path, monkeypatch):
    from priorkit.conversion import gguf

    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(100))
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    result = cli("convert", tmp_path / "a.gguf", "--out", tmp_path / "new")
    assert (result.code, "priorkit[convert]" in result.err) == (4, True)
    (tmp_path / "b.gguf").write_bytes(b"junk" * 30)
    assert "not a GGUF file" in cli("convert", tmp_path / "b.gguf", "--out", tmp_path / "new").err


def test_input_that_cannot_be_converted_is_refused(tmp_path):
    def refused(*arguments):
        result = cli("convert", *arguments, "--out", tmp_path / "new")
        assert result.code in (2, 3)
        return result.err

    (tmp_path / "empty").mkdir()
    assert "no weights here" in refused(tmp_path / "empty")
    assert "safetensors already" in refused(LLAMA)
    (tmp_path / "w.onnx").write_bytes(b"x")
    assert "no format of weights that is known" in refused(tmp_path / "w.onnx")
    folder = pickled(LLAMA, tmp_path / "old")
    assert "--encoder: has no effect on weights in the format transformers" in refused(
        folder, "--encoder", CLIP
    )
    (folder / "config.json").unlink()
    assert "no config.json with these weights" in refused(folder)
    torch.save({}, folder / "pytorch_model.bin")
    shutil.copy(LLAMA / "config.json", folder)
    assert "no state dict in this file" in refused(folder)


def test_other_steps_name_the_command(tmp_path):
    folder = pickled(CLIP, tmp_path / "clip")
    result = cli("rank-e", folder, CLIP / "images", "--out", tmp_path / "scores")
    assert result.code == 3
    assert f"convert pytorch_model.bin first: priorkit convert {folder} --out MODEL" in result.err
    cached = tmp_path / "models--lmsys--vicuna-7b-v1.5" / "snapshots" / "abc"
    shutil.copytree(LLAMA, cached, ignore=shutil.ignore_patterns("*.safetensors"))
    result = cli("align", cached, CLIP, CLIP / "images", "--out", tmp_path / "aligned")
    assert "priorkit convert lmsys/vicuna-7b-v1.5 --out MODEL" in result.err


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_the_image_tower_of_blip_2_becomes_an_encoder_that_align_takes(tmp_path, file):
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2VisionConfig,
        BlipImageProcessor,
        OPTConfig,
    )

    torch.manual_seed(0)
    vision = Blip2VisionConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    text = OPTConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=20,
                     word_embed_proj_dim=16, max_position_embeddings=32)  # fmt: skip
    qformer = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20,
               "encoder_hidden_size": 24, "vocab_size": 30}  # fmt: skip
    model = Blip2ForConditionalGeneration(
        Blip2Config(vision_config=vision, qformer_config=qformer, text_config=text)
    )
    model.save_pretrained(tmp_path / "blip")
    BlipImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path / "blip")
    if file.endswith(".bin"):
        torch.save(load_file(tmp_path / "blip" / "model.safetensors"), tmp_path / "blip" / file)
        (tmp_path / "blip" / "model.safetensors").unlink()
    result = cli("convert", tmp_path / "blip", "--part", "vision", "--out", tmp_path / "new")
    assert result.code == 0, result.err
    assert kind(tmp_path / "new") == "encoder"
    from priorkit.models.vision.loading import load_encoder

    encoder = load_encoder(tmp_path / "new", text=False)
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        expected = model.vision_model(pixels, output_hidden_states=True).hidden_states
        found = encoder.model(pixels, output_hidden_states=True).hidden_states
    assert len(found) == 4
    torch.testing.assert_close(found, expected)
    assert "has no image tower" in cli("convert", LLAMA, "--part", "vision", "--out", tmp_path / "no").err
    assert (
        cli(
            "convert", tmp_path / "blip", "--part", "vision", "--config", LLAMA, "--out", tmp_path / "no"
        ).code
        == 2
    )
