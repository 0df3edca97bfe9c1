"""``priorkit diagnose`` on models of other families: evidence against plain computations, batches, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from priorkit.scoring.representations.centroids import assign_folds
from tests.support.evaluation_models import picture
from tests.support.image_text_models import save_image_text_model

NAMES = ("blue square", "green triangle", "red circle")
OPTIONS = ("--device", "cpu", "--precision", "fp32", "--resamples", 100, "--max-new-tokens", 3, "--seed", 4)
QUESTION = "What is shown in the image?\nAnswer the question using a single word or phrase."
TOWERS = ("vision_tower", "vision_model", "visual")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of different size of each of three entities."""
    root = tmp_path_factory.mktemp("images")
    for number, name in enumerate(NAMES):
        (root / name).mkdir()
        for copy, side in enumerate((40, 100)):
            (root / name / f"{copy}.png").write_bytes(picture(10 * number + copy, side))
    return root


@pytest.mark.parametrize("family", ["llava_next", "qwen2_vl", "idefics3"])
def test_evidence_is_that_of_a_plain_computation_for_any_batch_size(
    cli, images: Path, tmp_path: Path, family: str
) -> None:
    model = tmp_path / "model"
    save_image_text_model(family, model)
    for size in (1, 3):
        done = cli("diagnose", model, images, *OPTIONS, "--batch-size", size, "--out", tmp_path / f"by{size}")
        assert done.code == 0, done.err
    one, three = (load_file(tmp_path / name / "scores.safetensors") for name in ("by1", "by3"))
    for name, values in one.items():
        np.testing.assert_allclose(values, three[name], atol=1e-3, rtol=1e-3, err_msg=name)
    tables = [pq.read_table(tmp_path / name / "table.parquet").to_pydict() for name in ("by1", "by3")]
    assert tables[0]["verdict"] == tables[1]["verdict"]
    shown = pq.read_table(tmp_path / "by3" / "images.parquet").to_pydict()
    plain = Plain(model)
    paths = [
        images / entity / Path(path).name for entity, path in zip(shown["entity"], shown["path"], strict=True)
    ]
    group = [NAMES.index(name) for name in shown["entity"]]
    scores = np.array([[plain.score(path, name) for name in NAMES] for path in paths])
    assert [NAMES.index(name) for name in shown["taken"]] == scores.argmax(1).tolist()
    own = scores[np.arange(6), group]
    wrong = np.where(np.eye(3, dtype=bool)[group], -np.inf, scores).max(1)
    margin = [float((own - wrong)[[g == entity for g in group]].mean()) for entity in range(3)]
    assert tables[1]["likelihood_margin"] == pytest.approx(margin, abs=2e-3)
    fold = assign_folds(shown["path"], group, 5, 4).numpy()
    expected = separability(np.stack([plain.feature(path) for path in paths]), np.array(group), fold)
    np.testing.assert_allclose(three["encoder"], expected)
    results = json.loads((tmp_path / "by3" / "results.json").read_text("utf-8"))
    assert results["left_out"] == {}
    assert set(results["not_measured"]) == {
        "rank_e",
        "fact_margin",
        "captions",
        "instructions",
        "fact_accuracy",
    }


def separability(features: np.ndarray, group: np.ndarray, fold: np.ndarray) -> list[float]:
    """Reciprocal rank of the own centroid among all, by cosine of centered features, the image's fold left out."""

    def unit(values: np.ndarray) -> np.ndarray:
        return values / np.linalg.norm(values, axis=-1, keepdims=True)

    values = unit(features - features.mean(0))
    found: list[float] = []
    for row, entity in enumerate(group):
        used = fold != fold[row]
        cosines = [float(values[row] @ unit(values[used & (group == other)].mean(0))) for other in range(3)]
        found.append(1 / (1 + sum(value > cosines[entity] for value in cosines)))
    return found


