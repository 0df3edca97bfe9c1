"""The region term of ``pretrain-encoder`` from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import CLIPModel, SiglipModel

from priorkit.core import artifact
from tests.support.killed_runs import Runs
from tests.support.region_pairs import region_rows, write_pairs

NEW = (
    "--preset", "pocket-tiny", "--vocab-size", 400, "--steps", 4, "--batch-size", 8, "--warmup-steps", 1,
    "--precision", "fp32", "--device", "cpu",
)  # fmt: skip
BOTH = ("--region-weight", 0.5, "--region-box-weight", 0.2)
VIEWS = ("--augment-crop", 0.5, "--augment-flip", "--augment-shift", 4)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.parquet", region_rows(24))


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("loss", "family"), [("clip", CLIPModel), ("siglip", SiglipModel)])
def test_the_artifact_stays_a_plain_model_and_names_the_terms(
    loss: str, family, pairs: Path, cli, tmp_path: Path
) -> None:
    found = cli("pretrain-encoder", pairs, *NEW, *BOTH, *VIEWS, "--loss", loss, "--out", tmp_path / "on")
    assert found.code == 0, found.err
    info = family.from_pretrained(found.path, output_loading_info=True)[1]
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    rows, metrics = logged(found.path), json.loads((found.path / "priorkit.json").read_text())["metrics"]
    for row in rows:
        total = row["contrastive"] + 0.5 * row["region"] + 0.2 * row["region_box"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)
        assert 0 < row["regions_per_image"] <= 2
    assert metrics["regions"] > 24
    assert metrics["region"] == pytest.approx(rows[-1]["region"])
    again = cli(
        "pretrain-encoder",
        pairs,
        *NEW,
        *BOTH,
        *VIEWS,
        "--loss",
        loss,
        "--workers",
        2,
        "--out",
        tmp_path / "again",
    )
    assert (again.path / "model.safetensors").read_bytes() == (found.path / "model.safetensors").read_bytes()


def test_without_weights_nothing_changes(pairs: Path, cli, tmp_path: Path) -> None:
    plain = write_pairs(tmp_path / "plain.parquet", region_rows(24), regions=False)
    one = cli("pretrain-encoder", plain, *NEW, "--out", tmp_path / "one")
    two = cli("pretrain-encoder", pairs, *NEW, "--region-weight", 0, "--out", tmp_path / "two")
    on = cli("pretrain-encoder", pairs, *NEW, *BOTH, "--out", tmp_path / "on")
    assert (one.code, two.code, on.code) == (0, 0, 0), one.err + two.err + on.err
    assert artifact.open_artifact(one.path).digest == artifact.open_artifact(two.path).digest
    assert artifact.open_artifact(one.path).digest != artifact.open_artifact(on.path).digest
    assert set(logged(two.path)[0]) == {"step", "images", "learning_rate", "gradient_norm", "loss", "weight"}


def test_a_layer_is_one_layer_however_it_is_numbered(pairs: Path, cli, tmp_path: Path) -> None:
    digests = {}
    for layer in (-1, 2, -2):
        found = cli(
            "pretrain-encoder", pairs, *NEW, *BOTH, "--region-layer", layer, "--out", tmp_path / str(layer)
        )
        assert found.code == 0, found.err
        digests[layer] = artifact.open_artifact(found.path).digest
    assert digests[-1] == digests[2] != digests[-2]


@pytest.mark.parametrize(("place", "times"), [("a step", 5), ("saving the state", 3)])
def test_a_killed_run_ends_with_the_same_bytes(
    place: str, times: int, pairs: Path, cli, tmp_path: Path
) -> None:
    runs = Runs(
        cli,
        ["pretrain-encoder", pairs, *NEW, "--steps", 8, *BOTH, *VIEWS, "--checkpoint-every", 2, "--quiet"],
    )
    whole = runs.whole(tmp_path / "whole")
    out = tmp_path / "killed"
    # The checkpoint before is complete; a kill in the midst of writing the next one does not wait for it.
    runs.killed(out, place, times, written=place == "a step")
    state = sorted((tmp_path / "killed.partial" / "state").glob("step-*"))
    assert state
    with safe_open(state[-1] / "trained.safetensors", "pt") as tensors:
        assert "box_head.weight" in tensors.keys()  # noqa: SIM118
    assert runs.run(out).code == 0
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (out / name).read_bytes() == (whole.path / name).read_bytes()
    assert artifact.open_artifact(out).digest == whole.digest


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--region-weight", -1), 2, ("--region-weight",)),
        (("--region-layer", -1), 2, ("--region-layer", "no effect without --region-weight")),
        (("--region-weight", 1, "--region-layer", 3), 2, ("--region-layer 3", "-3 to 2")),
        (("--region-box-weight", 1, "--region-layer", -4), 2, ("--region-layer -4",)),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: tuple[object, ...], code: int, words: tuple[str, ...], pairs: Path, cli, tmp_path: Path
) -> None:
    for more in (("--check",), ()):
        found = cli("pretrain-encoder", pairs, *NEW, *options, *more, "--out", tmp_path / "x")
        assert found.code == code
        assert all(word in found.err for word in words), found.err
    assert not list(tmp_path.glob("x*"))


def test_an_encoder_of_one_patch_is_refused(pairs: Path, cli, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    vision = {"hidden_size": 32, "image_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    config.write_text(json.dumps({"vision_config": vision, "text_config": {"max_position_embeddings": 16}}))
    new = ("--vocab-size", 400, "--steps", 1)
    found = cli(
        "pretrain-encoder", pairs, *new, "--config", config, "--region-weight", 1, "--region-layer", 0, "--check",
        "--out", tmp_path / "x",
    )  # fmt: skip
    assert found.code == 2
    assert "one patch of 32 pixels" in found.err


def test_pairs_without_regions_are_refused(cli, tmp_path: Path) -> None:
    plain = write_pairs(tmp_path / "plain.parquet", region_rows(8), regions=False)
    empty = write_pairs(tmp_path / "empty.parquet", region_rows(8, keep=lambda row: False))
    for file in (plain, empty):
        for more in (("--check",), ()):
            found = cli("pretrain-encoder", file, *NEW, *BOTH, *more, "--out", tmp_path / "x")
            assert found.code == 3
            assert "no row has a region" in found.err
            assert '"regions"' in found.err


def test_broken_regions_are_rejected_by_row(cli, tmp_path: Path) -> None:
    rows = region_rows(24)
    rows[3]["regions"][0]["box"] = [0.5, 0.5, 0.2, 0.9]
    rows[7]["regions"][0]["text"] = " "
    file = write_pairs(tmp_path / "pairs.parquet", rows)
    strict = cli("pretrain-encoder", file, *NEW, *BOTH, "--reject-limit", 0.01, "--out", tmp_path / "x")
    assert strict.code == 3
    assert f"{file}:4: 'regions', region 1: the box [0.5, 0.5, 0.2, 0.9] has reversed corners" in strict.err
    found = cli("pretrain-encoder", file, *NEW, *BOTH, "--reject-limit", 0.1, "--out", tmp_path / "y")
    assert found.code == 0, found.err
    rejects = [json.loads(line) for line in (found.path / "rejects.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rejects] == [4, 8]
    # Without the term nobody reads them.
    off = cli("pretrain-encoder", file, *NEW, "--reject-limit", 0.0, "--out", tmp_path / "z")
    assert off.code == 0, off.err


def test_align_warns_where_it_reads_another_layer(artifacts, pairs: Path, cli, tmp_path: Path) -> None:
    encoder = cli("pretrain-encoder", pairs, *NEW, *BOTH, "--steps", 1, "--out", tmp_path / "encoder")
    assert encoder.code == 0, encoder.err
    for layer, warns in ((-1, True), (-2, False), (1, False), (0, True)):
        found = cli(
            "align", artifacts.llm, encoder.path, artifacts.captions, "--feature-layer", layer, "--check",
            "--out", tmp_path / "x",
        )  # fmt: skip
        assert found.code == 0, found.err
        assert ("use --feature-layer -2" in found.err) == warns
    plain = cli(
        "align",
        artifacts.llm,
        artifacts.encoder,
        artifacts.captions,
        "--feature-layer",
        -1,
        "--check",
        "--out",
        tmp_path / "x",
    )
    assert "--feature-layer -2" not in plain.err
