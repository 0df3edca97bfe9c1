"""Bad input to every step: the right exit code, a message with file and remedy, nothing half-written."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

SHORT = ("--steps", 1, "--batch-size", 2, "--precision", "fp32", "--device", "cpu")


def command(step: str, artifacts, source: object) -> tuple[object, ...]:
    """A step's command with one of its data inputs replaced."""
    return {
        "tokenizer": ("tokenizer", f"s={source}"),
        "mix": ("mix", f"s={source}", "--tokenizer", artifacts.tokenizer, "--context-length", 16),
        "pretrain": ("pretrain", source, "--preset", "pocket-tiny", *SHORT),
        "pretrain-encoder": (
            "pretrain-encoder",
            source,
            "--preset",
            "pocket-tiny",
            "--vocab-size",
            400,
            *SHORT,
        ),
        "distill-encoder": ("distill-encoder", artifacts.encoder, source, *SHORT),
        "align": ("align", artifacts.llm, artifacts.encoder, source, *SHORT),
        "tune": ("tune", artifacts.mllm, source, *SHORT),
        "blind-tune": ("blind-tune", artifacts.llm, source, *SHORT),
        "rank-e": ("rank-e", artifacts.encoder, source),
    }[step]


STEPS = (
    "tokenizer", "mix", "pretrain", "pretrain-encoder", "distill-encoder", "align", "tune", "blind-tune", "rank-e",
)  # fmt: skip
TEXT = ("tokenizer", "mix")
PAIRS = ("pretrain-encoder",)
TALKS = ("align", "tune", "blind-tune")
ENTITIES = ("distill-encoder", "rank-e")


@pytest.fixture
def refuses(cli, artifacts, tmp_path: Path):
    """Run a step on a bad input; it must end with the code, name the words and leave nothing."""
    out = tmp_path / "results" / "out"
    out.parent.mkdir()

    def check(step: str, source: object, code: int, *words: str, extra: tuple[object, ...] = ()) -> str:
        found = cli(*command(step, artifacts, source), *extra, "--out", out)
        assert found.code == code, found.err
        assert found.out == ""
        assert "Traceback" not in found.err
        for word in words:
            assert word in found.err, found.err
        assert list(out.parent.iterdir()) == []
        return found.err

    return check


