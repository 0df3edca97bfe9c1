"""``priorkit evaluate`` on models of any family: controls, resuming, back ends, and what is refused with its reason."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from priorkit.core.errors import InputError
from priorkit.inference.backends.generate import GenerateBackend
from priorkit.models.multimodal.image_text import check_image_tokens
from tests.support.evaluation_models import picture
from tests.support.image_text_models import build_tokenizer, save_image_text_model
from tests.support.vllm_stand_in import install_vllm

FAST = ("--device", "cpu", "--max-new-tokens", 4, "--resamples", 100, "--batch-size", 3)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    save_image_text_model("qwen2_vl", folder)
    return folder


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "questions.jsonl"
    rows = [
        {
            "id": f"q{n}", "question": "What is shown" + " here" * (n % 4) + "?", "task": "choice",
            "choices": ["a red circle", "it", f"star {n}"], "answer": n % 3,
            "image": "data:image/png;base64," + base64.b64encode(picture(n % 4, 40 + 40 * (n % 3))).decode(),
        }
        for n in range(8)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]


def test_controls_change_what_is_shown_and_nothing_else(
    cli, qwen: Path, benchmark: Path, tmp_path: Path
) -> None:
    runs = {"seen": (), "blind": ("--blind",), "shuffled": ("--shuffle-images",), "circular": ("--circular",)}
    found: dict[str, list[dict[str, Any]]] = {}
    for name, options in runs.items():
        done = cli("evaluate", qwen, benchmark, *FAST, *options, "--out", tmp_path / name)
        assert done.code == 0, done.err
        found[name] = samples(tmp_path / name)
    assert all("<|image_pad|>" in row["prompt"] for row in found["seen"])
    assert all("<|image_pad|>" not in row["prompt"] and row["withheld"] for row in found["blind"])
    assert [row["prompt"] for row in found["seen"]] == [row["prompt"] for row in found["shuffled"]]
    assert all(len(row["turns"]) == 2 for row in found["circular"])
    asked = json.loads((tmp_path / "seen" / "results.json").read_text("utf-8"))["asked"]
    assert (asked["backend"], asked["precision"], asked["prompt"]) == ("transformers", "fp32", "chat")


def test_images_beyond_the_bound_are_scaled_down(cli, qwen: Path, benchmark: Path, tmp_path: Path) -> None:
    bounded = ("--max-image-pixels", 56 * 56)
    assert cli("evaluate", qwen, benchmark, *FAST, "--out", tmp_path / "full").code == 0
    assert cli("evaluate", qwen, benchmark, *FAST, *bounded, "--out", tmp_path / "small").code == 0
    tokens = [
        {row["id"]: row["image_tokens"] for row in samples(tmp_path / name)} for name in ("full", "small")
    ]
    assert max(tokens[1].values()) == 4 < max(tokens[0].values())
    compared = cli(
        "evaluate", "--rescore", tmp_path / "full", "--compare", tmp_path / "small", "--out", tmp_path / "why"
    )
    assert compared.code == 0, compared.err
    why = json.loads((tmp_path / "why" / "comparison.json").read_text("utf-8"))
    assert why["changed"] == {"max_image_pixels": [None, 56 * 56]}
    assert set(why["benchmarks"]["questions"]["reasons"]) <= {"images", "preparation"}


def test_a_stopped_run_continues_to_the_same_bytes(
    cli, qwen: Path, benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("evaluate", qwen, benchmark, *FAST, "--by", "generation", "--out")
    assert cli(*arguments, tmp_path / "whole").code == 0
    generate, calls = GenerateBackend.generate, []

    def stop_at_the_third(self: GenerateBackend, *given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(self, *given)

    monkeypatch.setattr(GenerateBackend, "generate", stop_at_the_third)
    assert cli(*arguments, tmp_path / "parts").code == 130
    monkeypatch.setattr(GenerateBackend, "generate", generate)
    resumed = cli(*arguments, tmp_path / "parts")
    assert resumed.code == 0, resumed.err
    assert "6 of 8 already answered" in resumed.err
    for name in ("results.json", "samples.jsonl", "scores.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("by", ["likelihood", "generation"])
def test_vllm_gives_what_transformers_gives(
    cli, qwen: Path, benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    install_vllm(monkeypatch)
    for backend in ("vllm", "transformers"):
        done = cli(
            "evaluate", qwen, benchmark, *FAST, "--by", by, "--choices", "text", "--backend", backend,
            "--out", tmp_path / backend,
        )  # fmt: skip
        assert done.code == 0, done.err
    ours, theirs = samples(tmp_path / "vllm"), samples(tmp_path / "transformers")
    for one, other in zip(ours, theirs, strict=True):
        first, second = one.pop("loglikelihoods", None), other.pop("loglikelihoods", None)
        assert one == other
        assert first == (second if second is None else pytest.approx(second, abs=1e-3))
    compared = cli(
        "evaluate",
        "--rescore",
        tmp_path / "vllm",
        "--compare",
        tmp_path / "transformers",
        "--out",
        tmp_path / "c",
    )
    assert compared.code == 0, compared.err
    assert "asked differently: backend" in compared.err


@pytest.mark.parametrize("backend", ["transformers", "vllm"])
def test_back_ends_agree_on_a_language_model_and_on_llava(
    cli, artifacts, benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    install_vllm(monkeypatch)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": t}) + "\n" for t in ("a red circle", "it is a star")))
    for model, given, more in (
        (artifacts.llm, texts, ()),
        (artifacts.mllm, benchmark, ("--choices", "text")),
    ):
        for name in ("priorkit", backend):
            out = tmp_path / f"{name}-{Path(model).name}"
            done = cli("evaluate", model, given, *FAST, *more, "--backend", name, "--out", out)
            assert done.code == 0, done.err
        scores = [
            [
                row.get("loglikelihoods") or row["score"]
                for row in samples(tmp_path / f"{name}-{Path(model).name}")
            ]
            for name in ("priorkit", backend)
        ]
        for one, other in zip(*scores, strict=True):
            assert one == pytest.approx(other, abs=1e-3)


def test_in_bf16_weights_and_inputs_have_that_type_and_every_item_a_record(
    cli, qwen: Path, benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[torch.dtype] = set()
    run = GenerateBackend._run

    def noted(self: GenerateBackend, inputs: Any, **options: Any) -> Any:
        seen.update(parameter.dtype for parameter in self.model.parameters())
        seen.add(inputs["pixel_values"].dtype)
        return run(self, inputs, **options)

    monkeypatch.setattr(GenerateBackend, "_run", noted)
    for by in ("generation", "likelihood"):
        out = tmp_path / by
        done = cli("evaluate", qwen, benchmark, *FAST, "--precision", "bf16", "--by", by, "--out", out)
        assert done.code == 0, done.err
        assert seen == {torch.bfloat16}
        assert [row["id"] for row in samples(out)] == [f"q{n}" for n in range(8)]
        assert json.loads((out / "results.json").read_text("utf-8"))["asked"]["precision"] == "bf16"
    assert all(len(row["loglikelihoods"]) == 3 for row in samples(out))


def test_the_encoder_inside_a_model_has_ranks_by_centroids_and_a_probe(
    cli, artifacts, qwen: Path, tmp_path: Path
) -> None:
    refused = cli("rank-e", qwen, artifacts.images, "--device", "cpu", "--out", tmp_path / "out")
    assert refused.code == 3
    assert "'qwen2_vl' has no text tower; names cannot be ranked" in refused.err
    for model in (qwen, artifacts.mllm):
        out = tmp_path / f"{Path(model).name}-ranks"
        ranked = cli(
            "rank-e",
            model,
            artifacts.images,
            "--by",
            "centroids",
            "--folds",
            2,
            "--device",
            "cpu",
            "--out",
            out,
        )
        assert ranked.code == 0, ranked.err
        assert (out / "table.parquet").is_file()
    out = tmp_path / "diagnosis"
    checked = cli(
        "diagnose",
        artifacts.mllm,
        artifacts.images,
        "--encoder",
        qwen,
        "--device",
        "cpu",
        "--check",
        "--out",
        out,
    )
    assert checked.code == 0, checked.err
    assert "only the probe" in checked.err


def changed(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((folder / name).read_text("utf-8"))
    change(content)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def remote_code(folder: Path) -> None:
    changed(
        folder, "config.json", lambda c: c.update(model_type="my_vlm", auto_map={"AutoModel": "mine.Model"})
    )


def audio(folder: Path) -> None:
    changed(folder, "config.json", lambda c: c.update(model_type="qwen2_audio"))


def encoder_decoder(folder: Path) -> None:
    changed(folder, "config.json", lambda c: c.update(model_type="florence2"))


def phi4(folder: Path) -> None:
    changed(folder, "config.json", lambda c: c.update(model_type="phi4_multimodal"))


def blip2_with_t5(folder: Path) -> None:
    from transformers import Blip2Config, T5Config

    Blip2Config(text_config=T5Config(d_model=32, num_layers=1, num_heads=2).to_dict()).save_pretrained(folder)


def no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def no_image_token(folder: Path) -> None:
    changed(folder, "processor_config.json", lambda c: c["image_processor"].update(patch_size=None))


def no_image_token_in_the_processor(folder: Path) -> None:
    from transformers import CLIPImageProcessor, GitConfig, GitProcessor

    tokenizer = build_tokenizer()
    for name in ("processor_config.json", "tokenizer_config.json", "tokenizer.json"):
        (folder / name).unlink()
    GitConfig().save_pretrained(folder)
    GitProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            remote_code,
            "a model of type 'my_vlm' needs its own code (auto_map in config.json), which is never run",
        ),
        (audio, "a model of type 'qwen2_audio' takes sound or video, not images"),
        (encoder_decoder, "a model of type 'florence2' is an encoder-decoder: its answer does not continue"),
        (blip2_with_t5, "a model of type 'blip-2' is an encoder-decoder"),
        (phi4, "does not load a model of type 'phi4_multimodal' as an image-text-to-text model"),
        (no_template, "the model has no chat template"),
        (no_image_token, "cannot prepare a picture"),
        (no_image_token_in_the_processor, "its processor has no token for an image"),
        (no_weights, "no model.safetensors here"),
    ],
)
def test_what_cannot_be_run_is_refused_before_a_weight_is_read(
    cli, qwen: Path, benchmark: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(qwen, folder)
    damage(folder)
    done = cli("evaluate", folder, benchmark, "--out", tmp_path / "out", "--check")
    assert done.code == 3
    assert message in done.err


def test_prompts_of_a_model_without_template_are_plain_text(cli, benchmark: Path, tmp_path: Path) -> None:
    save_image_text_model("paligemma", tmp_path / "model")
    done = cli(
        "evaluate", tmp_path / "model", benchmark, *FAST, "--prompt", "plain", "--out", tmp_path / "out"
    )
    assert done.code == 0, done.err
    assert samples(tmp_path / "out")[0]["prompt"].startswith("<image>\nWhat is shown?")


def test_items_longer_than_the_model_are_counted(cli, qwen: Path, benchmark: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(qwen, folder)
    changed(folder, "config.json", lambda c: c["text_config"].update(max_position_embeddings=128))
    rows = [json.loads(line) for line in benchmark.read_text("utf-8").splitlines()]
    rows[2]["question"] = "What is it? " * 30
    long = tmp_path / "long.jsonl"
    long.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = ("evaluate", folder, long, *FAST, "--out", tmp_path / "out")
    stopped = cli(*arguments, "--reject-limit", 0)
    assert stopped.code == 3
    assert "images and question take" in stopped.err
    done = cli(*arguments, "--reject-limit", 0.5, "--force")
    assert done.code == 0, done.err
    assert [row["id"] for row in samples(tmp_path / "out")] == [f"q{n}" for n in range(8) if n != 2]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--backend", "priorkit"), 3, "priorkit's own loops run language models, LLaVA and LION only"),
        (("--backend", "vllm"), 4, "vLLM is not installed"),
    ],
)
def test_back_ends_that_do_not_run_a_model(
    cli, qwen: Path, benchmark: Path, tmp_path: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    done = cli("evaluate", qwen, benchmark, *options, "--out", tmp_path / "out")
    assert done.code == code
    assert message in done.err


def test_more_images_than_the_engine_takes_are_counted(
    cli, qwen: Path, benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_vllm(monkeypatch)
    rows = [json.loads(line) for line in benchmark.read_text("utf-8").splitlines()]
    rows[3]["image"] = [rows[3]["image"]] * 9
    many = tmp_path / "many.jsonl"
    many.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = ("evaluate", qwen, many, *FAST, "--backend", "vllm", "--out", tmp_path / "out")
    stopped = cli(*arguments, "--reject-limit", 0)
    assert stopped.code == 3
    assert "it has 9 images, the engine takes 8" in stopped.err
    done = cli(*arguments, "--reject-limit", 0.5, "--force")
    assert done.code == 0, done.err
    assert [row["id"] for row in samples(tmp_path / "out")] == [f"q{n}" for n in range(8) if n != 3]


def test_more_images_than_the_processor_takes_are_counted(
    cli, qwen: Path, benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As processors do that limit the images of a prompt: they raise."""
    from transformers import Qwen2VLProcessor

    prepare: Any = Qwen2VLProcessor.__call__

    def limited(self: Any, images: Any = None, **given: Any) -> Any:
        most = max((len(shown) for shown in images or ()), default=0)
        if most > 2:
            raise ValueError(f"at most 2 images per prompt,\n  got {most}")
        return prepare(self, images=images, **given)

    rows = [json.loads(line) for line in benchmark.read_text("utf-8").splitlines()]
    rows[2]["image"] = [rows[2]["image"]] * 2
    rows[5]["image"] = [rows[5]["image"]] * 3
    many = tmp_path / "many.jsonl"
    many.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = ("evaluate", qwen, many, *FAST, "--out")
    assert cli(*arguments, tmp_path / "unlimited").code == 0
    monkeypatch.setattr(Qwen2VLProcessor, "__call__", limited)
    stopped = cli(*arguments, tmp_path / "out", "--reject-limit", 0)
    assert stopped.code == 3
    assert "its processor does not take it: at most 2 images per prompt, got 3" in stopped.err
    done = cli(*arguments, tmp_path / "out", "--reject-limit", 0.5, "--force")
    assert done.code == 0, done.err
    kept = [row for row in samples(tmp_path / "unlimited") if row["id"] != "q5"]
    assert [(row["id"], row["score"]) for row in samples(tmp_path / "out")] == [
        (row["id"], row["score"]) for row in kept
    ]


def test_a_vocabulary_without_the_token_for_an_image_is_refused(tmp_path: Path) -> None:
    class Processor:
        image_token_ids = (None, 7)

        def __call__(self, **given: Any) -> dict[str, list[list[int]]]:
            return {"input_ids": [[1, 2, 3]]}

    with pytest.raises(InputError, match="the tokenizer has no token for images: '<image>' becomes none"):
        check_image_tokens(Processor(), "<image>", tmp_path)


def test_options_without_effect_are_refused(cli, artifacts, benchmark: Path, tmp_path: Path) -> None:
    done = cli("evaluate", artifacts.mllm, benchmark, "--max-image-pixels", 100, "--out", tmp_path / "out")
    assert done.code == 2
    assert "has no effect" in done.err
