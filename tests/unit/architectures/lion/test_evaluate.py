"""A LION model under evaluation: routed per item, the same in any batch, as an adapter or merged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from priorkit.data.conversations.tag_prompt import SOFT_TOKEN
from priorkit.data.images.decoding import ImageRef
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource
from priorkit.evaluation.benchmarks.items_io import read_items
from priorkit.evaluation.runner.image_shuffling import shuffle_images
from priorkit.evaluation.runner.item_inputs import inputs_of
from priorkit.evaluation.runner.prompts import PromptBuilder
from priorkit.evaluation.tasks.item import Item
from priorkit.evaluation.tasks.registry import TASKS
from priorkit.inference.likelihood.requests import LikelihoodRequest
from priorkit.inference.likelihood.scoring import score_batch
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.inference.prefill import prefill
from priorkit.inference.prompt_inputs import PromptInputs
from tests.support.lion_models import build_lion, png, randomize_parts

SHORT = (
    "--architecture", "lion", "--stage", "all", "--adapter-width", 8, "--queries", 4, "--qformer-width", 16,
    "--qformer-layers", 2, "--qformer-heads", 2, "--aggregator-heads", 2, "--steps", 2, "--batch-size", 4,
    "--warmup-steps", 1, "--device", "cpu", "--precision", "fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def adapter(artifacts, cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LION adapter whose parts all have an effect."""
    folder = tmp_path_factory.mktemp("lion") / "adapter"
    made = cli("tune", artifacts.mllm, artifacts.instructions, *SHORT, "--out", folder)
    assert made.code == 0, made.err
    loose = folder.parent / "loose"
    loose.mkdir()
    for file in folder.iterdir():
        if file.is_file() and file.name != "priorkit.json":
            (loose / file.name).write_bytes(file.read_bytes())
    generator = torch.Generator().manual_seed(0)
    state = load_file(loose / "adapter_model.safetensors")
    changed = {
        name: value + 0.2 * torch.randn(value.shape, generator=generator) for name, value in state.items()
    }
    save_file(changed, loose / "adapter_model.safetensors")
    return loose


def answers(cli, model: object, benchmark: object, out: Path, *more: object) -> list[dict]:
    result = cli(
        "evaluate", model, benchmark, "--device", "cpu", "--max-new-tokens", 6, *more, "--out", out
    )  # fmt: skip
    assert result.code == 0, result.err
    return [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]


def test_batched_or_not_adapter_or_merged_model(artifacts, cli, adapter: Path, tmp_path: Path) -> None:
    benchmark = artifacts.world / "benchmarks" / "grounding.parquet"
    together = answers(cli, adapter, benchmark, tmp_path / "a", "--batch-size", 8)
    apart = answers(cli, adapter, benchmark, tmp_path / "b", "--batch-size", 1)
    assert [sample["prediction"] for sample in together] == [sample["prediction"] for sample in apart]
    whole = cli(
        "merge-adapters",
        adapter,
        "--base",
        artifacts.mllm,
        "--method",
        "mixture",
        "--out",
        tmp_path / "whole",
    )
    assert whole.code == 0, whole.err
    merged = answers(cli, tmp_path / "whole", benchmark, tmp_path / "c", "--batch-size", 8)
    assert [sample["prediction"] for sample in merged] == [sample["prediction"] for sample in together]


def test_choices_are_scored(artifacts, cli, adapter: Path, tmp_path: Path) -> None:
    found = answers(
        cli, adapter, artifacts.world / "benchmarks" / "naming.parquet", tmp_path / "n", "--limit", 6
    )
    assert len(found) == 6


