"""``priorkit evaluate`` from the command line: golden predictions, models, bad input, exit codes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from priorkit.cli.main import run
from priorkit.core.process.threads import in_threads, streamed_in_threads
from priorkit.models.language.causal_lm import build_config, build_llm, preset_fields
from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe
from priorkit.models.multimodal.llava import load_llava
from priorkit.models.multimodal.llava_assembly import assemble_llava
from priorkit.models.vision.building import build_encoder

GOLDEN = Path(__file__).parents[1] / "golden"
Rows = list[dict[str, Any]]


def golden(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def write(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def samples(out: Path) -> Rows:
    return [json.loads(line) for line in (out / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def evaluate(out: Path, *arguments: str) -> dict[str, Any]:
    assert run(["evaluate", *arguments, "--out", str(out), "--quiet"]) == 0
    return json.loads((out / "results.json").read_text(encoding="utf-8"))["benchmarks"]


def score(tmp_path: Path, task: str, rows: Rows, *more: str) -> tuple[dict[str, Any], Rows]:
    """Metrics (and the full entry under ``entry``) and samples of predictions."""
    file = write(tmp_path / "answers.jsonl", [{"id": number, **row} for number, row in enumerate(rows)])
    out = tmp_path / f"scores-{task}"
    entry = evaluate(out, "--predictions", file, "--task", task, *more)["answers"]
    values = {name: found["value"] for name, found in entry["metrics"].items()}
    assert all(found["low"] <= found["value"] <= found["high"] for found in entry["metrics"].values())
    assert entry["items"] == len(rows)
    return {**values, "entry": entry}, samples(out)


@pytest.mark.parametrize(("name", "task"), [("vqa_accuracy", "vqa"), ("textvqa", "textvqa")])
def test_golden_vqa(tmp_path: Path, name: str, task: str) -> None:
    data = golden(name)
    rows = [{key: case["input"][key] for key in ("prediction", "answers")} for case in data["cases"]]
    metrics, found = score(tmp_path, task, rows)
    assert metrics["accuracy"] == pytest.approx(data["aggregate"]["accuracy_mean"], abs=1e-9)
    for case, sample in zip(data["cases"], found, strict=True):
        assert sample["score"] == pytest.approx(case["expected"]["accuracy"], abs=1e-9)
        assert sample["parsed"] in (case["expected"]["prediction_after"], None)


def test_golden_gqa(tmp_path: Path) -> None:
    data = golden("gqa")
    rows = [
        {
            "prediction": case["input"]["prediction"],
            "answer": case["input"]["gold"],
            "category": "open" if case["input"]["structural"] == "query" else "binary",
        }
        for case in data["cases"]
    ]
    metrics, found = score(tmp_path, "gqa", rows, "--group-by", "category")
    assert metrics["accuracy"] == pytest.approx(data["aggregate"]["accuracy"])
    assert [sample["score"] for sample in found] == [case["expected"]["correct"] for case in data["cases"]]
    groups = metrics["entry"]["groups"]["category"]
    for name in ("binary", "open"):
        assert groups[name]["metrics"]["accuracy"]["value"] == pytest.approx(data["aggregate"][name])


def test_golden_pope(tmp_path: Path) -> None:
    data = golden("pope")
    rows = [
        {
            "prediction": c["input"]["answer"],
            "answer": c["input"]["label"],
            "category": c["input"]["category"],
        }
        for c in data["cases"]
    ]
    metrics, found = score(tmp_path, "yes-no", rows, "--group-by", "category")
    assert [sample["parsed"] for sample in found] == [case["expected"]["reading"] for case in data["cases"]]
    groups = metrics["entry"]["groups"]["category"]
    for name in ("accuracy", "precision", "recall", "f1", "yes_ratio"):
        assert metrics[name] == pytest.approx(data["aggregate"][name])
        for category, expected in data["aggregate"]["per_category"].items():
            assert groups[category]["metrics"][name]["value"] == pytest.approx(expected[name])


@pytest.mark.parametrize(("parser", "column"), [("careful", "human"), ("lsbs", "lsbs")])
def test_golden_choice(tmp_path: Path, parser: str, column: str) -> None:
    data = golden("mcq_parse")
    letters = [case["expected"][column] for case in data["cases"]]
    places = [None if letter is None else "ABCD".index(letter) for letter in letters]
    rows = [
        {"prediction": c["input"]["answer"], "choices": c["input"]["options"], "answer": place or 0}
        for c, place in zip(data["cases"], places, strict=True)
    ]
    metrics, found = score(tmp_path, "choice", rows, "--parser", parser)
    assert [sample["parsed"] for sample in found] == places
    assert metrics["entry"]["unparsed"] == places.count(None)
    assert metrics["entry"]["unparsed_rate"] == pytest.approx(places.count(None) / len(places))
    assert metrics["accuracy"] == pytest.approx(1 - places.count(None) / len(places))


def test_golden_captions(tmp_path: Path) -> None:
    data = golden("cider")
    rows = [
        {"prediction": case["input"]["candidate"], "references": case["input"]["references"]}
        for case in data["cases"]
    ]
    metrics, found = score(tmp_path, "caption", rows)
    aggregate = data["aggregate"]
    assert metrics["cider"] == pytest.approx(aggregate["cider"], abs=1e-9)
    assert metrics["bleu_4"] == pytest.approx(aggregate["bleu"][3], abs=1e-9)
    assert metrics["rouge_l"] == pytest.approx(aggregate["rouge_l"], abs=1e-9)
    for case, sample in zip(data["cases"], found, strict=True):
        assert sample["score"] == pytest.approx(case["expected"]["cider"], abs=1e-9)


def test_golden_grounding(tmp_path: Path) -> None:
    data = golden("refcoco")
    rows = [{"prediction": case["input"]["answer"], "box": case["input"]["gt"]} for case in data["cases"]]
    metrics, found = score(tmp_path, "grounding", rows)
    assert metrics["accuracy_at_0.5"] == pytest.approx(data["aggregate"]["acc_at_0.5"])
    assert metrics["mean_iou"] == pytest.approx(data["aggregate"]["mean_iou"], abs=1e-9)
    assert metrics["entry"]["unparsed"] == len(rows) - data["aggregate"]["parsed"]
    assert [sample["parsed"] for sample in found] == [case["expected"]["box"] for case in data["cases"]]


def test_golden_language_model(tmp_path: Path) -> None:
    data = golden("lm_harness")
    choices = [case["input"] for case in data["cases"] if case["input"]["kind"] == "multiple_choice"]
    rows = [{"question": i["context"], "choices": i["choices"], "answer": i["gold"]} for i in choices]
    texts = [case["input"]["text"] for case in data["cases"] if case["input"]["kind"] == "rolling"]
    found = evaluate(
        tmp_path / "out",
        str(GOLDEN / "tiny-llama"),
        write(tmp_path / "choices.jsonl", rows),
        write(tmp_path / "texts.jsonl", [{"text": text} for text in texts]),
    )
    values = {name: metric["value"] for entry in found.values() for name, metric in entry["metrics"].items()}
    for name in ("acc", "acc_norm"):
        assert values[name] == pytest.approx(data["aggregate"][name])
    assert values["accuracy"] == values["acc"]
    assert values["bits_per_byte"] == pytest.approx(data["aggregate"]["bits_per_byte"], rel=1e-6)
    for name in ("word_perplexity", "byte_perplexity"):
        assert values[name] == pytest.approx(data["aggregate"][name], rel=1e-5)
    tensors = load_file(tmp_path / "out" / "scores.safetensors")
    assert tensors["choices.score"].shape == (len(rows),)
    assert tensors["choices.loglikelihood"].shape == (tensors["choices.options"].sum(),)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``llm``, ``llava`` and ``encoder``, all tiny and random."""
    root = tmp_path_factory.mktemp("models")
    texts = [
        "What is shown in the image? A red circle.",
        "Is there a star? Yes. No.",
        "Which colour is it? blue",
    ]
    save_tokenizer(train_bpe(texts * 3, 320), root / "tokenizer")
    tokenizer = load_tokenizer(root / "tokenizer")
    fields = {**preset_fields("pocket-tiny"), "initializer_range": 0.3}
    llm = build_llm(build_config(fields, tokenizer), 1)
    llm.save_pretrained(root / "llm")
    tokenizer.save_pretrained(root / "llm")
    encoder = build_encoder("pocket-tiny", texts, [Image.linear_gradient("L").convert("RGB")], 300, 2)
    encoder.save(root / "encoder")
    assemble_llava(llm, tokenizer, encoder, -2, class_token=False, seed=3).save(root / "llava")
    return root


