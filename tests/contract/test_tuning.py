"""align and tune by their options: mixtures, parts and rates, projectors, tokens of an image, exported encoders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor, CLIPModel, LlavaForConditionalGeneration

from priorkit.core.artifact import open_artifact
from priorkit.core.process import capacity
from priorkit.models.folder import tensor_files
from priorkit.training.engine.resource_estimates import TUNING_FORMULA, Footprint, footprint

SHORT = ("--steps", 2, "--batch-size", 4, "--warmup-steps", 0, "--precision", "fp32", "--device", "cpu")


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.fixture(scope="module")
def text_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"id": n, "conversations": turns(f"what is {n}", f"it is {n}"), "ability": "language"}
        for n in range(12)
    ]
    return lines(tmp_path_factory.mktemp("text") / "text.jsonl", rows)


def made(cli: Any, *words: object) -> Path:
    found = cli(*words)
    assert found.code == 0, found.err
    return found.path


def test_a_mixture_of_pictures_and_text(artifacts, cli, tmp_path: Path, text_only: Path) -> None:
    out = made(
        cli, "tune", artifacts.mllm, f"seen={artifacts.instructions}", f"text={text_only}", "--weight", "seen=0.75,text=0.25",
        "--subset", 16, *SHORT, "--out", tmp_path / "tuned",
    )  # fmt: skip
    manifest = open_artifact(out).manifest
    assert manifest.metrics["sources"] == {"seen": 12, "text": 4}
    assert manifest.metrics["samples"] == 16
    assert [record.setting for record in manifest.inputs] == [
        "mllm", "instructions.seen", "instructions.text",
    ]  # fmt: skip
    assert manifest.cost["useful_share"] > 0.9
    again = cli("tune", "--recipe", out / "recipe.toml", "--out", out)
    assert (again.code, "up to date" in again.err) == (0, True), again.err


def test_unknown_sources_and_abilities(artifacts, cli, tmp_path: Path, text_only: Path) -> None:
    common = ("tune", artifacts.mllm, f"text={text_only}", *SHORT, "--out", tmp_path / "x")
    found = cli(*common, "--weight", "txt=1")
    assert found.code == 2
    assert "no source is named 'txt'" in found.err
    found = cli(*common, "--ability", "lnguage")
    assert found.code == 3
    assert "no sample is of the ability 'lnguage'" in found.err
    assert "did you mean 'language'?" in found.err


def test_packing_changes_the_loss_only_by_rounding(artifacts, cli, tmp_path: Path) -> None:
    losses: list[list[float]] = []
    for name, extra in (("packed", ()), ("padded", ("--no-packing",))):
        out = made(
            cli, "tune", artifacts.mllm, artifacts.instructions, *SHORT, *extra, "--out", tmp_path / name
        )
        losses.append([json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_table_of_parts_with_their_rates(artifacts, cli, tmp_path: Path) -> None:
    found = cli(
        "tune", artifacts.mllm, artifacts.instructions, *SHORT, "--train", "projector,llm,encoder", "--learning-rate", "1e-3",
        "--encoder-learning-rate", "1e-5", "--projector-learning-rate", "2e-3", "--out", tmp_path / "tuned",
    )  # fmt: skip
    assert found.code == 0, found.err
    table = [line.split() for line in found.err.splitlines() if "parameters trained" in line]
    assert [(row[0], row[-1]) for row in table] == [
        ("projector", "0.002"),
        ("llm", "0.001"),
        ("encoder", "1e-05"),
    ]
    assert all(row[1] == row[3] for row in table)
    metrics = open_artifact(found.path).manifest.metrics
    assert metrics["learning_rates"] == {"projector": 2e-3, "llm": 1e-3, "encoder": 1e-5}
    assert metrics["trained"] == metrics["parameters"]
    planned = footprint(tensor_files(artifacts.mllm), ("projector", "llm", "encoder"))
    assert planned.loaded == planned.trained == planned.saved == sum(metrics["parameters"].values())
    assert metrics["flops_formula"] == TUNING_FORMULA
    assert open_artifact(found.path).manifest.cost["model_flops_per_second"] > 0
    frozen = cli(
        "tune",
        artifacts.mllm,
        artifacts.instructions,
        *SHORT,
        "--train",
        "llm",
        "--out",
        tmp_path / "llm-only",
    )
    assert any(line.split()[:2] == ["encoder", "0"] for line in frozen.err.splitlines())


def test_a_tuned_encoder_comes_out_ready_to_be_ranked(artifacts, cli, tmp_path: Path) -> None:
    out = made(
        cli, "tune", artifacts.mllm, artifacts.instructions, *SHORT, "--train", "projector,llm,encoder", "--learning-rate", "1e-2",
        "--export-encoder", artifacts.encoder, "--out", tmp_path / "tuned",
    )  # fmt: skip
    before, after = CLIPModel.from_pretrained(artifacts.encoder), CLIPModel.from_pretrained(out / "encoder")
    tower = LlavaForConditionalGeneration.from_pretrained(out).model.vision_tower.state_dict()
    for name, value in after.vision_model.state_dict().items():
        assert torch.equal(value, tower.get(name, tower.get(f"vision_model.{name}"))), name
    for name, value in after.text_model.state_dict().items():
        assert torch.equal(value, before.text_model.state_dict()[name]), name
    first = "embeddings.patch_embedding.weight"
    assert not torch.equal(after.vision_model.state_dict()[first], before.vision_model.state_dict()[first])
    ranks = made(
        cli, "rank-e", out / "encoder", artifacts.images, "--device", "cpu", "--out", tmp_path / "ranks"
    )
    scores = load_file(ranks / "scores.safetensors")
    assert len(scores["entity_mean_rank"]) == len(
        load_file(artifacts.scores / "scores.safetensors")["entity_mean_rank"]
    )
    assert open_artifact(ranks).manifest.inputs[0].kind == "part of mllm"


def test_lora_with_a_trained_encoder(artifacts, cli, tmp_path: Path) -> None:
    from peft import PeftModel

    out = made(
        cli, "tune", artifacts.mllm, artifacts.instructions, *SHORT, "--train", "projector,llm,encoder", "--lora-rank", 4, "--dora",
        "--lora-dropout", 0.1, "--learning-rate", "1e-2", "--export-encoder", artifacts.encoder, "--out", tmp_path / "adapter",
    )  # fmt: skip
    names = set(load_file(out / "adapter_model.safetensors"))
    assert any("lora_magnitude_vector" in name for name in names)
    assert any("vision_tower" in name for name in names)
    base = LlavaForConditionalGeneration.from_pretrained(artifacts.mllm)
    original = base.model.vision_tower.state_dict()["vision_model.embeddings.patch_embedding.weight" if any(
        name.startswith("vision_model.") for name in base.model.vision_tower.state_dict()
    ) else "embeddings.patch_embedding.weight"].clone()  # fmt: skip
    adapted = PeftModel.from_pretrained(base, out).merge_and_unload()
    tuned = next(v for n, v in adapted.named_parameters() if n.endswith("patch_embedding.weight"))
    assert not torch.equal(tuned, original)
    exported = CLIPModel.from_pretrained(out / "encoder").vision_model.embeddings.patch_embedding.weight
    assert torch.equal(exported, tuned)
    planned = footprint(tensor_files(artifacts.mllm), ("projector", "llm", "encoder"), 4, magnitudes=True)
    metrics = open_artifact(out).manifest.metrics
    assert planned.trained == sum(metrics["trained"].values())
    parts = {part: metrics["parameters"][part] for part in ("projector", "encoder")}
    assert parts == {part: metrics["trained"][part] for part in parts}  # PEFT keeps the originals too


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--lora-rank", 2, "--train", "encoder"), "LoRA trains the language model"),
        (("--dora",), "--dora: only has an effect with LoRA"),
        (("--lora-alpha", 4), "--lora-alpha: only has an effect with LoRA"),
        (
            ("--train", "llm", "--encoder-learning-rate", 1),
            "--encoder-learning-rate: the encoder is not trained",
        ),
        (("--train", "projector", "--llm-learning-rate", 1), "--llm-learning-rate: the llm is not trained"),
        (("--export-encoder", "ENCODER"), "--export-encoder: the encoder is frozen"),
        (("--max-length", 9), "an image takes 9 tokens, the longest conversation is 9"),
    ],
)
def test_options_that_do_not_go_together(
    artifacts, cli, tmp_path: Path, extra: tuple[object, ...], message: str
) -> None:
    extra = tuple(artifacts.encoder if word == "ENCODER" else word for word in extra)
    found = cli("tune", artifacts.mllm, artifacts.instructions, *SHORT, *extra, "--out", tmp_path / "x")
    assert found.code == 2
    assert message in found.err


@pytest.mark.parametrize("which", ["selective", "full"])
def test_activations_computed_again_change_nothing(artifacts, cli, tmp_path: Path, which: str) -> None:
    words = ("tune", artifacts.mllm, artifacts.instructions, "--train", "projector,llm,encoder", *SHORT)
    plain = made(cli, *words, "--out", tmp_path / "plain")
    again = made(cli, *words, "--checkpoint-activations", which, "--out", tmp_path / "again")
    assert (plain / "metrics.jsonl").read_bytes() == (again / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--shard",), "--shard: there is only one process; nothing to shard"),
    ],
)
def test_memory_that_cannot_be_saved(
    artifacts, cli, tmp_path: Path, extra: tuple[str, ...], message: str
) -> None:
    found = cli("tune", artifacts.mllm, artifacts.instructions, *SHORT, *extra, "--out", tmp_path / "x")
    assert found.code == 2
    assert message in found.err


@pytest.mark.parametrize("step", ["tune", "blind-tune"])
def test_a_plan_estimates_memory_and_disk(
    artifacts, cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    words = (
        step,
        artifacts.mllm,
        artifacts.instructions,
        *SHORT,
        "--check",
        "--json",
        "--out",
        tmp_path / "x",
    )
    found = cli(*words)
    assert found.code == 0, found.err
    parts = ("llm",) if step == "blind-tune" else ("projector", "llm")
    size = footprint(tensor_files(artifacts.mllm), parts)
    plan = json.loads(found.out)["plan"]
    assert plan["memory"] == f"about {capacity.readable_bytes(size.memory_bytes)}"
    assert plan["disk"] == f"about {capacity.readable_bytes(size.disk_bytes)}"
    monkeypatch.setattr(capacity, "_available_memory", lambda: size.memory_bytes - 1)
    found = cli(*words)
    assert found.code == 4
    assert "of memory needed" in found.err


def test_a_footprint_holds_weights_gradients_and_moments() -> None:
    size = Footprint(loaded=10, trained=4, saved=7)
    assert (size.memory_bytes, size.disk_bytes) == (4 * (10 + 4 + 8), 4 * (7 + 4 + 8))


def test_an_adapter_is_to_be_folded_in_first(artifacts, cli, tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "base_model_name_or_path": str(artifacts.mllm), "r": 2}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    found = cli("tune", tmp_path / "adapter", artifacts.instructions, *SHORT, "--out", tmp_path / "x")
    assert found.code == 3
    assert "this is an adapter, not a model" in found.err
    assert f"priorkit merge-adapters {tmp_path / 'adapter'} --base {artifacts.mllm} --out merged" in found.err


def with_template(mllm: Path, folder: Path, template: str) -> Path:
    """A user's copy of a model with another chat template."""
    shutil.copytree(mllm, folder, ignore=shutil.ignore_patterns("priorkit.json", "recipe.toml"))
    (folder / "chat_template.jinja").write_text(template)
    return folder