def test_items_with_several_images(artifacts, cli, adapter: Path, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    rows = [
        {"id": "two", "question": "Which is red?", "image": ["0.png", "1.png"], "answers": ["the first"]},
        {"id": "one", "question": "What is it?", "image": "2.png", "answers": ["a circle"]},
    ]
    file = tmp_path / "several.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    together = answers(cli, adapter, file, tmp_path / "a", "--task", "vqa")
    apart = answers(cli, adapter, file, tmp_path / "b", "--task", "vqa", "--batch-size", 1)
    assert [sample["prediction"] for sample in together] == [sample["prediction"] for sample in apart]
    assert together[0]["prompt"].count("<image>") == 2


def test_each_of_several_images_is_encoded_with_the_question(base) -> None:
    lion = randomize_parts(build_lion(base))
    subject = ModelAdapter(lion.model, lion.tokenizer, lion.max_length, lion)
    pair = tuple(ImageRef(str(number), content=png(number)) for number in range(2))
    item = Item("1", "Which is red?", pair[0], pair[1:], task_type="region-level")
    prompt = PromptBuilder(lion.tokenizer, "chat", "letter", lion.tags)(item, TASKS["vqa"], "generation")
    (inputs,) = inputs_of(subject.capabilities, [item], [prompt], TASKS["vqa"])
    assert inputs == PromptInputs(pair, prompt.user_text, "region-level")


def test_each_item_is_encoded_with_its_question_and_type(base) -> None:
    lion = randomize_parts(build_lion(base))
    subject = ModelAdapter(lion.model, lion.tokenizer, lion.max_length, lion)
    image = ImageRef("a", content=png(1))
    items = [
        Item("1", "Where is it?", image, tags=("red", "circle")),
        Item("2", "What is it?", image, task_type="region-level"),
        Item("3", "Without an image?"),
    ]
    prompter = PromptBuilder(lion.tokenizer, "chat", "letter", lion.tags)
    prompts = [prompter(item, TASKS["vqa"], "generation") for item in items]
    assert SOFT_TOKEN in prompts[0].text
    assert SOFT_TOKEN not in prompts[1].text
    first, second, _ = inputs_of(subject.capabilities, items, prompts, TASKS["vqa"])
    assert (first.task_type, second.task_type) == ("image-level", "region-level")
    assert first.question.startswith("Where is it?")
    assert SOFT_TOKEN not in first.question
    assert len({first.key, second.key, PromptInputs((image,)).key}) == 3
    (grounding,) = inputs_of(subject.capabilities, items[:1], prompts[:1], TASKS["grounding"])
    assert grounding.task_type == "region-level"
    ids = torch.tensor([subject.encode(prompts[1].text)])
    options = lion.row_options(ids, [second.question], [second.task_type], None, use_cache=True)
    assert options["task_types"].tolist() == [0]
    cache = options["past_key_values"]
    assert lion.row_options(ids[:, -1:], [], [], cache, use_cache=True)["task_types"].tolist() == [0]


@pytest.mark.parametrize("kind", ["chat", "plain"])
def test_the_reserved_token_is_removed_from_prompts(base, kind: str) -> None:
    lion = build_lion(base)
    image, mark = ImageRef("a", content=png(1)), f"a {SOFT_TOKEN}b<im{SOFT_TOKEN}age>"
    items = [
        Item("1", f"{mark} What?", image, tags=(mark,)),
        Item("2", f"{mark} Which?", image, choices=(mark, "c"), answer=0),
        Item("3", image=image, choices=("c", "d"), contexts=(mark, "e"), text=mark, answer=0),
    ]
    prompter = PromptBuilder(lion.tokenizer, kind, "text", "hard")
    for item, task in zip(items, ("vqa", "choice", "choice"), strict=True):
        for way in ("generation", "likelihood"):
            if task == "vqa" and way == "likelihood":
                continue
            prompt = prompter(item, TASKS[task], way)
            texts = [
                prompt.text,
                prompt.user_text,
                *prompt.contexts,
                *(option for group in prompt.options for option in group),
            ]
            assert not any(SOFT_TOKEN in text for text in texts)
            assert prompt.text.count("<image>") == 1


def test_a_question_that_holds_the_reserved_token_is_answered(
    artifacts, cli, adapter: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    row = {"id": "a", "question": f"What is {SOFT_TOKEN}?", "image": "a.png", "answers": ["x"]}
    file = tmp_path / "reserved.jsonl"
    file.write_text(json.dumps(row))
    (found,) = answers(cli, adapter, file, tmp_path / "r", "--task", "vqa")
    assert SOFT_TOKEN not in found["prompt"]


def test_withheld_images_take_their_tags_along(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    rows = [
        {"id": "seen", "question": "What?", "image": "a.png", "answers": ["x"], "tags": ["red", "circle"]},
        {"id": "text", "question": "What?", "answers": ["x"], "tags": ["told"]},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    source = BenchmarkSource("rows", (file,), TASKS["vqa"], visual=True, columns=tuple(rows[0]))
    for show_images, tags in ((True, ("red", "circle")), (False, None)):
        first, second = read_items(source, Rejects(0), group_by=(), limit=0, show_images=show_images)
        assert first.tags == tags
        assert second.tags == ("told",)


def test_tags_move_with_shuffled_images() -> None:
    refs = [ImageRef(str(number), content=bytes([number])) for number in range(3)]
    items = [
        Item(str(place), "What?", refs[place % 3], tags=(f"tag {place % 3}",), task_type="region-level")
        for place in range(5)
    ]
    items.append(Item("text", "What?"))
    *moved, last = shuffle_images(items, 3, "b")
    assert last == items[-1]
    for item in moved:
        assert item.image is not None
        assert item.tags == (f"tag {item.image.name}",)
        assert item.task_type == "region-level"


def test_items_without_an_image_are_routed_by_their_type(base) -> None:
    lion = randomize_parts(build_lion(base))
    subject = ModelAdapter(lion.model, lion.tokenizer, lion.max_length, lion)
    items = [
        Item("1", "Where?", withheld=True),
        Item("2", "Where?", withheld=True, task_type="image-level"),
    ]
    prompter = PromptBuilder(lion.tokenizer, "chat", "letter", lion.tags)
    prompts = [prompter(item, TASKS["grounding"], "generation") for item in items]
    seen = inputs_of(subject.capabilities, items, prompts, TASKS["grounding"])
    assert [item.task_type for item in seen] == ["region-level", "image-level"]
    ids = [subject.encode(prompt.text) for prompt in prompts]
    with torch.no_grad():
        expected = lion.model(input_ids=torch.tensor(ids), task_types=torch.tensor([0, 1])).logits[:, -1]
        found = prefill(subject, ids, seen, cached=True)
    torch.testing.assert_close(found.logits, expected, rtol=1e-4, atol=1e-4)
    assert found.cache.tasks.tolist() == [0, 1]
    assert not torch.allclose(found.logits[0], found.logits[1], atol=1e-3)
    # Options are scored under the same types.
    token = int(expected[0].argmax())
    requests = [
        LikelihoodRequest(place, tuple(tokens), ((token,),), (0,)) for place, tokens in enumerate(ids)
    ]
    scores = score_batch(subject, requests, seen)
    wanted = expected.log_softmax(-1)[:, token].tolist()
    assert [value for (value,) in scores] == pytest.approx(wanted, abs=1e-3)


def test_an_item_with_an_unknown_task_type_is_broken(artifacts, cli, adapter: Path, tmp_path: Path) -> None:
    rows = [{"id": "a", "question": "What?", "answers": ["x"], "task_type": "regional"}]
    file = tmp_path / "odd.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    result = cli("evaluate", adapter, file, "--task", "vqa", "--device", "cpu", "--out", tmp_path / "no")
    assert result.code == 3
    assert "unknown task type 'regional'" in result.err
    assert "did you mean 'region" in result.err
