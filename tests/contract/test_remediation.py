"""``pretrain-encoder`` and ``distill-encoder`` from the outside."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, Dinov2Config, Dinov2Model, SiglipModel, ViTImageProcessor

SHORT = ("--steps", 3, "--batch-size", 8, "--warmup-steps", 1, "--precision", "fp32", "--device", "cpu")
NEW = ("--preset", "pocket-tiny", "--vocab-size", 400, *SHORT)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORKIT_CACHE", str(tmp_path / "cache"))


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def manifest(folder: Path) -> dict:
    return json.loads((folder / "priorkit.json").read_text())


def test_a_siglip_encoder_loads_and_serves_every_step(artifacts, cli, tmp_path: Path) -> None:
    found = cli("pretrain-encoder", artifacts.pairs, *NEW, "--loss", "siglip", "--out", tmp_path / "siglip")
    assert found.code == 0, found.err
    model, info = SiglipModel.from_pretrained(found.path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert float(model.logit_scale.exp()) == pytest.approx(10, rel=0.1)
    assert float(model.logit_bias) == pytest.approx(-10, rel=0.1)
    processor = AutoProcessor.from_pretrained(found.path)
    encoded = processor(
        text=["a heron"], images=Image.new("RGB", (60, 40)), padding="max_length", return_tensors="pt"
    )
    assert set(encoded) == {"input_ids", "pixel_values"}
    assert model(**encoded).logits_per_image.shape == (1, 1)
    ranks = cli("rank-e", found.path, artifacts.images, "--device", "cpu", "--out", tmp_path / "ranks")
    assert ranks.code == 0, ranks.err
    better = cli(
        "distill-encoder",
        found.path,
        artifacts.images,
        *SHORT,
        "--contrastive",
        "sigmoid",
        "--out",
        tmp_path / "b",
    )
    assert better.code == 0, better.err


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_gradient_caching_trains_like_the_full_batch(loss: str, artifacts, cli, tmp_path: Path) -> None:
    command = ("pretrain-encoder", artifacts.pairs, *NEW, "--loss", loss)
    full_batch = cli(*command, "--out", tmp_path / "whole")
    parts = cli(*command, "--gradient-cache", 3, "--out", tmp_path / "parts")
    assert (full_batch.code, parts.code) == (0, 0), parts.err
    for one, two in zip(rows(full_batch.path), rows(parts.path), strict=True):
        assert two == pytest.approx(one, rel=2e-4)


def test_remediation_with_gradient_caching_trains_like_the_full_batch(artifacts, cli, tmp_path: Path) -> None:
    command = (
        "distill-encoder", artifacts.encoder, artifacts.images, *SHORT, "--replay", artifacts.pairs, "--contrastive", "infonce",
        "--held-out", artifacts.images,
    )  # fmt: skip
    full_batch = cli(*command, "--out", tmp_path / "whole")
    parts = cli(*command, "--gradient-cache", 3, "--out", tmp_path / "parts")
    assert (full_batch.code, parts.code) == (0, 0), parts.err
    assert "--gradient-cache" not in parts.err
    for one, two in zip(rows(full_batch.path), rows(parts.path), strict=True):
        assert two == pytest.approx(one, rel=2e-4, abs=1e-6)


def test_pairs_from_shards_are_pairs_like_others(artifacts, cli, tmp_path: Path) -> None:
    table = pq.read_table(artifacts.pairs).to_pylist()
    (tmp_path / "shards").mkdir()
    for number in range(2):
        with tarfile.open(tmp_path / "shards" / f"{number:05}.tar", "w") as archive:
            for row in range(number * len(table) // 2, (number + 1) * len(table) // 2):
                for kind, content in (
                    ("png", table[row]["image"]["bytes"]),
                    ("txt", table[row]["text"].encode()),
                ):
                    member = tarfile.TarInfo(f"{row:06}.{kind}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    one = cli("pretrain-encoder", artifacts.pairs, *NEW, "--out", tmp_path / "parquet")
    two = cli("pretrain-encoder", tmp_path / "shards", *NEW, "--workers", 2, "--out", tmp_path / "tar")
    assert (one.code, two.code) == (0, 0), two.err
    assert (one.path / "model.safetensors").read_bytes() == (two.path / "model.safetensors").read_bytes()


def test_augmented_runs_repeat_exactly_whatever_the_workers(artifacts, cli, tmp_path: Path) -> None:
    views = ("--augment-crop", 0.5, "--augment-flip", "--augment-jitter", 0.2, "--augment-shift", 2)
    one = cli("pretrain-encoder", artifacts.pairs, *NEW, *views, "--out", tmp_path / "one")
    two = cli("pretrain-encoder", artifacts.pairs, *NEW, *views, "--workers", 2, "--out", tmp_path / "two")
    plain = cli("pretrain-encoder", artifacts.pairs, *NEW, "--out", tmp_path / "plain")
    assert (one.code, two.code) == (0, 0), one.err + two.err
    contents = [(found.path / "model.safetensors").read_bytes() for found in (one, two, plain)]
    assert contents[0] == contents[1] != contents[2]


def test_images_are_checked_once_and_unusual_ones_are_counted(
    artifacts, cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("CMYK", (40, 30)).save(tmp_path / "print.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "turned.jpg", exif=exif)
    lines = [
        {"image": name, "text": f"a {name} number {number}"}
        for number in range(6)
        for name in ("print.jpg", "turned.jpg")
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    one = cli("pretrain-encoder", tmp_path / "pairs.jsonl", *NEW, "--out", tmp_path / "one")
    assert one.code == 0, one.err
    counted = {"cmyk": 6, "sixteen_bit": 0, "animated": 0, "rotated": 6}
    assert manifest(one.path)["metrics"]["unusual_images"] == counted
    monkeypatch.setattr(
        "priorkit.data.images.image_check.decode_with_kinds", lambda ref: pytest.fail("decoded again")
    )
    two = cli(
        "pretrain-encoder", tmp_path / "pairs.jsonl", *NEW, "--learning-rate", 1e-4, "--out", tmp_path / "2"
    )
    assert two.code == 0, two.err
    assert manifest(two.path)["metrics"]["unusual_images"] == counted


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher without a text tower, at another resolution and patch count than the student."""
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    Dinov2Model(
        Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
    ).save_pretrained(folder)
    ViTImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)
    return folder