PLAIN = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
ANSWER = "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"


def test_a_template_that_cannot_work_is_refused_before_weights_are_read(
    artifacts, cli, tmp_path: Path
) -> None:
    drops = "{% for m in messages %}{{ m['content'] if m['role'] == 'user' or loop.last }}{% endfor %}"
    model = with_template(artifacts.mllm, tmp_path / "model", drops)
    for step in ("tune", "blind-tune"):
        found = cli(step, model, artifacts.instructions, *SHORT, "--check", "--out", tmp_path / "x")
        assert found.code == 3
        assert str(model) in found.err
        assert "the chat template changes the text of turns" in found.err


def test_conversations_that_the_template_refuses_are_rejected_by_name(artifacts, cli, tmp_path: Path) -> None:
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    model = with_template(artifacts.mllm, tmp_path / "model", refuses + PLAIN + ANSWER)
    system = {"from": "system", "value": "Be brief."}
    rows = [{"id": f"n{n}", "conversations": [system] * (n == 3) + turns("q", "a")} for n in range(8)]
    source = lines(tmp_path / "c.jsonl", rows)
    words = ("tune", model, source, *SHORT, "--out", tmp_path / "tuned")
    found = cli(*words)
    assert found.code == 3
    assert "c.jsonl:4: n3: the chat template refuses the conversation: System role not supported" in found.err
    assert open_artifact(made(cli, *words, "--reject-limit", 0.2)).manifest.metrics["samples"] == 7