@pytest.mark.parametrize("step", STEPS)
def test_a_missing_path(step: str, refuses, tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text("{}")
    refuses(step, tmp_path / "fact.jsonl", 3, "no such file or directory", "did you mean 'facts.jsonl'?")


@pytest.mark.parametrize("step", STEPS)
def test_an_empty_file(step: str, refuses, tmp_path: Path) -> None:
    path = tmp_path / ("x.parquet" if step in ENTITIES else "x.jsonl")
    path.write_bytes(b"")
    refuses(step, path, 3, str(path))


@pytest.mark.parametrize("step", STEPS)
def test_an_empty_folder(step: str, refuses, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    refuses(step, tmp_path / "nothing", 3, str(tmp_path / "nothing"))


@pytest.mark.parametrize("step", [*TEXT, *TALKS, *PAIRS])
def test_a_truncated_gzip_file(step: str, refuses, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    rows = ({"text": str(n**7), "image": "x", "conversations": turns} for n in range(300))
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())[:-30])
    refuses(step, path, 3, str(path), "truncated or damaged", extra=("--reject-limit", 1))


@pytest.mark.parametrize("step", [*TEXT, *TALKS, *PAIRS, *ENTITIES])
def test_a_truncated_parquet_file(step: str, refuses, artifacts, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(artifacts.pairs.read_bytes()[:-100])
    refuses(step, path, 3, str(path), "not a readable parquet file")


@pytest.mark.parametrize("step", [*TEXT, *TALKS])
def test_broken_lines_are_counted_and_tolerated_to_the_limit(
    step: str, refuses, cli, artifacts, tmp_path: Path
) -> None:
    Image.new("RGB", (48, 48)).save(tmp_path / "black.png")
    turns = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
    rows = (
        {"text": f"number {n} is {n * n}", "conversations": turns, "image": "black.png"} for n in range(40)
    )
    lines = [json.dumps(row) for row in rows]
    lines[3] = '{"text": "half'
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(lines))
    refuses(
        step,
        path,
        3,
        f"1 of 40 rows are broken (2.50%); the first: {path}:4: not valid JSON",
        "--reject-limit",
    )
    done = cli(*command(step, artifacts, path), "--reject-limit", 0.05, "--out", tmp_path / "made")
    assert done.code == 0, done.err
    assert "warning: 1 of 40 rows are broken" in done.err
    (row,) = (json.loads(line) for line in (tmp_path / "made" / "rejects.jsonl").read_text().splitlines())
    assert (row["file"], row["row"]) == (str(path), 4)


def test_captions_without_any_image(refuses, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    (tmp_path / "x.jsonl").write_text(json.dumps({"conversations": turns}))
    refuses("align", tmp_path / "x.jsonl", 3, "no sample has an image")


@pytest.mark.parametrize("step", ENTITIES)
def test_an_image_that_does_not_decode(step: str, refuses, artifacts, tmp_path: Path) -> None:
    shutil.copytree(artifacts.images, tmp_path / "birds")
    broken = sorted((tmp_path / "birds").rglob("*.png"))[0]
    broken.write_bytes(broken.read_bytes()[:60])
    refuses(step, tmp_path / "birds", 3, broken.relative_to(tmp_path / "birds").as_posix(), "--reject-limit")


@pytest.mark.parametrize("step", ["align", "tune"])
def test_an_image_of_a_conversation_that_does_not_decode(step: str, refuses, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
    (tmp_path / "x.json").write_text(json.dumps([{"id": "seven", "image": "a.png", "conversations": turns}]))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    refuses(step, tmp_path / "x.json", 3, "seven", "--reject-limit")


def test_images_of_pairs_that_do_not_decode(refuses, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    (tmp_path / "x.jsonl").write_text('{"image": "a.png", "text": "a heron"}\n' * 4)
    refuses("pretrain-encoder", tmp_path / "x.jsonl", 3, "a.png")


WRONG_KIND = {
    "tokenizer": "llm", "mix": "llm", "pretrain": "llm", "pretrain-encoder": "llm", "distill-encoder": "llm",
    "align": "corpus", "tune": "corpus", "blind-tune": "corpus", "rank-e": "corpus",
}  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_a_wrong_kind_of_artifact(step: str, refuses, artifacts) -> None:
    kind = WRONG_KIND[step]
    refuses(
        step,
        getattr(artifacts, kind),
        3,
        "expected ",
        f"got an artifact of kind '{kind}'",
        str(getattr(artifacts, kind)),
    )


@pytest.mark.parametrize(
    ("step", "model"),
    [("distill-encoder", "encoder"), ("align", "llm"), ("tune", "mllm"), ("rank-e", "encoder")],
)
def test_a_model_of_another_sort_without_a_manifest(
    step: str, model: str, cli, artifacts, tmp_path: Path
) -> None:
    wrong = {"encoder": artifacts.llm, "llm": artifacts.encoder, "mllm": artifacts.llm}[model]
    shutil.copytree(wrong, tmp_path / "model", ignore=shutil.ignore_patterns("priorkit.json"))
    words = [
        tmp_path / "model" if word == getattr(artifacts, model) else word
        for word in command(step, artifacts, artifacts.captions)
    ]
    found = cli(*words, "--out", tmp_path / "out")
    assert found.code == 3, found.err
    assert str(tmp_path / "model") in found.err


@pytest.mark.parametrize("step", ["pretrain", "rank-e", "tune"])
def test_a_digest_that_does_not_match(step: str, cli, artifacts, tmp_path: Path) -> None:
    original = {"pretrain": artifacts.corpus, "rank-e": artifacts.encoder, "tune": artifacts.mllm}[step]
    copied = tmp_path / "copied"
    shutil.copytree(original, copied)
    victim = sorted(copied.glob("*.safetensors"))[0]
    content = bytearray(victim.read_bytes())
    content[-5] ^= 1
    victim.write_bytes(content)
    source = {"pretrain": copied, "rank-e": artifacts.images, "tune": artifacts.instructions}[step]
    words = [copied if word == original else word for word in command(step, artifacts, source)]
    for extra in ((), ("--check",)):
        found = cli(*words, *extra, "--out", tmp_path / "out")
        assert found.code == 3
        assert f"{victim}: SHA-256" in found.err
        assert "make the artifact again" in found.err
    assert not (tmp_path / "out").exists()
    found = cli("verify", copied)
    assert found.code == 3


@pytest.mark.parametrize("step", ["rank-e", "tune", "blind-tune", "align"])
def test_truncated_weights_without_a_manifest(step: str, cli, artifacts, tmp_path: Path) -> None:
    original = {
        "rank-e": artifacts.encoder,
        "tune": artifacts.mllm,
        "blind-tune": artifacts.llm,
        "align": artifacts.llm,
    }[step]
    copied = tmp_path / "copied"
    shutil.copytree(original, copied, ignore=shutil.ignore_patterns("priorkit.json"))
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    source = {"rank-e": artifacts.images, "align": artifacts.captions}.get(step, artifacts.instructions)
    words = [copied if word == original else word for word in command(step, artifacts, source)]
    found = cli(*words, "--check", "--out", tmp_path / "out")
    assert found.code == 3
    assert f"{weights}: not a complete safetensors file" in found.err
    weights.unlink()
    (copied / "pytorch_model.bin").write_bytes(b"")
    found = cli(*words, "--out", tmp_path / "out")
    assert found.code == 3
    assert "convert pytorch_model.bin first: priorkit convert" in found.err


def test_a_vocabulary_that_does_not_fit(cli, artifacts, tmp_path: Path) -> None:
    config = {"model_type": "llama", "vocab_size": 100, "hidden_size": 8, "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = cli(
        "pretrain", artifacts.corpus, "--config", tmp_path / "config.json", "--out", tmp_path / "x", "--check"
    )
    assert found.code == 3
    assert "a vocabulary of" in found.err
    assert "the model one of 100" in found.err
    config.update(vocab_size=1000, max_position_embeddings=16)
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = cli(
        "pretrain", artifacts.corpus, "--config", tmp_path / "config.json", "--out", tmp_path / "x", "--check"
    )
    assert found.code == 3
    assert "rows of 32 tokens, the model takes at most 16" in found.err


def test_wrong_columns_name_the_nearest(refuses, artifacts, tmp_path: Path) -> None:
    table = pq.read_table(artifacts.pairs, columns=["image", "text"])
    names = [{"text": "caption_text"}.get(name, name) for name in table.column_names]
    pq.write_table(table.rename_columns(names), tmp_path / "x.parquet")
    refuses(
        "pretrain-encoder", tmp_path / "x.parquet", 3, "no column of the text", "--text-column caption_text"
    )
    refuses("mix", tmp_path / "x.parquet", 3, "no column of the text", "--text-column caption_text")
    refuses("tune", tmp_path / "x.parquet", 3, "neither 'conversations'")
    refuses("mix", artifacts.facts, 3, "text", extra=("--text-column", "txt"))


@pytest.mark.parametrize("step", STEPS)
def test_an_output_that_cannot_be_written(step: str, cli, artifacts, tmp_path: Path) -> None:
    source = {
        **dict.fromkeys(TEXT, artifacts.facts), **dict.fromkeys(TALKS, artifacts.instructions),
        **dict.fromkeys(ENTITIES, artifacts.images), "pretrain": artifacts.corpus, "pretrain-encoder": artifacts.pairs,
    }[step]  # fmt: skip
    found = cli(*command(step, artifacts, source), "--out", "/proc/priorkit-out")
    assert found.code == 4, found.err
    assert "/proc" in found.err
    (tmp_path / "file").write_text("")
    found = cli(*command(step, artifacts, source), "--out", tmp_path / "file")
    assert found.code == 2
    assert str(tmp_path / "file") in found.err


def test_an_output_of_the_world_that_cannot_be_written(cli) -> None:
    assert cli("glyph-world", "--out", "/proc/priorkit-out").code == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("glyph-world", "--strong", "many"), "--strong: should be a valid integer, got 'many'"),
        (("glyph-world", "--seed", "-1"), "--seed: should be greater than or equal to 0"),
        (("mix",), "SOURCES is missing"),
        (("mix", "facts"), "expected NAME=VALUE, got 'facts'"),
        (("mix", "a=b"), "--tokenizer is missing"),
        (("pretrain",), "CORPUS is missing"),
        (("rank-e", "x"), "IMAGES is missing"),
    ],
)
def test_wrong_words_are_usage_errors(words: tuple[str, ...], message: str, cli, tmp_path: Path) -> None:
    found = cli(*words, "--out", tmp_path / "x")
    assert found.code == 2
    assert message in found.err


@pytest.mark.parametrize(
    ("step", "extra", "message"),
    [
        ("pretrain", ("--from", "x"), "give one of --preset, --config and --from, got 2"),
        ("mix", ("--weight", "x=1"), "no source is named 'x'"),
        ("mix", ("--tokens", "1B"), "allowed are 4"),
        ("pretrain-encoder", ("--preset", "pockt"), "did you mean 'pocket"),
        ("pretrain-encoder", ("--micro-batch-size", 1), "cannot be split into micro-batches"),
        ("distill-encoder", ("--feature-layer", 9), "the image tower has 2 layers"),
        ("distill-encoder", ("--template", "heron"), "a template needs {}"),
        ("align", ("--max-length", 5), "an image takes 9 tokens"),
        ("tune", ("--train", "projektor"), "did you mean 'projector'?"),
        ("tune", ("--lora-rank", 2, "--train", "encoder"), "LoRA trains the language model"),
        ("rank-e", ("--template", "heron"), "a template needs {}"),
    ],
)
def test_settings_that_do_not_go_together(
    step: str, extra: tuple[object, ...], message: str, refuses, artifacts, tmp_path: Path
) -> None:
    source = {
        **dict.fromkeys(TEXT, artifacts.facts), **dict.fromkeys(TALKS, artifacts.instructions),
        **dict.fromkeys(ENTITIES, artifacts.images), "pretrain": artifacts.corpus, "pretrain-encoder": artifacts.pairs,
    }[step]  # fmt: skip
    code = 3 if extra[:2] == ("--from", "x") else 2
    text = refuses(step, source, code, extra=extra)
    assert message in text or code == 3


def test_two_lengths_are_one_too_many(refuses, artifacts) -> None:
    refuses(
        "pretrain",
        artifacts.corpus,
        2,
        "the length is given more than once: steps, epochs",
        extra=("--epochs", 1),
    )


def test_weights_that_are_no_numbers_stop_an_evaluation(cli, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    model = shutil.copytree(Path(__file__).parents[1] / "golden" / "tiny-llama", tmp_path / "llm")
    tensors = load_file(model / "model.safetensors")
    save_file({name: value * float("nan") for name, value in tensors.items()}, model / "model.safetensors")
    (tmp_path / "x.txt").write_text("a heron stands in the water")
    found = cli(
        "evaluate", model, tmp_path / "x.txt", "--task", "perplexity", "--device", "cpu", "--out", tmp_path / "out"
    )  # fmt: skip
    assert found.code == 5, found.err
    assert "log-probabilities are not numbers" in found.err
    assert not (tmp_path / "out").exists()
