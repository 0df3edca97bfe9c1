"""A pretrained Q-Former: its tensors as transformers saves them, and every size that does not fit refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    OPTConfig,
)

from priorkit.architectures.lion.pretrained_qformer import (
    WORDS,
    PretrainedQueries,
    check_queries,
    load_queries,
)
from priorkit.core.errors import InputError
from tests.support.lion_models import FIELDS, build_lion

VISION = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}
QFORMER = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 30,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
TEXT = OPTConfig(
    vocab_size=60,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    ffn_dim=20,
    word_embed_proj_dim=16,
    max_position_embeddings=32,
)


def instructblip(folder: Path, width: int = 24, queries: int = 3, **changes: object) -> Path:
    torch.manual_seed(1)
    config = InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(**{**VISION, "hidden_size": width}),
        qformer_config=InstructBlipQFormerConfig(**{**QFORMER, "encoder_hidden_size": width, **changes}),
        text_config=TEXT,
        num_query_tokens=queries,
    )
    model = InstructBlipForConditionalGeneration(config)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape) * 0.2)
    model.save_pretrained(folder)
    return folder


def blip2(folder: Path, width: int) -> Path:
    torch.manual_seed(2)
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**{**VISION, "hidden_size": width}),
        qformer_config=Blip2QFormerConfig(**{**QFORMER, "encoder_hidden_size": width}),
        text_config=TEXT,
        num_query_tokens=3,
    )
    model = Blip2ForConditionalGeneration(config)
    with torch.no_grad():
        model.query_tokens.normal_()
        model.qformer.layernorm.weight.normal_()
    model.save_pretrained(folder)
    return folder


def fields_of(base, folder: Path) -> tuple[dict[str, Any], PretrainedQueries]:
    """LION's fields with what the checkpoint decides, and what was checked."""
    width = base.model.config.vision_config.hidden_size
    pretrained = check_queries(folder, FIELDS, width)
    return {"qformer": {**FIELDS["qformer"], **pretrained.fields}}, pretrained


@torch.no_grad()
def test_the_branch_computes_what_the_pretrained_q_former_computes(base, tmp_path: Path) -> None:
    width = base.model.config.vision_config.hidden_size
    folder = instructblip(tmp_path / "blip", width)
    own, pretrained = fields_of(base, folder)
    assert pretrained.fresh == (WORDS,)
    lion = build_lion(base, **own)
    branch = lion.model.model.lion.qformer
    words = branch.qformer.embeddings.word_embeddings.weight.clone()
    load_queries(branch, pretrained)
    peer = InstructBlipForConditionalGeneration.from_pretrained(folder).eval()
    assert torch.equal(branch.query_tokens, peer.query_tokens)
    assert torch.equal(branch.qformer.embeddings.word_embeddings.weight, words)
    image = torch.randn(2, 5, width)
    found = branch.qformer(
        input_ids=None,
        query_embeds=branch.query_tokens.expand(2, -1, -1),
        attention_mask=torch.ones(2, 3),
        encoder_hidden_states=image,
    )
    expected = peer.qformer(
        input_ids=None,
        query_embeds=peer.query_tokens.expand(2, -1, -1),
        attention_mask=torch.ones(2, 3),
        encoder_hidden_states=image,
    )
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state)
    # With text too, once both read the same words.
    branch.qformer.embeddings.word_embeddings.weight[:50] = peer.qformer.embeddings.word_embeddings.weight
    ids, mask = torch.randint(1, 50, (2, 4)), torch.ones(2, 7)
    both = [
        model.qformer(
            input_ids=ids,
            query_embeds=model.query_tokens.expand(2, -1, -1),
            attention_mask=mask,
            encoder_hidden_states=image,
        ).last_hidden_state
        for model in (branch, peer)
    ]
    torch.testing.assert_close(*both)


@torch.no_grad()
def test_blip_2_gives_all_but_what_reads_text(base, tmp_path: Path) -> None:
    folder = blip2(tmp_path / "blip2", base.model.config.vision_config.hidden_size)
    own, pretrained = fields_of(base, folder)
    branch = build_lion(base, **own).model.model.lion.qformer
    load_queries(branch, pretrained)
    peer = Blip2ForConditionalGeneration.from_pretrained(folder)
    assert torch.equal(branch.qformer.embeddings.layernorm.weight, peer.qformer.layernorm.weight)
    assert torch.equal(branch.query_tokens, peer.query_tokens)
    named = dict(peer.named_parameters())
    for name, value in branch.qformer.named_parameters():
        if name.startswith("encoder.") and f"qformer.{name}" not in pretrained.fresh:
            assert torch.equal(value, named[f"qformer.{name}"])
    assert all(
        ".intermediate." in name or ".output." in name or "embeddings" in name for name in pretrained.fresh
    )