def png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(pixels, np.ones((6, 6, 1), dtype=np.uint8))).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of benchmarks with images, one per task."""
    root = tmp_path_factory.mktemp("benchmarks")
    (root / "pictures").mkdir()
    for number in range(8):
        (root / "pictures" / f"{number}.png").write_bytes(png(number))

    def rows(**truth: Any) -> Rows:
        return [
            {
                "id": f"q{number}",
                "image": f"pictures/{number}.png",
                "question": "What is shown?" if number % 2 else "Was ist hier zu sehen, 何ですか?",
                "ability": "naming" if number < 3 else "counting",
                **{key: value[number % len(value)] for key, value in truth.items()},
            }
            for number in range(8)
        ]

    write(root / "colours.jsonl", rows(choices=[["red", "deep blue"], ["red", "it", "no"]], answer=[0, "B"]))
    write(root / "existence.jsonl", rows(answer=["yes", "no"]))
    write(root / "open.jsonl", rows(answers=[["red", "blue"]]))
    write(root / "boxes.jsonl", rows(box=[[0.0, 0.0, 0.5, 0.5]]))
    write(root / "captions.jsonl", rows(references=[["a red circle", "the circle"]]))
    write(root / "pairs.jsonl", [{"image": f"pictures/{n}.png", "text": f"star {n % 5}"} for n in range(8)])
    return root


def test_a_multimodal_model_on_all_tasks(tmp_path: Path, models: Path, benchmarks: Path) -> None:
    names = ["colours", "existence", "open", "boxes", "captions"]
    files = [str(benchmarks / f"{name}.jsonl") for name in names]
    found = evaluate(tmp_path / "out", str(models / "llava"), *files, "--max-new-tokens", "4")
    assert list(found) == names
    assert [entry["by"] for entry in found.values()] == ["likelihood", "likelihood", *["generation"] * 3]
    assert {group: entry["items"] for group, entry in found["colours"]["groups"]["ability"].items()} == {
        "counting": 5,
        "naming": 3,
    }
    assert found["boxes"]["unparsed"] == 8
    first = samples(tmp_path / "out")[0]
    assert first["benchmark"] == "colours"
    assert first["id"] == "q0"
    assert first["prompt"].startswith(
        "USER: <image>\nWas ist hier zu sehen, 何ですか?\nA. red\nB. deep blue\n"
    )
    assert first["prediction"] == first["choices"][first["parsed"]]
    again = evaluate(
        tmp_path / "again", str(models / "llava"), *files, "--max-new-tokens", "4", "--batch-size", "3"
    )
    assert {name: entry["metrics"] for name, entry in again.items()} == {
        name: entry["metrics"] for name, entry in found.items()
    }


def test_options_texts_blind_limit_and_generation(tmp_path: Path, models: Path, benchmarks: Path) -> None:
    model, file = str(models / "llava"), str(benchmarks / "colours.jsonl")
    evaluate(tmp_path / "text", model, file, "--choices", "text", "--limit", "3")
    of_texts = samples(tmp_path / "text")
    assert len(of_texts) == 3
    assert "A. red" not in of_texts[0]["prompt"]
    evaluate(tmp_path / "blind", model, file, "--blind", "--by", "generation", "--max-new-tokens", "3")
    assert all("<image>" not in sample["prompt"] for sample in samples(tmp_path / "blind"))
    evaluate(tmp_path / "llm", str(models / "llm"), file, "--blind")
    assert samples(tmp_path / "llm")[1]["prompt"] == "What is shown?"
    rescored = evaluate(
        tmp_path / "from-predictions",
        "--predictions",
        str(tmp_path / "blind" / "samples.jsonl"),
        "--task",
        "choice",
    )["samples"]
    asked = json.loads((tmp_path / "blind" / "results.json").read_text(encoding="utf-8"))["benchmarks"][
        "colours"
    ]
    assert rescored["metrics"]["accuracy"]["value"] == asked["metrics"]["accuracy"]["value"]
    assert rescored["groups"]["ability"].keys() == asked["groups"]["ability"].keys()


def test_an_encoder_on_choices_and_retrieval(tmp_path: Path, models: Path, benchmarks: Path) -> None:
    files = [str(benchmarks / "colours.jsonl"), str(benchmarks / "pairs.jsonl")]
    found = evaluate(tmp_path / "out", str(models / "encoder"), *files)
    assert set(found["colours"]["metrics"]) == {"accuracy"}
    metrics = {name: metric["value"] for name, metric in found["pairs"]["metrics"].items()}
    ranks = [sample["rank"] for sample in samples(tmp_path / "out") if sample["benchmark"] == "pairs"]
    assert metrics["mean_rank"] == pytest.approx(np.mean(ranks))
    assert metrics["mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert max(ranks) <= 5


def test_an_adapter_is_put_on_its_base(tmp_path: Path, models: Path, benchmarks: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = load_llava(models / "llava").model
    torch.manual_seed(0)
    adapted = get_peft_model(
        base, LoraConfig(r=4, target_modules=r".*language_model.*q_proj", init_lora_weights=False)
    )
    adapted.peft_config["default"].base_model_name_or_path = str(models / "llava")
    adapted.save_pretrained(tmp_path / "adapter")
    file = str(benchmarks / "colours.jsonl")
    evaluate(tmp_path / "plain", str(models / "llava"), file)
    evaluate(tmp_path / "adapted", str(tmp_path / "adapter"), file)
    folded = adapted.merge_and_unload()
    folded.save_pretrained(tmp_path / "folded")
    load_llava(models / "llava").processor.save_pretrained(tmp_path / "folded")
    evaluate(tmp_path / "whole", str(tmp_path / "folded"), file)
    scores = {
        name: load_file(tmp_path / name / "scores.safetensors")["colours.loglikelihood"]
        for name in ("plain", "adapted", "whole")
    }
    assert scores["adapted"] == pytest.approx(scores["whole"], abs=1e-4)
    assert np.abs(scores["adapted"] - scores["plain"]).max() > 1e-2


def fail(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert run(["evaluate", *arguments]) == code
    return capsys.readouterr().err


def test_what_does_not_fit_together(
    tmp_path: Path, models: Path, benchmarks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", str(tmp_path / "out"))
    llm, llava, encoder = (str(models / name) for name in ("llm", "llava", "encoder"))
    colours, boxes, pairs = (str(benchmarks / f"{name}.jsonl") for name in ("colours", "boxes", "pairs"))
    assert "--blind" in fail(capsys, 3, llm, colours, *out)
    late = write(
        tmp_path / "late.jsonl",
        [{"question": "?", "answer": "a"}, {"question": "?", "answer": "a", "image": "1.png"}],
    )
    assert "a language model cannot see the images of late" in fail(capsys, 3, llm, late, *out)
    assert "an encoder answers only choice, retrieval, pointing with images" in fail(
        capsys, 3, encoder, boxes, *out
    )
    assert "needs an encoder" in fail(capsys, 3, llava, pairs, *out)
    assert "cannot be evaluated by likelihood" in fail(capsys, 2, llava, boxes, "--by", "likelihood", *out)
    assert "missing: references" in fail(capsys, 3, llava, colours, "--task", "caption", *out)
    assert "no benchmark has a column 'colour'" in fail(
        capsys, 3, llava, colours, "--group-by", "colour", *out
    )
    assert "--cluster: no benchmark has a column 'scene'" in fail(
        capsys, 3, llava, colours, "--cluster", "scene", *out
    )
    assert "MODEL is missing" in fail(capsys, 2, *out)
    assert "--predictions needs --task" in fail(capsys, 2, "--predictions", colours, *out)
    assert "cannot be scored" in fail(capsys, 2, "--predictions", colours, "--task", "perplexity", *out)
    assert not (tmp_path / "out").exists()


def test_items_of_a_cluster_column_are_resampled_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers are right or wrong by scene: eight scenes carry less information than 64 items."""
    rows: Rows = [
        {"prediction": "a", "answer": "ab"[n // 8 % 2], "scene": f"s{n // 8}", "image_id": n}
        for n in range(64)
    ]
    unclustered, _ = score(tmp_path, "exact", rows)
    (tmp_path / "together").mkdir()
    together, found = score(tmp_path / "together", "exact", rows, "--cluster", "scene")
    widths = [
        entry["entry"]["metrics"]["accuracy"]["high"] - entry["entry"]["metrics"]["accuracy"]["low"]
        for entry in (unclustered, together)
    ]
    assert widths[1] > 1.8 * widths[0]
    assert found[0]["groups"]["scene"] == "s0"
    again = evaluate(
        tmp_path / "again", "--rescore", str(tmp_path / "together" / "scores-exact"), "--cluster", "scene"
    )["answers"]
    assert again["metrics"] == together["entry"]["metrics"]
    out = ("--out", str(tmp_path / "no"))
    file = str(tmp_path / "answers.jsonl")
    for option in ("--cluster", "--group-by"):
        assert f"{option}: no benchmark has a column 'colour'" in fail(
            capsys, 3, "--predictions", file, "--task", "exact", option, "colour", *out
        )
        assert "no benchmark has a column 'colour'" in fail(
            capsys, 3, "--rescore", str(tmp_path / "together" / "scores-exact"), option, "colour", *out
        )


def test_options_of_answering_are_refused_without_a_model(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: Rows = [{"id": n, "prediction": "a", "answer": "a"} for n in range(5)]
    file = write(tmp_path / "p.jsonl", rows)
    out = ("--out", str(tmp_path / "no"))
    first = evaluate(tmp_path / "e", "--predictions", file, "--task", "exact", "--limit", "3")["p"]
    assert first["items"] == 3
    assert evaluate(tmp_path / "l", "--rescore", str(tmp_path / "e"), "--limit", "2")["p"]["items"] == 2
    for given in (("--predictions", file, "--task", "exact"), ("--rescore", str(tmp_path / "e"))):
        err = fail(capsys, 2, *given, "--blind", "--max-new-tokens", "4", "--by", "generation", *out)
        for flag in ("--blind", "--max-new-tokens", "--by"):
            assert f"{flag}: {given[0]} asks no model" in err
    text = write(tmp_path / "t.jsonl", [{"question": "Why?", "choices": ["a", "b"], "answer": 0}])
    assert "--shuffle-images: no benchmark has images" in fail(
        capsys, 3, str(models / "llava"), text, "--shuffle-images", *out
    )


def test_workers_change_nothing_but_the_time(
    tmp_path: Path, models: Path, benchmarks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from priorkit.evaluation.benchmarks import items_io
    from priorkit.inference.images import batches

    asked: list[int] = []

    def counted(function: Any) -> Any:
        def call(work: Any, items: Any, threads: int, **options: Any) -> Any:
            asked.append(threads)
            return function(work, items, threads, **options)

        return call

    monkeypatch.setattr(items_io, "in_threads", counted(in_threads))
    monkeypatch.setattr(batches, "streamed_in_threads", counted(streamed_in_threads))
    files = [str(benchmarks / f"{name}.jsonl") for name in ("colours", "open")]
    for model, names in (("llava", files), ("encoder", files[:1])):
        outs = [tmp_path / f"{model}-{workers}" for workers in (0, 3)]
        for out, workers in zip(outs, ("0", "3"), strict=True):
            evaluate(out, str(models / model), *names, "--max-new-tokens", "3", "--workers", workers)
        first, second = ((out / "samples.jsonl").read_bytes() for out in outs)
        assert first == second
    # Two benchmarks are read and encoded by the one model, one by the other.
    assert asked.count(3) == asked.count(0) >= 5


def test_broken_items_are_counted_and_written_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: Rows = [{"id": n, "prediction": "a", "answer": "a"} for n in range(9)] + [
        {"id": 3, "prediction": "b"}
    ]
    command = (
        "--predictions",
        write(tmp_path / "p.jsonl", rows),
        "--task",
        "gqa",
        "--out",
        str(tmp_path / "out"),
    )
    assert "p.jsonl:10: 'answer' is missing" in fail(capsys, 3, *command)
    assert run(["evaluate", *command, "--reject-limit", "0.1"]) == 0
    entry = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["benchmarks"]["p"]
    assert (entry["items"], entry["rejected"], entry["metrics"]["accuracy"]["value"]) == (9, 1, 1.0)
    assert "'answer' is missing" in (tmp_path / "out" / "rejects.jsonl").read_text(encoding="utf-8")


def test_predictions_are_scored_without_torch(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", [{"id": 0, "prediction": "a cat", "references": ["a cat", "cat"]}])
    arguments = ["evaluate", "--predictions", file, "--task", "caption", "--out", str(tmp_path / "out")]
    code = (
        "import sys; from priorkit.cli.main import run; "
        f"code = run({arguments!r}); sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out")


def test_memory_and_disk_are_checked_before_the_model_is_read(
    tmp_path: Path,
    models: Path,
    benchmarks: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from priorkit.core.process import capacity
    from priorkit.core.process.capacity import readable_bytes
    from priorkit.models.folder import tensor_files

    command = [
        "evaluate",
        str(models / "llava"),
        str(benchmarks / "open.jsonl"),
        "--device",
        "cpu",
        "--check",
    ]
    assert run([*command, "--json", "--out", str(tmp_path / "o")]) == 0
    found = json.loads(capsys.readouterr().out)["plan"]
    size = (benchmarks / "open.jsonl").stat().st_size
    weights = 4 * sum(tensor.count for tensor in tensor_files(models / "llava").values())
    assert found["memory"] == f"about {readable_bytes(weights + size)}"
    assert found["disk"] == f"about {readable_bytes(8 * 2000 + size)}"
    monkeypatch.setattr(capacity, "_available_memory", lambda: 1000)
    assert run([*command, "--out", str(tmp_path / "o")]) == 4
    assert "of memory needed, 1.0 kB available" in capsys.readouterr().err


def test_a_changed_image_is_a_changed_input(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether rows name files next to the table or below --images; files that no row names do not matter."""
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(png(number))
    rows: Rows = [
        {"image": f"pictures/{n}.png", "question": "?", "choices": ["red", "it"], "answer": n}
        for n in range(2)
    ]
    (tmp_path / "tables").mkdir()
    for name, file, more in (
        ("next-to", tmp_path / "next-to.jsonl", ()),
        ("apart", tmp_path / "tables" / "apart.jsonl", ("--images", str(tmp_path))),
    ):
        command = [
            "evaluate",
            str(models / "encoder"),
            write(file, rows),
            *more,
            "--out",
            str(tmp_path / name / "o"),
        ]
        (tmp_path / name).mkdir()
        assert run([*command, "--quiet"]) == 0
        inputs = {
            record["setting"]: record
            for record in json.loads((tmp_path / name / "o/priorkit.json").read_text())["inputs"]
        }
        assert inputs[f"images of {name}"]["kind"] == "files"
        (tmp_path / "pictures" / "2.png").write_bytes(png(7))
        capsys.readouterr()
        assert run(command) == 0
        assert "up to date" in capsys.readouterr().err
        (tmp_path / "pictures" / "1.png").write_bytes(png(8 + len(name)))
        assert run(command) == 2
        assert f"the input images of {name} ({tmp_path}) has changed" in capsys.readouterr().err
        assert run([*command, "--force", "--quiet"]) == 0
        recipe = (tmp_path / name / "o" / "recipe.toml").read_text(encoding="utf-8")
        assert f"images of {name}" not in recipe


def test_suites_by_name_offline(tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data that is not cached is reported for all benchmarks together; an unknown name gets the nearest."""
    out = ("--out", str(tmp_path / "out"))
    err = fail(capsys, 3, str(models / "llava"), "--benchmarks", "pope,vsr", *out)
    for name in ("lmms-lab/POPE", "cambridgeltl/vsr_zeroshot"):
        assert f"'{name}' is no local path, and the hub gave no such dataset" in err
    assert "only what is in the hub's cache can be used" in err
    err = fail(capsys, 3, str(models / "llava"), "lsbs-visoin", *out)
    assert "no such file, benchmark or suite: lsbs-visoin" in err
    assert "lsbs-vision" in err
    assert "give a table with its columns: visdial=FILE" in fail(
        capsys, 3, str(models / "llava"), "visdial", *out
    )


def test_a_preset_with_circular_choices_suite_metrics_and_rescoring(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {
            "index": n, "question": "What is shown?", "hint": "nan", "A": "red", "B": "deep blue", "C": "no", "D": "nan",
            "answer": "ABC"[n % 3], "L2-category": "one", "category": "x", "image": {"bytes": png(n % 3), "path": "i"},
        }
        for n in range(6)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    given = f"mmbench={tmp_path / 'm.parquet'}"
    out = tmp_path / "out"
    found = evaluate(out, str(models / "llava"), given, "--by", "generation", "--max-new-tokens", "5")[
        "mmbench"
    ]
    assert found["headline"] == "circular_accuracy"
    assert found["version"] == 1
    metrics = {name: metric["value"] for name, metric in found["metrics"].items()}
    assert metrics["circular_accuracy"] <= metrics["accuracy"]
    metric = samples(out)
    assert [len(sample["turns"]) for sample in metric] == [2] * 6
    for sample in metric:
        right = sample["parsed"] == sample["answer"] and set(sample["rotations"]) == {sample["answer"]}
        assert sample["score"] == float(right)
    rescored = evaluate(tmp_path / "again", "--rescore", str(out), given)["mmbench"]
    assert rescored["metrics"] == found["metrics"]
    assert rescored["detectable_difference"] == found["detectable_difference"]
    by_options = evaluate(tmp_path / "options", str(models / "llava"), given)["mmbench"]
    assert set(by_options["metrics"]) == {"accuracy", "acc", "acc_norm", "circular_accuracy"}
    assert (
        evaluate(tmp_path / "more", "--rescore", str(tmp_path / "options"))["mmbench"]["metrics"]
        == by_options["metrics"]
    )
    pq.write_table(pa.Table.from_pylist(rows[:5]), tmp_path / "m.parquet")
    assert "is not what was asked" in fail(
        capsys, 3, "--rescore", str(out), given, "--out", str(tmp_path / "no")
    )
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    results["benchmarks"]["mmbench"]["version"] = 9
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "samples.jsonl").write_bytes((out / "samples.jsonl").read_bytes())
    (copy / "results.json").write_text(json.dumps(results))
    err = fail(capsys, 3, "--rescore", str(copy), "--out", str(tmp_path / "no"))
    assert "results of version 9 of 'mmbench', which now is version 1" in err


def test_blind_shuffled_strict_and_compared(
    tmp_path: Path, models: Path, benchmarks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, file = str(models / "llava"), str(benchmarks / "existence.jsonl")
    writing = ("--by", "generation", "--max-new-tokens", "3")
    seen = evaluate(tmp_path / "seen", model, file, *writing)["existence"]
    assert "abstention_rate" not in seen["metrics"]
    blind = evaluate(tmp_path / "blind", model, file, *writing, "--blind")["existence"]
    assert {"abstention_rate", "confident_rate"} <= set(blind["metrics"])
    assert blind["abstained"] == 0
    shuffled = evaluate(tmp_path / "shuffled", model, file, "--shuffle-images")["existence"]
    assert shuffled["items"] == 8
    assert "not both" in fail(
        capsys, 2, model, file, "--blind", "--shuffle-images", "--out", str(tmp_path / "no")
    )
    strict = evaluate(tmp_path / "strict", "--rescore", str(tmp_path / "seen"), "--reading", "strict")[
        "existence"
    ]
    assert strict["unparsed"] == 8
    assert strict["metrics"]["accuracy"]["value"] == 0.0
    code = run(
        [
            "evaluate",
            "--rescore",
            str(tmp_path / "seen"),
            "--compare",
            str(tmp_path / "strict"),
            "--out",
            str(tmp_path / "c"),
        ]
    )
    assert code == 0
    err = capsys.readouterr().err
    assert "gained" in err
    found = json.loads((tmp_path / "c" / "comparison.json").read_text(encoding="utf-8"))["benchmarks"][
        "existence"
    ]
    assert found["items"] == 8
    assert found["difference"]["value"] == pytest.approx(seen["metrics"]["accuracy"]["value"])
    err = fail(
        capsys,
        3,
        model,
        file,
        str(benchmarks / "open.jsonl"),
        "--compare",
        two_others(tmp_path),
        "--out",
        str(tmp_path / "no"),
    )
    assert "no benchmark in common: existence, open here, first, second there" in err
    assert "already answered" not in err
    assert not (tmp_path / "no.partial").exists()
    assert "not an evaluation" in fail(
        capsys,
        3,
        "--rescore",
        str(tmp_path / "seen"),
        "--compare",
        str(models),
        "--out",
        str(tmp_path / "no"),
    )


def two_others(folder: Path) -> str:
    """The results of an evaluation of two other benchmarks."""
    (folder / "others").mkdir()
    entries = {name: {"task": "exact", "by": "generation"} for name in ("first", "second")}
    (folder / "others" / "results.json").write_text(json.dumps({"benchmarks": entries}), encoding="utf-8")
    return str(folder / "others")


def test_a_suite_has_the_unweighted_mean(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POPE's three parts from a local folder laid out as on the hub."""
    from priorkit.evaluation.presets import loading

    for kind, count in (("random", 4), ("popular", 6), ("adversarial", 2)):
        rows = [
            {
                "id": str(n), "question": f"Is there a star {kind}?", "answer": ("yes", "no")[n % 2], "image_source": "i",
                "category": kind, "image": {"bytes": png(n), "path": "i"},
            }
            for n in range(count)
        ]  # fmt: skip
        (tmp_path / "Full").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "Full" / f"{kind}-00000-of-00001.parquet")
    monkeypatch.setattr(loading.Preset, "location", lambda self: str(tmp_path))
    assert (
        run(
            [
                "evaluate",
                str(models / "llava"),
                "--benchmarks",
                "pope",
                "--out",
                str(tmp_path / "o"),
                "--quiet",
            ]
        )
        == 0
    )
    results = json.loads((tmp_path / "o" / "results.json").read_text(encoding="utf-8"))
    values = [entry["metrics"]["f1"]["value"] for entry in results["benchmarks"].values()]
    overall = results["suites"]["pope"]["overall"]
    assert overall["benchmarks"] == len(values) == 3
    assert overall["value"] == pytest.approx(np.mean(values))
    assert overall["low"] <= overall["value"] <= overall["high"]


def test_reasoning_is_judged_by_a_local_model(
    tmp_path: Path, models: Path, benchmarks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, judge, file = str(models / "llava"), str(models / "llm"), str(benchmarks / "colours.jsonl")
    found = evaluate(tmp_path / "out", model, file, "--explain", "--judge", judge, "--max-new-tokens", "9")[
        "colours"
    ]
    own = samples(tmp_path / "out")
    assert found["by"] == "generation"
    assert "A. red\nB. deep blue\nAnswer the question with a detailed thinking process" in own[0]["prompt"]
    assert found["metrics"]["depth"]["value"] == pytest.approx(
        np.mean([len(s["prediction"].split()) for s in own])
    )
    assert found["metrics"]["soundness"]["value"] == pytest.approx(np.mean([s["sound"] for s in own]))
    again = evaluate(tmp_path / "again", "--rescore", str(tmp_path / "out"), "--judge", judge)["colours"]
    assert again["metrics"] == found["metrics"]
    other = tmp_path / "rubric.toml"
    other.write_text('instruction = "{question}"\nprompt = "Is this sound?"\n')
    err = fail(capsys, 3, model, file, "--explain", "--rubric", str(other), "--out", str(tmp_path / "no"))
    assert "'prompt' must be a text with {question}" in err
    assert "{trace}" in err
    other.write_text('instruction = "{question} {option}"\nprompt = "{question} {trace}"\n')
    err = fail(capsys, 3, model, file, "--explain", "--rubric", str(other), "--out", str(tmp_path / "no"))
    assert "'instruction' has no placeholder {option}" in err
    other.write_text('instruction = "{question} as {\\"why\\": 1}"\nprompt = "{question} {trace}"\n')
    evaluate(
        tmp_path / "braces",
        model,
        file,
        "--explain",
        "--rubric",
        str(other),
        "--max-new-tokens",
        "2",
        "--limit",
        "2",
    )
    assert 'B. deep blue as {"why": 1}' in samples(tmp_path / "braces")[0]["prompt"]
    assert "--judge" in fail(capsys, 3, model, file, "--judge", model, "--out", str(tmp_path / "no"))
    assert "an explanation is written" in fail(
        capsys, 2, model, file, "--explain", "--by", "likelihood", "--out", str(tmp_path / "no")
    )
