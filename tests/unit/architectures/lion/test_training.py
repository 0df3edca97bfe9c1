"""LION's stages: exactly the stage's parts get gradients, on the stage's data; strict about the adapter it continues from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from priorkit.architectures.lion.conversations import select_task_types
from priorkit.architectures.lion.objective import LionObjective
from priorkit.architectures.lion.plan import trained_parts
from priorkit.architectures.lion.settings import LionSettings, lion_values, stage_parts
from priorkit.architectures.lion.tokenization import ConversationTokenizer
from priorkit.core.boxes import BoxWriter
from priorkit.core.errors import InputError, UsageError
from priorkit.core.inputs import resolve
from priorkit.data.conversations.conversation import Conversation, Turn
from priorkit.data.conversations.task_conversations import TaskConversation
from priorkit.data.images.decoding import ImageRef
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.language.chat_template import ChatTokenizer
from tests.support.lion_models import build_lion, png
from tests.support.lion_objective import objective, samples, tokenized


def loss_of(trained: LionObjective, places: list[int]) -> torch.Tensor:
    return trained.loss(trained.collate([trained.sample(place, 0) for place in places])).total


@pytest.mark.parametrize("stage", ["1", "2", "3", "all"])
def test_gradients_reach_exactly_the_parts_of_the_stage(base, stage: str) -> None:
    shape = stage_parts(LionSettings(stage=stage))
    lion = build_lion(
        base, branches=list(shape.branches), adapters=list(shape.adapters), router=shape.router, dropout=0.0
    )
    trained = trained_parts(stage, lion.model.config.to_dict())
    wanted = {
        "1": {"qformer", "adapter image", "soft prompt"},
        "2": {"aggregator", "adapter region", "soft prompt"},
    }.get(stage, {"qformer", "aggregator", "adapter region", "adapter image", "router", "soft prompt"})
    assert set(trained) == wanted
    with torch.no_grad():
        for name, value in lion.model.named_parameters():
            value.requires_grad_(lion.parameter_part(name) in trained)
            if ".lion." in name:
                # Moved away from the initialization, at which some branches are zero and get no gradient.
                value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    indices, _ = select_task_types(samples(), shape.task_types)
    data = [samples()[index] for index in indices]
    own = objective(lion, data)
    loss_of(own, list(range(len(data)))).backward()
    reached = {
        name for name, value in lion.model.named_parameters() if value.grad is not None and value.grad.any()
    }
    expected = {name for name, value in lion.model.named_parameters() if lion.parameter_part(name) in wanted}
    # Softmax cancels a bias of the keys, and nothing reads the question after the last layer.
    text_end = ("layer.1.intermediate.dense", "layer.1.output.dense", "layer.1.output.LayerNorm")
    idle = {name for name in expected - reached if not name.endswith("key.bias")}
    assert not [name for name in idle if not any(part in name for part in text_end)]
    assert reached <= expected


def test_a_batch_of_both_types_has_the_loss_of_its_rows(base) -> None:
    lion = build_lion(base, dropout=0.0)
    with torch.no_grad():
        for name, value in lion.model.named_parameters():
            if ".lion." in name:
                value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(3)) * 0.2)
    choose_attention(lion.model, "cpu")
    padded, packed = (objective(lion, samples(), packing=packing) for packing in (False, True))
    apart = sum(loss_of(padded, [place]) for place in range(3))
    torch.testing.assert_close(loss_of(padded, [0, 1, 2]), apart, rtol=1e-4, atol=1e-4)
    batch = packed.collate([packed.sample(place, 0) for place in range(3)])
    assert batch["task_types"].shape == batch["input_ids"].shape
    assert len(batch["input_ids"]) < 3
    torch.testing.assert_close(packed.loss(batch).total, apart, rtol=1e-4, atol=1e-4)


def test_alternating_batches_hold_one_type_each(base) -> None:
    mixed = objective(build_lion(base), samples(), alternating=2)
    for position in range(12):
        sample = mixed.sample(position % 3, position)
        assert sample.task == position // 2 % 2


def test_alternating_batches_take_every_sample_of_a_type_before_any_again(base) -> None:
    lion = build_lion(base)
    turns = Turn("user", "<image>\nWhere?"), Turn("assistant", "Here.")
    data = [
        TaskConversation(
            Conversation(str(number), turns, (ImageRef(str(number), content=png(number)),)), kind
        )
        for number, kind in enumerate(["image-level"] * 5 + ["region-level"])
    ]

    def drawn(seed: int) -> list[int]:
        mixed = objective(lion, data, alternating=2, seed=seed)
        second = [place for place in range(60) if place // 2 % 2]
        return [mixed.sample(0, place).images[0] for place in second]

    order = drawn(1)
    rounds = [tuple(order[start : start + 5]) for start in range(0, len(order), 5)]
    assert all(sorted(mixed) == [0, 1, 2, 3, 4] for mixed in rounds)
    assert len(set(rounds)) > 1
    assert drawn(1) == order != drawn(2)


@pytest.mark.parametrize("kind", ["image-level", "region-level"])
def test_a_single_task_type_does_not_alternate(base, kind: str) -> None:
    data = [own for own in samples() if own.task_type == kind]
    own = objective(build_lion(base), data, alternating=2)
    drawn = [own.sample(place % len(data), place) for place in range(8)]
    assert [sample.images for sample in drawn] == [(place % len(data),) for place in range(8)]


def test_the_papers_recipe_starts_with_stage_one(artifacts, cli, tmp_path: Path) -> None:
    found = cli(
        "tune", artifacts.mllm, artifacts.instructions, "--recipe", "lion-paper", "--stage", 1, *SMALL,
        "--aggregator-ffn", 16, "--out", tmp_path / "stage1",
    )  # fmt: skip
    assert found.code == 0, found.err
    made = json.loads((tmp_path / "stage1" / "priorkit.json").read_text())
    assert made["settings"]["batches"] == "alternating"


def test_long_lists_of_tags_lose_their_end_and_never_the_soft_token(base) -> None:
    lion = build_lion(base)
    many = tuple(f"tag number {number}" for number in range(200))
    # Room for the image, the question and a few tags.
    chat = ChatTokenizer(lion.tokenizer, lion.image_tokens, lion.image_tokens + 220)
    encoded = tokenized(samples(many), chat, "soft")
    soft = lion.model.config.soft_token_id
    assert encoded.shortened == 3
    for sample in encoded:
        assert sample.encoded.input_ids.count(soft) == 1
        assert not sample.encoded.truncated
        assert "tag number 0" in lion.tokenizer.decode(sample.encoded.input_ids)
    before = len(lion.tokenizer("USER: ", add_special_tokens=False)["input_ids"])
    tight = ChatTokenizer(lion.tokenizer, lion.image_tokens, lion.image_tokens + before + 2)
    with pytest.raises(InputError, match="no answer begins within"):
        tokenized(samples(many), tight, "soft")
    with pytest.raises(InputError, match="image is beyond"):
        tokenized(samples(None), ChatTokenizer(lion.tokenizer, lion.image_tokens, 5), "off")


def test_a_box_is_never_cut(base) -> None:
    lion = build_lion(base, tags="off")
    first, second = "[0.10,0.25,0.48,0.71]", "The green triangle is at [0.12,0.30,0.40,0.55] and red."
    turns = [
        Turn("user", "<image>\nFind the red circle."), Turn("assistant", first),
        Turn("user", "And the other?"), Turn("assistant", second),
    ]  # fmt: skip
    sample = TaskConversation(
        Conversation("a", tuple(turns), (ImageRef("a", content=png(0)),)), "region-level", ("red",)
    )

    def chat(length: int) -> ChatTokenizer:
        return ChatTokenizer(lion.tokenizer, lion.image_tokens, length)

    for tags in ("off", "hard"):
        kept: list[str] = []
        reasons: set[str] = set()
        complete = (
            ConversationTokenizer(chat(10_000), tags, 12, BoxWriter())
            .tokenize(replace(sample, tags=()))
            .encoded
        )
        supervised = [place for place, label in enumerate(complete.labels) if label != -100]
        for length in range(supervised[0] + 1, len(complete.labels) + 1):
            try:
                encoded = ConversationTokenizer(chat(length), tags, 12, BoxWriter()).tokenize(sample).encoded
            except InputError as error:
                reasons.add(error.problems[0].what.rpartition(" at ")[0])
                continue
            kept.append(lion.tokenizer.decode([label for label in encoded.labels if label != -100]))
        assert reasons == {"a box would be cut"}
        assert any(text.count("[") == 1 and "triangle" not in text for text in kept)
        assert any("0.55]" in text and "red." not in text for text in kept)
        assert all(len(BoxWriter().boxes_in([text])) == text.count("[") == text.count("]") for text in kept)
        assert not any("The green" in text and text.count("[") == 1 for text in kept)


def test_cut_answers_are_counted(artifacts, cli, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    rows = []
    for question, answer in (("What?", "red " * 300), ("Where?", "at [0.1,0.1,0.4,0.4]"), ("What?", "red")):
        turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        rows.append({"image": "a.png", "conversations": turns})
    table = tmp_path / "rows.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    done = cli(
        "tune",
        artifacts.mllm,
        table,
        "--stage",
        "all",
        *SMALL,
        "--max-length",
        200,
        "--out",
        tmp_path / "cut",
    )
    assert done.code == 0, done.err
    assert "1 answers are cut" in done.err
    metrics = json.loads((tmp_path / "cut" / "priorkit.json").read_text())["metrics"]
    assert (metrics["truncated"], metrics["rejected"], metrics["samples"]) == (1, 0, 3)


def test_the_question_of_the_q_former_has_no_tags(base) -> None:
    lion = build_lion(base)
    trained = objective(lion, samples())
    sample = trained.sample(0, 0)
    plain = lion.tokenizer("What is shown in the image?", add_special_tokens=False)["input_ids"][-12:]
    assert list(sample.questions[0]) == plain
    assert lion.model.config.soft_token_id in sample.encoded.input_ids


def test_an_image_has_one_number_however_many_samples_show_it(base, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(7))
    turns = Turn("user", "<image>\n<image>\nWhere?"), Turn("assistant", "Here.")

    def bytes_of(number: int) -> ImageRef:
        return ImageRef("row", content=bytes(bytearray(png(number))))

    def file(name: str) -> ImageRef:
        return ImageRef(name, tmp_path / "a.png")

    pairs = [(bytes_of(1), file("x")), (file("y"), bytes_of(2)), (bytes_of(2), bytes_of(1))]
    data = [
        TaskConversation(Conversation(str(number), turns, images), "image-level")
        for number, images in enumerate(pairs)
    ]
    lion = build_lion(base)
    chat = ChatTokenizer(lion.tokenizer, lion.image_tokens, lion.max_length)
    encoded = tokenized(data, chat, "off")
    assert [sample.images for sample in encoded] == [(0, 1), (1, 2), (2, 0)]
    assert [image.content or image.path for image in encoded.images] == [png(1), tmp_path / "a.png", png(2)]
    # Images that none of the encoded samples shows are not numbered.
    tight = ChatTokenizer(lion.tokenizer, lion.image_tokens, lion.max_length)
    long = replace(data[0].conversation, turns=(Turn("user", "<image>\n" * 2 + "word " * 2000), turns[1]))
    kept = tokenized([TaskConversation(long, "image-level"), data[1]], tight, "off", reject_limit=1)
    assert [sample.images for sample in kept] == [(0, 1)]
    assert [image.content or image.path for image in kept.images] == [tmp_path / "a.png", png(2)]


def test_stages_of_the_paper() -> None:
    assert stage_parts(LionSettings(stage="1")).task_types == ("image-level",)
    assert stage_parts(LionSettings(stage="2")).branches == ("aggregator",)
    third = stage_parts(LionSettings(stage="3"))
    assert third.router
    assert third.adapters == ("region", "image")
    assert not stage_parts(LionSettings(stage="3", adapters=("shared",))).router
    assert stage_parts(LionSettings(stage="all", adapters=("none",))).adapters == ()
    assert lion_values(LionSettings(stage="2"), 1408, (38, 28, 18))["aggregator_ffn"] == 3072
    with pytest.raises(UsageError, match="--stage is missing"):
        stage_parts(LionSettings())


def test_a_task_type_without_samples(base) -> None:
    with pytest.raises(InputError, match="no region-level sample among 2"):
        select_task_types([samples()[0], samples()[2]], ("region-level",))


SMALL = (
    "--architecture", "lion", "--adapter-width", 8, "--queries", 4, "--qformer-width", 16,
    "--qformer-layers", 2, "--qformer-heads", 2, "--aggregator-heads", 2, "--steps", 2, "--batch-size", 4,
    "--warmup-steps", 1, "--device", "cpu", "--precision", "fp32",
)  # fmt: skip


def changed(before: Path, after: Path) -> set[str]:
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (before, after))
    return {
        name for name, value in second.items() if name not in first or not torch.equal(first[name], value)
    }


def test_stages_from_the_command_line(artifacts, cli, tmp_path: Path) -> None:
    def tune(model: object, stage: str, *more: object) -> Path:
        out = tmp_path / f"stage-{stage}"
        result = cli("tune", model, artifacts.instructions, "--stage", stage, *SMALL, *more, "--out", out)
        assert result.code == 0, result.err
        return out

    first, second = tune(artifacts.mllm, "1"), tune(artifacts.mllm, "2")
    for folder, part in ((first, "qformer"), (second, "aggregator")):
        names = load_file(folder / "adapter_model.safetensors")
        assert {name.split(".")[2] for name in names} == {part, "layers"}
    merged = cli("merge-adapters", first, second, "--method", "mixture", "--out", tmp_path / "start")
    assert merged.code == 0, merged.err
    start = tmp_path / "start"
    third = tune(start, "3", "--tags", "off")
    assert {name.split(".")[2] for name in changed(start, third)} >= {"qformer", "aggregator", "layers"}
    config = json.loads((third / "adapter_config.json").read_text())
    assert config["stage"] == "3"
    manifest = json.loads((third / "priorkit.json").read_text())
    assert manifest["metrics"]["base"] == {
        "path": str(artifacts.mllm.resolve()), "digest": resolve(str(artifacts.mllm), "base", ("mllm",)).digest(),
    }  # fmt: skip
    refused = cli(
        "tune", artifacts.mllm, artifacts.instructions, "--stage", "3", *SMALL, "--out", tmp_path / "no"
    )
    assert refused.code == 2
    assert "merge-adapters STAGE1 STAGE2 --method mixture" in refused.err
    other = cli(
        "tune", start, artifacts.instructions, "--stage", "3", *SMALL, "--adapter-width", 16, "--out", tmp_path / "no"
    )  # fmt: skip
    assert other.code == 2
    assert "--adapter-width" in other.err
    layers = cli(
        "tune", artifacts.mllm, artifacts.instructions, "--stage", "2", *SMALL, "--aggregator-layers", "9,4,2",
        "--out", tmp_path / "no",
    )  # fmt: skip
    assert layers.code == 2
    assert "the encoder has the blocks" in layers.err


def test_equal_runs_give_equal_bytes(artifacts, cli, tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        result = cli(
            "tune", artifacts.mllm, artifacts.instructions, "--stage", "all", *SMALL, "--batches", "alternating",
            "--out", tmp_path / name,
        )  # fmt: skip
        assert result.code == 0, result.err
        files.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_recomputed_activations_give_the_same_adapters(artifacts, cli, tmp_path: Path) -> None:
    found = {}
    for name in ("none", "full", "selective"):
        result = cli(
            "tune", artifacts.mllm, artifacts.instructions, "--stage", "all", *SMALL, "--checkpoint-activations", name,
            "--aggregator-dropout", 0, "--out", tmp_path / name,
        )  # fmt: skip
        assert result.code == 0, result.err
        found[name] = load_file(tmp_path / name / "adapter_model.safetensors")
    for name in ("full", "selective"):
        for key, value in found["none"].items():
            torch.testing.assert_close(found[name][key], value, rtol=1e-5, atol=1e-6)


def test_frozen_weights_in_half_precision_train_the_same_parts(artifacts, cli, tmp_path: Path) -> None:
    call = ("tune", artifacts.mllm, artifacts.instructions, "--stage", "all", *SMALL[:-1])
    refused = cli(*call, "fp32", "--frozen-dtype", "bf16", "--out", tmp_path / "no")
    assert (refused.code, "--frozen-dtype: needs --precision bf16" in refused.err) == (2, True)
    whole, half = tmp_path / "whole", tmp_path / "half"
    for out, dtype in ((whole, "fp32"), (half, "bf16")):
        done = cli(*call, "bf16", "--frozen-dtype", dtype, "--out", out)
        assert done.code == 0, done.err
    first, second = (load_file(out / "adapter_model.safetensors") for out in (whole, half))
    assert first.keys() == second.keys()
    assert all(value.dtype == torch.float32 for value in second.values())
    losses = [json.loads((out / "priorkit.json").read_text())["metrics"]["loss"] for out in (whole, half)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_sources_are_mixed_and_foreign_options_refused(artifacts, cli, tmp_path: Path) -> None:
    both = (f"a={artifacts.instructions}", f"b={artifacts.instructions}")
    done = cli(
        "tune", artifacts.mllm, *both, "--stage", "all", *SMALL, "--weight", "a=3,b=1", "--subset", 40,
        "--out", tmp_path / "mixed",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "mixed" / "priorkit.json").read_text())["metrics"]["samples"] == 40
    lora = cli(
        "tune", artifacts.mllm, artifacts.instructions, "--stage", "all", *SMALL, "--lora-rank", 4, "--train", "llm",
        "--out", tmp_path / "no",
    )  # fmt: skip
    assert lora.code == 2
    assert "--lora-rank: LION trains its own adapters" in lora.err
    assert "--train: LION trains the parts of its --stage" in lora.err
    llava = cli(
        "tune", artifacts.mllm, artifacts.instructions, "--stage", 1, "--queries", 4, "--out", tmp_path / "no"
    )
    assert llava.code == 2
    assert "--stage: only --architecture lion takes this" in llava.err
    assert "--queries: only --architecture lion takes this" in llava.err


@pytest.mark.parametrize(
    ("answer", "more", "words"),
    [
        ("[0.1,0.1,0.4,0.4]", {"task_type": "regional"}, "unknown task type 'regional'"),
        ("[0.1,0.1,1.4,0.4]", {}, "leaves [0, 1]"),
        ("[0.4,0.1,0.1,0.4]", {}, "reversed corners"),
        ("a <soft_prompt>", {}, "reserved token <soft_prompt>"),
    ],
)
def test_bad_rows_stop_the_run_with_code_3(
    artifacts, cli, tmp_path: Path, answer: str, more: dict, words: str
) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    turns = [{"from": "human", "value": "<image>\nWhere?"}, {"from": "gpt", "value": answer}]
    table = tmp_path / "rows.jsonl"
    table.write_text(json.dumps({"image": "a.png", "conversations": turns, **more}) + "\n")
    found = cli("tune", artifacts.mllm, table, "--stage", "all", *SMALL, "--out", tmp_path / "no")
    assert found.code == 3
    assert words in found.err
    assert "Traceback" not in found.err