def test_only_the_shards_that_hold_it_are_read(base, tmp_path: Path) -> None:
    width = base.model.config.vision_config.hidden_size
    folder = instructblip(tmp_path / "blip", width)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    own = {
        name: value for name, value in tensors.items() if name.split(".")[0] in ("qformer", "query_tokens")
    }
    save_file(own, folder / "model-00002-of-00002.safetensors")
    places = {name: f"model-0000{2 if name in own else 1}-of-00002.safetensors" for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert check_queries(folder, FIELDS, width).fresh == (WORDS,)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-00002-of-00002\.safetensors is missing"):
        check_queries(folder, FIELDS, width)


def test_all_differing_sizes_are_reported(base, tmp_path: Path) -> None:
    folder = instructblip(tmp_path / "blip", 24, queries=5, hidden_size=32, num_attention_heads=4)
    with pytest.raises(InputError) as caught:
        check_queries(folder, {**FIELDS, "instruction_length": 40}, 48)
    problems = {problem.where: problem.what for problem in caught.value.problems}
    assert problems["--queries"] == "the pretrained Q-Former has 5, expected 3"
    assert problems["--qformer-width"] == "the pretrained Q-Former has 32, expected 16"
    assert problems["--qformer-heads"] == "the pretrained Q-Former has 4, expected 2"
    assert "--qformer-layers" not in problems
    assert problems[str(folder)] == "the pretrained Q-Former reads an encoder of width 24, expected 48"
    assert "reads 30 tokens of a question, expected 40" in problems["--instruction-length"]
    tensors = load_file(folder / "model.safetensors")
    name = "qformer.encoder.layer.0.intermediate_query.dense.weight"
    tensors[name] = tensors[name][:7].contiguous()
    del tensors["qformer.encoder.layer.1.attention.attention.key.bias"]
    save_file(tensors, folder / "model.safetensors")
    fields = {
        **FIELDS,
        "queries": 5,
        "qformer": {**FIELDS["qformer"], "hidden_size": 32, "num_attention_heads": 4},
    }
    with pytest.raises(InputError) as caught:
        check_queries(folder, fields, 24)
    whats = [problem.what for problem in caught.value.problems]
    assert f"{name}: expected [20, 32], got [7, 32]" in whats
    assert "the tensor qformer.encoder.layer.1.attention.attention.key.bias is missing" in whats


def test_from_the_command_line(artifacts, cli, tmp_path: Path) -> None:
    common = (
        "--architecture", "lion", "--stage", 1, "--adapter-width", 8, "--queries", 3, "--qformer-width", 16,
        "--qformer-layers", 2, "--qformer-heads", 2, "--instruction-length", 12, "--steps", 1,
        "--batch-size", 4, "--learning-rate", 1e-9, "--device", "cpu", "--precision", "fp32",
    )  # fmt: skip
    width = json.loads((Path(artifacts.mllm) / "config.json").read_text())["vision_config"]["hidden_size"]
    folder = without_encoder(instructblip(tmp_path / "blip", width))
    out = tmp_path / "out"
    given = ("tune", artifacts.mllm, artifacts.instructions, *common, "--qformer", folder, "--out", out)
    planned = cli(*given, "--check")
    assert planned.code == 0, planned.err
    assert "tensors; word embeddings randomly initialized" in planned.err
    assert "it cannot be checked whether the Q-Former was trained on the base model's encoder" in planned.err
    done = cli(*given)
    assert done.code == 0, done.err
    written = load_file(out / "adapter_model.safetensors")
    source = load_file(folder / "model.safetensors")
    for name in ("query_tokens", "qformer.encoder.layer.0.crossattention.attention.key.weight"):
        torch.testing.assert_close(written[f"model.lion.qformer.{name}"], source[name], atol=1e-7, rtol=0)
    wrong = cli(
        "tune",
        artifacts.mllm,
        artifacts.instructions,
        *common,
        "--qformer",
        artifacts.mllm,
        "--out",
        tmp_path / "no",
    )
    assert wrong.code == 3
    assert "a Q-Former comes from a model of instructblip" in wrong.err
    other = instructblip(tmp_path / "other", width + 8)
    wrong = cli(
        "tune", artifacts.mllm, artifacts.instructions, *common, "--qformer", other, "--out", tmp_path / "no"
    )
    assert wrong.code == 3
    assert f"reads an encoder of width {width + 8}, expected {width}" in wrong.err
    none = cli(
        "tune", artifacts.mllm, artifacts.instructions, *common, "--stage", 2, "--qformer", folder, "--out", tmp_path / "no"
    )  # fmt: skip
    assert none.code == 2
    assert "no Q-Former is initialized here" in none.err


def without_encoder(folder: Path) -> Path:
    """The same checkpoint without its image tower."""
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if "vision_model" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_q_former_of_another_encoder_is_refused(base, tmp_path: Path) -> None:
    width = base.model.config.vision_config.hidden_size
    base.save(tmp_path / "base")
    folder = instructblip(tmp_path / "blip", width)
    with pytest.raises(InputError, match="reads the features of another encoder"):
        check_queries(folder, FIELDS, width, tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    (name,) = (name for name in tensors if name.endswith("embeddings.patch_embedding.weight"))
    own = base.model.model.vision_tower.state_dict()["embeddings.patch_embedding.weight"]
    # Checkpoints are published in half precision.
    for weight, fits in ((own.half(), True), (own * 1.1, False), (own[..., :4], False)):
        tensors[name] = weight.contiguous()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        if fits:
            check_queries(folder, FIELDS, width, tmp_path / "base")
        else:
            with pytest.raises(InputError, match="reads the features of another encoder"):
                check_queries(folder, FIELDS, width, tmp_path / "base")


def test_words_start_from_those_of_the_checkpoint(base, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    width = base.model.config.vision_config.hidden_size
    folder = instructblip(tmp_path / "blip", width)
    # Characters of BERT's vocabulary; all others are unknown.
    inner = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "R": 3}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]").save_pretrained(
        folder / "qformer_tokenizer"
    )
    own, pretrained = fields_of(base, folder)
    branch = build_lion(base, **own).model.model.lion.qformer
    before = branch.qformer.embeddings.word_embeddings.weight.clone()
    load_queries(branch, pretrained, base.tokenizer)
    words = branch.qformer.embeddings.word_embeddings.weight
    source = load_file(folder / "model.safetensors")["qformer.embeddings.word_embeddings.weight"]
    vocabulary = base.tokenizer.get_vocab()
    torch.testing.assert_close(words[vocabulary["a"]], source[1])
    torch.testing.assert_close(words[vocabulary["b"]], source[2])
    for token in ("z", "<pad>", "<image>"):
        assert torch.equal(words[vocabulary[token]], before[vocabulary[token]])
