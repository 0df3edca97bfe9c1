"""``priorkit rank-e`` against float64 oracles on the golden encoder; its cached features, processes and refusals."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file, save_file

from priorkit.core.artifact import open_artifact

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "clip_rank.json").read_text())
CPU = ("--device", "cpu", "--resamples", 100)
TEMPLATES = ("--template", "a photo of a {}.", "--template", "{}")


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden images with what they show, and files of candidate names."""
    root = tmp_path_factory.mktemp("golden")
    shutil.copytree(GOLDEN / "tiny-clip" / "images", root / "images")
    rows = [(Path(case["input"]["image"]).name, case["input"]["entity"]) for case in CASES["cases"]]
    lines = [json.dumps({"file_name": name, "entity": entity}) + "\n" for name, entity in rows]
    (root / "images" / "metadata.jsonl").write_text("".join(lines))
    names = [entry["name"] for entry in CASES["candidates"]]
    (root / "names.txt").write_text("\n".join(names) + "\n")
    pq.write_table(pa.table({"name": names[::-1]}), root / "names.parquet")
    return root


@pytest.fixture(scope="module")
def ranked(birds: Path, cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = cli(
        "rank-e", GOLDEN / "tiny-clip", birds / "images", "--candidates", birds / "names.txt", *TEMPLATES,
        "--reverse", *CPU, "--out", tmp_path_factory.mktemp("ranked") / "out",
    )  # fmt: skip
    assert found.code == 0, found.err
    return found.path


def expected(folder: Path, key: str) -> list[float]:
    """The golden ranks in the order of ``images.parquet``."""
    by_name = {Path(case["input"]["image"]).name: case["expected"][key] for case in CASES["cases"]}
    return [by_name[name] for name in pq.read_table(folder / "images.parquet")["path"].to_pylist()]


def test_ranks_are_the_golden_ones_for_each_template(ranked: Path) -> None:
    tensors = load_file(ranked / "scores.safetensors")
    assert tensors["template_image_rank"][0].tolist() == expected(ranked, "rank")
    assert tensors["template_image_rank"][1].tolist() == expected(ranked, "rank_bare_name")
    metrics = open_artifact(ranked).manifest.metrics
    assert (metrics["candidates"], metrics["entities"], metrics["images"]) == (50, 10, 30)
    assert list(metrics["templates"]) == ["a photo of a {}.", "{}"]
    rows = pq.read_table(ranked / "templates.parquet").to_pylist()
    assert len(rows) == 20
    first = [row["mean_rank"] for row in rows if row["template"] == "{}"]
    assert np.mean(first) == pytest.approx(metrics["templates"]["{}"]["mean_rank"]["value"])


def test_averaged_templates_the_table_and_the_reverse_equal_an_oracle(ranked: Path) -> None:
    from priorkit.data.images.decoding import ImageRef, decode
    from priorkit.models.vision.loading import load_encoder

    table = pq.read_table(ranked / "table.parquet").to_pydict()
    images = pq.read_table(ranked / "images.parquet").to_pydict()
    tensors = load_file(ranked / "scores.safetensors")
    encoder = load_encoder(GOLDEN / "tiny-clip")
    paths = [GOLDEN / "tiny-clip" / "images" / name for name in images["path"]]
    features = encoder.encode_images(
        torch.stack([encoder.prepare(decode(ImageRef(path.name, path))) for path in paths])
    )
    others = [e["name"] for e in CASES["candidates"] if e["name"] not in table["entity"]]
    names = [*table["entity"], *others]
    heads = sum(
        torch.cat(list(encoder.encode_texts([template.format(name) for name in names])))
        for template in ("a photo of a {}.", "{}")
    )
    heads = torch.nn.functional.normalize(heads, dim=1).double().numpy()
    cosines = features.double().numpy() @ heads.T / np.linalg.norm(heads, axis=1)
    truth = np.array([names.index(entity) for entity in images["entity"]])
    true_similarity = cosines[np.arange(30), truth]
    ranks = 1 + (cosines > true_similarity[:, None] + 1e-12).sum(1)
    assert tensors["image_rank"].tolist() == ranks.tolist()
    by_entity = [ranks[truth == number] for number in range(10)]
    assert table["mean_rank"] == [values.mean() for values in by_entity]
    assert table["median_rank"] == [np.median(values) for values in by_entity]
    assert table["recall_at_5"] == [(values <= 5).mean() for values in by_entity]
    for number in range(10):
        means = cosines[truth == number].mean(0)
        means[number] = -np.inf
        assert table["confused_with"][number] == [names[row] for row in np.argsort(-means)[:3]]
        rivals = cosines[truth != number, number]
        back = [1 + (rivals > value).sum() for value in true_similarity[truth == number]]
        assert table["reverse_mean_rank"][number] == np.mean(back)
        assert tensors["image_reverse_rank"][truth == number].tolist() == back
        assert table["reverse_percentile"][number] == pytest.approx((np.mean(back) - 1) / 27)
    assert (ranked / "ranks.png").read_bytes().startswith(b"\x89PNG")


def test_cached_features_serve_other_names_and_change_nothing(
    birds: Path, cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "features"
    words = ("rank-e", GOLDEN / "tiny-clip", birds / "images", *CPU)
    first = cli(*words, "--features", kept, "--out", tmp_path / "first")
    assert first.code == 0, first.err
    more = (*words, "--candidates", birds / "names.parquet", "--template", "{}", "--workers", 2)
    fresh = cli(*more, "--features", tmp_path / "others", "--out", tmp_path / "fresh")
    from priorkit.models.vision.encoder import Encoder

    monkeypatch.setattr(Encoder, "encode_images", lambda *_, **__: pytest.fail("an image was embedded again"))
    second = cli(*more, "--features", kept, "--out", tmp_path / "second")
    assert second.code == 0, second.err
    assert "features from the cache" in second.err
    one, other = (open_artifact(found.path) for found in (fresh, second))
    assert one.digest == other.digest
    assert (one.manifest.cost["features_kept"], other.manifest.cost["features_kept"]) == (0, 1)
    monkeypatch.undo()
    damaged = next(kept.glob("*/features.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    third = cli(*more, "--features", kept, "--out", tmp_path / "third")
    assert "cached features cannot be used" in third.err
    assert open_artifact(third.path).digest == one.digest


def test_two_processes_give_the_same_bytes(birds: Path, ranked: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        "rank-e", GOLDEN / "tiny-clip", birds / "images", "--candidates", birds / "names.txt", *TEMPLATES,
        "--reverse", *CPU, "--features", tmp_path / "kept", "--out", tmp_path / "two",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
         "--master-port", str(port), "-m", "priorkit", *map(str, words)],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == str(tmp_path / "two")
    assert open_artifact(tmp_path / "two").digest == open_artifact(ranked).digest


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8, mlp_ratio=2
    )
    transformers.Dinov2Model(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_centroids_of_held_out_folds_rank_images_without_names(
    birds: Path, dino: Path, cli, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(birds / "images", images)
    Image.new("RGB", (9, 9), "red").save(images / "alone.png")
    with (images / "metadata.jsonl").open("a") as stream:
        stream.write(json.dumps({"file_name": "alone.png", "entity": "alone"}) + "\n")
    found = cli("rank-e", dino, images, "--by", "centroids", "--folds", 3, *CPU, "--out", tmp_path / "out")
    assert found.code == 0, found.err
    assert "1 entities have a single image" in found.err
    metrics = open_artifact(found.path).manifest.metrics
    assert (metrics["entities"], metrics["candidates"], metrics["entities_with_one_image"]) == (10, 11, 1)
    table = pq.read_table(found.path / "table.parquet").to_pydict()
    assert "alone" not in table["entity"]
    assert metrics["recall_at_1"]["value"] > 3 / 11  # three times chance: the shapes differ in color
    ranks = load_file(found.path / "scores.safetensors")["image_rank"]
    assert int(np.isnan(ranks).sum()) == 1
    for words, message in (
        ((), "--by centroids ranks the nearest class centroid"),
        (("--by", "centroids", "--reverse"), "has no effect with --by centroids"),
    ):
        refused = cli("rank-e", dino, images, *words, *CPU, "--out", tmp_path / "refused")
        assert refused.code == (2 if words else 3)
        assert message in refused.err
        assert not (tmp_path / "refused").exists()


def test_broken_and_unusual_inputs_are_counted(birds: Path, cli, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for entity, name in (("red circle", "red_circle_0.png"), ("green square", "green_square_0.png")):
        (images / entity).mkdir(parents=True)
        for number in range(3):
            shutil.copy(birds / "images" / name, images / entity / f"{number}.png")
    (images / "empty").mkdir()
    (images / "red circle" / "cut.png").write_bytes((birds / "images" / "red_circle_0.png").read_bytes()[:60])
    Image.new("CMYK", (40, 30)).save(images / "green square" / "print.jpg")
    (tmp_path / "names.txt").write_text("apple\nApple\nred circle\nＡＰＰＬＥ\n")
    words = ("rank-e", GOLDEN / "tiny-clip", images, "--candidates", tmp_path / "names.txt", *CPU)
    refused = cli(*words, "--out", tmp_path / "refused")
    assert refused.code == 3
    assert "cut.png" in refused.err
    found = cli(*words, "--reject-limit", 0.5, "--out", tmp_path / "out")
    assert found.code == 0, found.err
    metrics = open_artifact(found.path).manifest.metrics
    wanted = {
        "entities": 2, "images": 7, "candidates": 4, "rejected": 1, "entities_without_images": 1,
        "names_added": 2, "candidates_repeated": 2,
        "unusual_images": {"cmyk": 1, "sixteen_bit": 0, "animated": 0, "rotated": 0},
    }  # fmt: skip
    assert {name: metrics[name] for name in wanted} == wanted
    again = cli(*words, "--reject-limit", 0.5, "--template", "{}", "--out", tmp_path / "again")
    assert "features from the cache" in again.err
    assert open_artifact(again.path).manifest.metrics["unusual_images"] == wanted["unusual_images"]
    assert "the candidate file lacks 2 of the entities' names" in found.err
    assert "entities without a usable image: 1, such as 'empty'" in found.err
    (images / "Red Circle").mkdir()
    twice = cli(*words, "--reject-limit", 0.5, "--out", tmp_path / "twice")
    assert twice.code == 3
    assert "'Red Circle' and 'red circle' differ only in case or Unicode form" in twice.err
    other = cli(*words[:3], "--candidates", images, "--out", tmp_path / "other")
    assert other.code == 3
    assert "expected a file of names" in other.err


def test_templates_from_a_file_and_names_in_another_order(
    birds: Path, ranked: Path, cli, tmp_path: Path
) -> None:
    (tmp_path / "templates.txt").write_text("a photo of a {}.\n{}\n")
    found = cli(
        "rank-e", GOLDEN / "tiny-clip", birds / "images", "--candidates", birds / "names.parquet",
        "--template-file", tmp_path / "templates.txt", *CPU, "--out", tmp_path / "out",
    )  # fmt: skip
    assert found.code == 0, found.err
    both = cli(
        "rank-e", GOLDEN / "tiny-clip", birds / "images", "--template", "{}", "--template-file",
        tmp_path / "templates.txt", *CPU, "--out", tmp_path / "both",
    )  # fmt: skip
    assert both.code == 2
    assert "--template: has no effect with --template-file" in both.err
    one, other = (load_file(path / "scores.safetensors") for path in (ranked, found.path))
    for name in ("image_rank", "template_image_rank"):
        assert one[name].tolist() == other[name].tolist()


def with_weights(folder: Path, name: str, change: Callable[[np.ndarray], None]) -> Path:
    """The golden encoder with a changed tensor."""
    shutil.copytree(GOLDEN / "tiny-clip", folder, ignore=shutil.ignore_patterns("images"))
    tensors = load_file(folder / "model.safetensors")
    change(tensors[name])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("tensor", "value", "words"),
    [
        ("visual_projection.weight", np.nan, "its features of black_arrow_0.png are not finite"),
        ("visual_projection.weight", 0.0, "its features of .*png are zero .30 of 30 images"),
        ("text_projection.weight", np.nan, "its features of the text 'a photo of a .*' are not finite"),
    ],
)
def test_features_that_are_no_numbers_are_named_by_model_and_image_or_text(
    tensor: str, value: float, words: str, birds: Path, cli, tmp_path: Path
) -> None:
    encoder = with_weights(tmp_path / "encoder", tensor, lambda weights: weights.fill(value))
    kept = tmp_path / "features"
    for attempt in range(2):
        found = cli(
            "rank-e", encoder, birds / "images", *CPU, "--features", kept, "--out", tmp_path / str(attempt)
        )
        assert found.code == 3
        assert str(encoder) in found.err
        assert re.search(words, found.err), found.err


def test_names_of_the_same_features_are_one_warning(birds: Path, cli, tmp_path: Path) -> None:
    # A tower that reads nothing but the length of a name; the last token is the end token.
    def blind(weights: np.ndarray) -> None:
        weights[:-1] = weights[0]

    encoder = with_weights(tmp_path / "encoder", "text_model.embeddings.token_embedding.weight", blind)
    found = cli("rank-e", encoder, birds / "images", "--candidates", birds / "names.txt", *CPU, "--out", tmp_path / "out")  # fmt: skip
    assert found.code == 0, found.err
    assert len(re.findall("cannot tell", found.err)) == 1
    assert "they have the same features but for rounding (" in found.err