class Plain:
    """The model and its processor as anybody would use them."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.processor: Any = AutoProcessor.from_pretrained(folder)
        turn = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        self.prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": turn}], add_generation_prompt=True, tokenize=False
        )

    def _inputs(self, text: str, path: Path) -> Any:
        with Image.open(path) as image:
            return self.processor(text=[text], images=[[image.convert("RGB")]], return_tensors="pt")

    @torch.no_grad()
    def score(self, path: Path, name: str) -> float:
        """Log-probability of a name after the prompt, by one forward pass."""
        tail = self.processor.tokenizer(name, add_special_tokens=False)["input_ids"]
        inputs = self._inputs(self.prompt + name, path)
        assert inputs["input_ids"][0, -len(tail) :].tolist() == tail
        logits = self.model(**inputs).logits[0, -len(tail) - 1 : -1]
        return float(logits.log_softmax(-1).gather(-1, torch.tensor(tail)[:, None]).double().sum())

    @torch.no_grad()
    def feature(self, path: Path) -> np.ndarray:
        """The mean over positions of what the projector reads while the model reads the prompt, float64."""
        seen: list[Any] = []
        inner = self.model.model
        if hasattr(inner, "multi_modal_projector"):
            handle = inner.multi_modal_projector.register_forward_pre_hook(
                lambda module, args: seen.append(args[0])
            )
        else:
            tower = next(getattr(inner, name) for name in TOWERS if hasattr(inner, name))
            handle = tower.register_forward_hook(
                lambda module, args, output: seen.append(output.last_hidden_state)
            )
        self.model(**self._inputs(self.prompt, path))
        handle.remove()
        return seen[0].reshape(-1, seen[0].shape[-1]).double().mean(0).numpy()


def test_a_model_without_chat_template_is_asked_in_plain_text_and_causes_have_no_commands(
    cli, images: Path, tmp_path: Path
) -> None:
    save_image_text_model("paligemma", tmp_path / "model")
    (tmp_path / "control.txt").write_text("blue square\ngreen triangle\n")
    done = cli(
        "diagnose", tmp_path / "model", images, *OPTIONS, "--control", tmp_path / "control.txt",
        "--false-discovery-rate", 0.99, "--works-from", 0.9, "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "the model has no chat template and is asked in plain text" in done.err
    results = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert results["remedies"]
    assert all(remedy["commands"] == [] for remedy in results["remedies"].values())
    script = (tmp_path / "out" / "remedies" / "commands.sh").read_text("utf-8")
    assert "priorkit does not train this family of models" in script
    paged = cli("report", tmp_path / "out", "--resamples", 100, "--out", tmp_path / "page")
    assert paged.code == 0, paged.err


def test_what_cross_attention_does_not_allow_is_left_out_and_said(cli, images: Path, tmp_path: Path) -> None:
    save_image_text_model("mllama", tmp_path / "model")
    done = cli(
        "diagnose", tmp_path / "model", images, *OPTIONS, "--precision", "bf16", "--out", tmp_path / "out"
    )
    assert done.code == 0, done.err
    assert "name_retrieval is left out: its language model reads images otherwise" in done.err
    results = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert set(results["left_out"]) == {"name_retrieval"} < set(results["not_measured"])
    assert "name_retrieval" not in pq.read_table(tmp_path / "out" / "table.parquet").column_names
    assert cli("report", tmp_path / "out", "--out", tmp_path / "page").code == 0
    page = (tmp_path / "page" / "report.html").read_text("utf-8")
    assert "Left out: name retrieval (its language model reads images otherwise" in page


def kind(folder: Path, model_type: str) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"model_type": model_type}), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: kind(folder, "florence2"), "a model of type 'florence2' is an encoder-decoder"),
        (lambda folder: kind(folder, "qwen2_audio"), "a model of type 'qwen2_audio' takes sound or video, not images"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors here"),
    ],
)  # fmt: skip
def test_what_cannot_be_diagnosed_is_refused_before_a_weight_is_read(
    cli, images: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    save_image_text_model("qwen2_vl", tmp_path / "model")
    damage(tmp_path / "model")
    done = cli("diagnose", tmp_path / "model", images, "--check", "--out", tmp_path / "out")
    assert done.code == 3
    assert message in done.err
    shutil.rmtree(tmp_path / "model")
