"""Models of other families than priorkit's presets, as users bring them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoProcessor,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from priorkit.core.artifact import open_artifact
from priorkit.core.errors import InputError, UsageError
from priorkit.models.language.causal_lm import build_config, build_llm, check_llm, load_llm, preset_fields
from priorkit.models.language.tokenizer import load_tokenizer, train_bpe
from priorkit.models.vision.building import build_encoder
from priorkit.models.vision.loading import load_encoder

SHORT = ("--steps", 2, "--batch-size", 4, "--precision", "fp32", "--device", "cpu")


@pytest.fixture(scope="module")
def tokenizer(artifacts) -> PreTrainedTokenizerFast:
    """One in GPT-2's manner: a single special token, no padding, no chat template, no image token."""
    documents = [json.loads(line)["text"] for line in artifacts.facts.read_text().splitlines()]
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers import decoders, trainers

    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>"]
    inner.train_from_iterator(
        documents, trainers.BpeTrainer(vocab_size=350, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=special[0], eos_token=special[0])


@pytest.fixture(scope="module")
def gpt2(tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=256,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(1)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain_llama(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(1)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def siglip(artifacts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("siglip")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = build_encoder(
        "pocket-tiny", ["a heron"], [Image.linear_gradient("L").convert("RGB")], 300, 1
    ).tokenizer
    config = SiglipConfig(
        text_config={**tower, "vocab_size": len(text), "max_position_embeddings": 16, "projection_size": 16},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
    )
    torch.manual_seed(1)
    SiglipModel(config).save_pretrained(folder)
    text.model_max_length = 16
    text.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_sizes_have_the_same_names_in_every_family(gpt2: Path) -> None:
    config = check_llm(gpt2)
    assert (config["hidden_size"], config["max_position_embeddings"], config["n_embd"]) == (32, 256, 32)


@pytest.mark.parametrize("packing", ["concat", "best-fit-decreasing"])
def test_a_gpt2_with_dropout_continues_pretraining(
    artifacts, cli, gpt2: Path, tmp_path: Path, packing: str
) -> None:
    mixed = cli(
        "mix", f"f={artifacts.facts}", "--tokenizer", gpt2, "--context-length", 64, "--packing", packing,
        "--out", tmp_path / "corpus",
    )  # fmt: skip
    assert mixed.code == 0, mixed.err
    digests = set()
    for name in "ab":
        found = cli("pretrain", mixed.path, "--from", gpt2, *SHORT, "--out", tmp_path / name)
        assert found.code == 0, found.err
        digests.add(open_artifact(found.path).digest)
    assert len(digests) == 1


def test_a_plain_llama_gets_an_image_token_and_a_template(
    artifacts, cli, plain_llama: Path, tmp_path: Path
) -> None:
    found = cli(
        "align", plain_llama, artifacts.encoder, artifacts.captions, *SHORT, "--out", tmp_path / "mllm"
    )
    assert found.code == 0, found.err
    model = LlavaForConditionalGeneration.from_pretrained(found.path)
    processor = AutoProcessor.from_pretrained(found.path)
    place = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert place == model.config.image_token_id
    assert model.get_input_embeddings().weight.shape[0] >= len(processor.tokenizer)
    assert processor.tokenizer("<image>")["input_ids"] == [place]
    assert processor.chat_template
    tuned = cli("tune", found.path, artifacts.instructions, *SHORT, "--out", tmp_path / "tuned")
    assert tuned.code == 0, tuned.err


def test_siglip_is_an_encoder_for_every_step(artifacts, cli, siglip: Path, tmp_path: Path) -> None:
    ranks = cli("rank-e", siglip, artifacts.images, "--device", "cpu", "--out", tmp_path / "ranks")
    assert ranks.code == 0, ranks.err
    better = cli("distill-encoder", siglip, artifacts.images, *SHORT, "--out", tmp_path / "better")
    assert better.code == 0, better.err
    AutoModel.from_pretrained(better.path)
    aligned = cli("align", artifacts.llm, better.path, artifacts.captions, *SHORT, "--out", tmp_path / "mllm")
    assert aligned.code == 0, aligned.err
    model = LlavaForConditionalGeneration.from_pretrained(aligned.path)
    assert model.config.vision_feature_select_strategy == "full"
    assert model.config.image_seq_length == 16


def test_siglips_features_are_those_of_transformers(siglip: Path) -> None:
    from PIL import Image

    ours = load_encoder(siglip)
    theirs, processor = (
        SiglipModel.from_pretrained(siglip).eval(),
        SiglipImageProcessor.from_pretrained(siglip),
    )
    image = Image.effect_noise((50, 40), 80).convert("RGB")
    with torch.no_grad():
        values = processor(images=image, return_tensors="pt")
        expected = theirs.get_image_features(**values).pooler_output
        torch.testing.assert_close(
            ours.image_features(ours.prepare(image)[None]), expected, rtol=1e-4, atol=1e-5
        )
        assert ours.tokenize(["a heron"])["input_ids"].shape == (1, 16)


def test_configurations_are_checked_against_the_tokenizer(artifacts) -> None:
    tokenizer = load_tokenizer(artifacts.tokenizer)
    with pytest.raises(UsageError, match="vocab_size 100 is smaller than the tokenizer's"):
        build_config({**preset_fields("pocket-tiny"), "vocab_size": 100}, tokenizer)
    with pytest.raises(UsageError, match="not valid"):
        build_config({"model_type": "lama"}, tokenizer)
    with pytest.raises(UsageError, match="did you mean 'pocket'"):
        preset_fields("pocke")
    config = build_config({**preset_fields("pocket-tiny"), "architectures": ["X"]}, tokenizer)
    assert (config.eos_token_id, config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    one, two = (build_llm(config, 5).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_weights_that_do_not_fit_are_refused(artifacts, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(artifacts.llm / "model.safetensors")
    (tmp_path / "config.json").write_text((artifacts.llm / "config.json").read_text())
    removed = {name: value for name, value in tensors.items() if "layers.1.mlp.up_proj" not in name}
    save_file(removed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 tensors are missing or of another shape, such as .*up_proj"):
        load_llm(tmp_path)
    reshaped = {**tensors, "model.norm.weight": torch.zeros(3)}
    save_file(reshaped, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"1 tensors are missing or of another shape, such as model\.norm\.weight"
    ):
        load_llm(tmp_path)


def test_tokenizers_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_tokenizer(tmp_path)
    with pytest.raises(InputError, match="no text"):
        train_bpe([""], 400)


def test_digits_are_single_tokens(artifacts) -> None:
    tokenizer = AutoTokenizer.from_pretrained(artifacts.tokenizer)
    assert [tokenizer.decode([i]) for i in tokenizer("1984", add_special_tokens=False)["input_ids"]] == list(
        "1984"
    )