def test_teachers_of_other_kinds_and_their_cache(artifacts, cli, dino: Path, tmp_path: Path) -> None:
    command = (
        "distill-encoder", artifacts.encoder, artifacts.images, *SHORT, "--teacher", dino, "--teacher", artifacts.encoder,
        "--teacher-weight", "1,0.5", "--relational-weight", 0.3, "--augment-crop", 0.6, "--teacher-views", 2,
    )  # fmt: skip
    one = cli(*command, "--out", tmp_path / "one")
    assert one.code == 0, one.err
    assert "a teacher is the encoder itself" in one.err
    logged = set(rows(one.path)[0])
    assert {"contrastive", "teacher_0", "teacher_1", "relational_0", "relational_1", "keep"} <= logged
    # Two teachers, two views each.
    assert len(list((tmp_path / "cache" / "features").glob("*/features.safetensors"))) == 4
    two = cli(*command, "--learning-rate", 1e-4, "--out", tmp_path / "two")
    assert two.err.count("features from the cache") == 2
    three = cli(*command, "--seed", 5, "--out", tmp_path / "three")
    assert "features from the cache" not in three.err
    # ``auto`` resolves to one of the two precisions and shares cached features only with that one.
    kept = [cli(*command, "--precision", name, "--out", tmp_path / name).err for name in ("auto", "bf16")]
    assert sorted(err.count("features from the cache") for err in kept) == [0, 2]
    again = cli(*command, "--force", "--out", tmp_path / "one")
    assert again.code == 0
    AutoModel.from_pretrained(one.path)


def test_the_trade_off_is_measured_stored_and_drawn(artifacts, cli, tmp_path: Path) -> None:
    found = cli(
        "distill-encoder", artifacts.encoder, artifacts.world / "entity_images" / "train", *SHORT, "--learning-rate", 3e-3,
        "--steps", 12, "--held-out", artifacts.images, "--off-domain", artifacts.world / "pairs" / "test.parquet",
        "--interpolate", "0,0.5,1", "--keep-share", 0.5, "--out", tmp_path / "better",
    )  # fmt: skip
    assert found.code == 0, found.err
    metrics = manifest(found.path)["metrics"]
    assert [point["share"] for point in metrics["trade_off"]] == [0.0, 0.5, 1.0]
    assert metrics["before"] == metrics["trade_off"][0]
    assert metrics["after"] == metrics["trade_off"][1]
    assert metrics["saved_share"] == 0.5
    assert metrics["before"]["off_domain_mrr"]["low"] <= metrics["before"]["off_domain_mrr"]["value"]
    for name in ("trade_off.svg", "trade_off.png"):
        assert (found.path / name).stat().st_size > 1000
    # The printed ranks are those that rank-e measures, before and after.
    names = tmp_path / "names.txt"
    train = sorted(item.name for item in (artifacts.world / "entity_images" / "train").iterdir())
    names.write_text("\n".join(train))
    table = pq.read_table(found.path / "held_out_ranks.parquet").to_pydict()
    for encoder, share in ((artifacts.encoder, "0"), (found.path, "0.5")):
        ranks = cli(
            "rank-e",
            encoder,
            artifacts.images,
            "--candidates",
            names,
            "--device",
            "cpu",
            "--out",
            tmp_path / f"r{share}",
        )
        assert ranks.code == 0, ranks.err
        other = pq.read_table(ranks.path / "table.parquet").to_pydict()
        mine = dict(zip(table["entity"], table[f"mean_rank_at_{share}"], strict=True))
        theirs = dict(zip(other["entity"], other["mean_rank"], strict=True))
        assert mine == pytest.approx(theirs, abs=0.26)