def test_long_conversations_are_cut_and_counted(artifacts, cli, tmp_path: Path) -> None:
    Image.new("RGB", (48, 48)).save(tmp_path / "a.png")
    seen = {"image": "a.png"}
    rows = [
        {**seen, "conversations": turns("<image>\nq", "a")},
        {**seen, "conversations": turns("<image>\nq", "word " * 200)},
        {**seen, "conversations": turns("word " * 200 + "<image>", "a")},
        {"conversations": turns("word " * 200, "a")},
    ]
    source = lines(tmp_path / "c.jsonl", rows)
    words = ("tune", artifacts.mllm, source, *SHORT, "--max-length", 64, "--out", tmp_path / "tuned")
    found = cli(*words)
    assert found.code == 3
    assert "2 of 4 rows are broken" in found.err
    out = made(cli, *words, "--reject-limit", 0.5)
    manifest = open_artifact(out).manifest
    assert (manifest.metrics["truncated"], manifest.metrics["rejected"], manifest.metrics["samples"]) == (
        1,
        2,
        2,
    )
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rejects] == [3, 4]
    assert "an image is beyond" in rejects[0]["reason"]
    assert "no answer begins" in rejects[1]["reason"]


@pytest.mark.parametrize(
    ("extra", "tokens"),
    [
        (("--projector", "linear"), 9),
        (("--feature-layer", "-2,-1"), 9),
        (("--class-token", "--feature-layer", "-1"), 10),
        (("--image-tokens", 16), 16),
    ],
)
def test_what_align_makes_loads_in_transformers(
    artifacts, cli, tmp_path: Path, extra: tuple[object, ...], tokens: int
) -> None:
    out = made(
        cli,
        "align",
        artifacts.llm,
        artifacts.encoder,
        artifacts.captions,
        *SHORT,
        *extra,
        "--out",
        tmp_path / "aligned",
    )
    model = LlavaForConditionalGeneration.from_pretrained(out).eval()
    processor = AutoProcessor.from_pretrained(out)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    image = Image.linear_gradient("L").convert("RGB").resize((80, 60))
    batch = processor(text=text, images=image, return_tensors="pt", add_special_tokens=False)
    assert (
        int((batch["input_ids"] == model.config.image_token_id).sum())
        == tokens
        == model.config.image_seq_length
    )
    with torch.no_grad():
        logits = model(**batch).logits
        other = model(**{**batch, "pixel_values": batch["pixel_values"].flip(-2)}).logits
    assert torch.isfinite(logits).all()
    assert not torch.equal(logits, other)
    projector = model.model.multi_modal_projector
    if "linear" in extra:
        assert torch.equal(projector.linear_2.weight, torch.eye(64))
        assert (
            open_artifact(out).manifest.metrics["trained"]["projector"]
            == projector.linear_1.weight.numel() + 64
        )
        inputs = torch.randn(2, 3, 32)
        torch.testing.assert_close(projector(inputs), projector.linear_1(inputs))
    if "-2,-1" in extra:
        assert projector.linear_1.in_features == 64
    ranked = cli("tune", out, artifacts.instructions, *SHORT, "--out", tmp_path / "tuned")
    assert ranked.code == 0, ranked.err