def test_a_share_of_every_entitys_images_is_held_out(artifacts, cli, tmp_path: Path) -> None:
    found = cli(
        "distill-encoder",
        artifacts.encoder,
        artifacts.images,
        *SHORT,
        "--held-out-share",
        0.5,
        "--out",
        tmp_path / "better",
    )
    assert found.code == 0, found.err
    metrics = manifest(found.path)["metrics"]
    assert metrics["images"] == metrics["held_out_images"] == metrics["entities"]
    assert metrics["before"]["mean_rank"]["value"] > 0


def birds(folder: Path, *names: str, count: int = 3) -> Path:
    """Entity images, a folder per name."""
    for entity in names:
        (folder / entity).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 255, (30, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / entity / f"{number}.png")
    return folder


def test_held_out_names_in_other_spelling_are_the_same_entities(artifacts, cli, tmp_path: Path) -> None:
    found = cli(
        "distill-encoder", artifacts.encoder, birds(tmp_path / "train", "crane", "heron", "egret"), *SHORT,
        "--held-out", birds(tmp_path / "test", "Heron", "EGRET", "ibis", count=1), "--out", tmp_path / "x",
    )  # fmt: skip
    assert found.code == 0, found.err
    table = pq.read_table(found.path / "held_out_ranks.parquet").to_pydict()
    assert table["entity"] == ["egret", "heron", "ibis"]
    assert manifest(found.path)["metrics"]["names"] == 4


def test_only_the_cost_is_drawn_without_held_out_images(artifacts, cli, tmp_path: Path) -> None:
    pairs = artifacts.world / "pairs" / "test.parquet"
    found = cli(
        "distill-encoder", artifacts.encoder, artifacts.images, *SHORT, "--off-domain", pairs, "--interpolate", "0,0.5,1",
        "--out", tmp_path / "better",
    )  # fmt: skip
    assert found.code == 0, found.err
    assert "off-domain retrieval (MRR):" in found.err
    assert [set(point) for point in manifest(found.path)["metrics"]["trade_off"]] == [
        {"share", "off_domain_mrr"}
    ] * 3
    assert "off-domain retrieval, MRR" in (found.path / "trade_off.svg").read_text()
    assert (found.path / "trade_off.png").stat().st_size > 1000
    assert not (found.path / "held_out_ranks.parquet").exists()
    page = cli("report", found.path, "--out", tmp_path / "report")
    assert page.code == 0, page.err
    assert "Off-domain retrieval by the share" in (page.path / "report.html").read_text()


def test_an_entity_without_images_is_reported_counted_and_a_candidate(artifacts, cli, tmp_path: Path) -> None:
    images = birds(tmp_path / "birds", "crane", "heron")
    (images / "ibis").mkdir()
    found = cli(
        "distill-encoder", artifacts.encoder, images, *SHORT, "--held-out-share", 0.3, "--out", tmp_path / "x"
    )
    assert found.code == 0, found.err
    assert "entities without a usable image: 1, such as 'ibis'; nothing is learned about them" in found.err
    metrics = manifest(found.path)["metrics"]
    assert (metrics["entities"], metrics["entities_without_images"], metrics["names"]) == (2, 1, 3)