@pytest.mark.parametrize(
    ("way", "extra", "side"), [("squash", (), 48), ("pad", (), 48), ("crop", (), 48), ("pad", ("--image-tokens", 16), 64)]
)  # fmt: skip
def test_the_way_to_a_square_is_saved_with_the_model(
    artifacts, cli, tmp_path: Path, way: str, extra: tuple[object, ...], side: int
) -> None:
    words = ("align", artifacts.llm, artifacts.encoder, artifacts.captions, *SHORT, "--resize", way, *extra)
    out = made(cli, *words, "--out", tmp_path / "aligned")
    from priorkit.models.multimodal.llava import load_llava

    processor, loaded = AutoProcessor.from_pretrained(out), load_llava(out)
    image = Image.linear_gradient("L").convert("RGB").resize((90, 60))
    values = processor(text="<image>", images=image, return_tensors="pt")["pixel_values"]
    assert values.shape == (1, 3, side, side)
    pixels = loaded.prepare(image)
    torch.testing.assert_close(loaded._preprocessing.normalize(pixels), values[0], rtol=1e-4, atol=1e-4)
    # 90 x 60 padded: a sixth of the rows above the image has one color.
    above = pixels[:, : side // 6 - 2]
    assert (float(above.float().std((1, 2)).max()) < 0.5) == (way == "pad")


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv2 of two layers that reads 56 pixels in 7 x 7 patches."""
    from transformers import CLIPImageProcessor, Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(3)
    Dinov2Model(
        Dinov2Config(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=112, patch_size=8, mlp_ratio=2
        )
    ).save_pretrained(folder)  # fmt: skip
    CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_the_plan_counts_what_the_processor_crops(artifacts, cli, tmp_path: Path, dino: Path) -> None:
    """The configuration says 112 pixels, which would be 196 tokens; the processor crops to 56."""
    words = (
        "align",
        artifacts.llm,
        dino,
        artifacts.captions,
        *SHORT,
        "--max-length",
        100,
        "--check",
        "--out",
        tmp_path / "x",
    )
    found = cli(*words)
    assert found.code == 0, found.err
    assert "49 tokens of width 24" in found.err
    planned = {line.split()[0]: line for line in found.err.splitlines() if line.strip()}
    assert "memory" in planned
    assert "disk" in planned
    refused = cli(*words, "--max-length", 49)
    assert refused.code == 2
    assert "an image takes 49 tokens" in refused.err


def test_two_encoders_are_aligned_tuned_and_evaluated(artifacts, cli, tmp_path: Path, dino: Path) -> None:
    pair = ("align", artifacts.llm, artifacts.encoder, artifacts.captions, *SHORT, "--also-encoder", dino)
    aligned = made(cli, *pair, "--out", tmp_path / "aligned")
    manifest = open_artifact(aligned).manifest
    assert "also_encoder.0" in [record.setting for record in manifest.inputs]
    config = json.loads((aligned / "config.json").read_text())
    assert config["vision_config"]["hidden_size"] == 32 + 24
    train = ("--train", "projector,llm,encoder", "--learning-rate", "1e-2")
    tuned = made(cli, "tune", aligned, artifacts.instructions, *SHORT, *train, "--out", tmp_path / "tuned")
    before, after = (load_file(folder / "model.safetensors") for folder in (aligned, tuned))
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    for place in (0, 1):
        assert any(f"vision_tower.towers.{place}." in name for name in changed)
    frozen = made(
        cli, "tune", aligned, artifacts.instructions, *SHORT, "--train", "llm", "--subset", 4, "--out", tmp_path / "frozen"
    )  # fmt: skip
    after = load_file(frozen / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before if "vision_tower" in name)
    adapter = made(
        cli, "tune", aligned, artifacts.instructions, *SHORT, "--lora-rank", 2, "--out", tmp_path / "adapter"
    )
    benchmark = sorted((artifacts.world / "benchmarks").glob("*.parquet"))[0]
    for number, model in enumerate((tuned, adapter)):
        out = made(
            cli, "evaluate", model, benchmark, "--limit", 4, "--device", "cpu", "--out", tmp_path / f"score-{number}"
        )  # fmt: skip
        assert len((out / "samples.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        (("--class-token",), 2, "no place for class tokens"),
        (("--feature-layer", 1), 2, "numbered from the last"),
        (("--feature-layer", -4), 2, "the image tower has 2 layers"),
    ],
)
def test_what_several_encoders_do_not_take(
    artifacts, cli, tmp_path: Path, dino: Path, extra: tuple[object, ...], code: int, message: str
) -> None:
    pair = ("align", artifacts.llm, artifacts.encoder, artifacts.captions, *SHORT, "--also-encoder", dino)
    found = cli(*pair, *extra, "--out", tmp_path / "x")
    assert found.code == code, found.err
    assert message in found.err


def test_one_of_several_encoders_is_not_taken_out(artifacts, cli, tmp_path: Path, dino: Path) -> None:
    pair = ("align", artifacts.llm, artifacts.encoder, artifacts.captions, *SHORT, "--also-encoder", dino)
    aligned = made(cli, *pair, "--out", tmp_path / "aligned")
    common = ("tune", aligned, artifacts.instructions, *SHORT)
    found = cli(*common, "--train", "encoder", "--export-encoder", artifacts.encoder, "--out", tmp_path / "x")
    assert found.code == 3
    assert "has several concatenated encoders" in found.err
    found = cli(*common, "--architecture", "lion", "--stage", 1, "--out", tmp_path / "x")
    assert found.code == 3
    assert "LION's branches read one encoder" in found.err


def test_a_resized_encoder_gets_the_same_pixels(artifacts, cli, tmp_path: Path) -> None:
    """The number of its own tokens changes nothing."""
    resized, none = (
        made(
            cli,
            "align",
            artifacts.llm,
            artifacts.encoder,
            artifacts.captions,
            *SHORT,
            *extra,
            "--out",
            tmp_path / name,
        )
        for name, extra in (("own", ("--image-tokens", 9)), ("none", ()))
    )
    for name, value in load_file(resized / "model.safetensors").items():
        assert torch.equal(value, load_file(none / "model.safetensors")[name]), name


def test_no_square_number_of_tokens(artifacts, cli, tmp_path: Path) -> None:
    found = cli(
        "align",
        artifacts.llm,
        artifacts.encoder,
        artifacts.captions,
        *SHORT,
        "--image-tokens",
        575,
        "--out",
        tmp_path / "x",
    )
    assert found.code == 2
    assert "575 is not a square number" in found.err