def test_gain_and_cost_are_measured_in_fp32_whatever_the_precision_of_training(
    artifacts, cli, tmp_path: Path
) -> None:
    command = (
        "distill-encoder", artifacts.encoder, artifacts.images, *SHORT[:6], "--device", "cpu", "--held-out", artifacts.images,
        "--off-domain", artifacts.world / "pairs" / "test.parquet",
    )  # fmt: skip
    found = [
        cli(*command, "--precision", precision, "--out", tmp_path / precision)
        for precision in ("fp32", "bf16")
    ]
    assert [result.code for result in found] == [0, 0], found[1].err
    one, other = (manifest(result.path)["metrics"] for result in found)
    assert one["before"] == other["before"]
    assert one["loss"] != other["loss"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--trainable", "half"), "expected full, lora or last-K such as last-4, got 'half'"),
        (("--trainable", "last-1", "--lora-rank", 4), "--lora-rank: has no effect with --trainable last-1"),
        (("--lora-rank", 4, "--train-text"), "LoRA trains only the image tower"),
        (("--relational-weight", 1), "--relational-weight: requires a --teacher"),
        (("--contrastive", "infonce", "--micro-batch-size", 2), "cannot be split into micro-batches"),
        (("--interpolate", "0,1"), "not trained on"),
        (("--interpolate", "0,2", "--held-out-share", 0.5), "between 0 and 1"),
        (("--contrastive-weight", 0), "nothing to train on"),
        (("--train-text", "--contrastive-weight", 0, "--teacher", "SELF"), "no term trains the text tower"),
        (("--teacher-weight", "1,2", "--teacher", "SELF"), "2 weights for 1 teachers"),
        (("--held-out", "IMAGES", "--held-out-share", 0.5), "use one of the two"),
    ],
)
def test_remediations_that_do_not_go_together(
    words: tuple, message: str, artifacts, cli, tmp_path: Path
) -> None:
    words = tuple({"SELF": artifacts.encoder, "IMAGES": artifacts.images}.get(word, word) for word in words)
    found = cli(
        "distill-encoder", artifacts.encoder, artifacts.images, *SHORT, *words, "--out", tmp_path / "x"
    )
    assert found.code == 2, found.err
    assert message in found.err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--trainable", "last-1"), "come after hidden state 1, which the multimodal model reads"),
        (("--interpolate", 0), "the saved encoder is the original one"),
        (("--trainable", "last-9"), "the image tower has 2 blocks; all of them are trained"),
        (("--replay", "PAIRS", "--replay-weight", 0), "has no effect"),
        (("--gradient-cache", 128), "has no effect: a forward pass has 128 images"),
        ((), "neither gain nor cost is measured"),
    ],
)
def test_options_without_effect_are_warned_of(
    words: tuple, message: str, artifacts, cli, tmp_path: Path
) -> None:
    words = tuple({"PAIRS": artifacts.pairs}.get(word, word) for word in words)
    found = cli(
        "distill-encoder",
        artifacts.encoder,
        artifacts.images,
        *words,
        "--check",
        "--quiet",
        "--out",
        tmp_path / "x",
    )
    assert found.code == 0, found.err
    assert f"warning: {message}"[:9] in found.err
    assert message in found.err


def test_an_encoder_without_text_is_refused_where_names_are_needed(
    artifacts, cli, dino: Path, tmp_path: Path
) -> None:
    found = cli("distill-encoder", dino, artifacts.images, *SHORT, "--out", tmp_path / "x")
    assert found.code == 3
    assert "has no text tower" in found.err


def test_damaged_images_are_counted_and_named(artifacts, cli, tmp_path: Path) -> None:
    broken = birds(tmp_path / "birds", "heron", "egret", "crane") / "heron" / "2.png"
    broken.write_bytes(broken.read_bytes()[:99])
    command = ("distill-encoder", artifacts.encoder, tmp_path / "birds", *SHORT)
    strict = cli(*command, "--out", tmp_path / "x")
    assert strict.code == 3
    assert "heron/2.png" in strict.err
    found = cli(*command, "--reject-limit", 0.2, "--out", tmp_path / "better")
    assert found.code == 0, found.err
    assert manifest(found.path)["metrics"]["rejected"] == 1
    assert "heron/2.png" in (found.path / "rejects.jsonl").read_text()


def test_a_shape_from_a_config_file(artifacts, cli, tmp_path: Path) -> None:
    file = tmp_path / "shape.json"
    file.write_text((artifacts.encoder / "config.json").read_text())
    new = ("--vocab-size", 400, *SHORT)
    both = cli("pretrain-encoder", artifacts.pairs, *NEW, "--config", file, "--out", tmp_path / "both")
    assert both.code == 2
    assert "--preset pocket-tiny: cannot be combined with --config" in both.err
    one = cli("pretrain-encoder", artifacts.pairs, *new, "--config", file, "--out", tmp_path / "one")
    two = cli("pretrain-encoder", artifacts.pairs, *NEW, "--out", tmp_path / "two")
    assert one.code == 0, one.err
    assert (one.path / "model.safetensors").read_bytes() == (two.path / "model.safetensors").read_bytes()
    file.write_text('{"vision_config": {"hidden_size": 32}, "text_config": {}}')
    bad = cli("pretrain-encoder", artifacts.pairs, *new, "--config", file, "--out", tmp_path / "three")
    assert bad.code == 3
    assert "vision_config.image_size, text_config.max_position_embeddings missing" in bad.err
