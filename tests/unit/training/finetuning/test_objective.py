"""Packed samples give the loss and gradients of separate samples."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from priorkit.data.conversations.conversation import Conversation
from priorkit.data.images.pixels import Pixels
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.kernels.cross_entropy import IGNORE
from priorkit.models.kernels.documents import PACKED
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.models.multimodal.text_only import TextOnlyModel
from priorkit.training.finetuning.objective import InstructionObjective
from priorkit.training.finetuning.packing_support import packing_obstacle
from priorkit.training.finetuning.vision_features import PerStepFeatures
from tests.support.chat_models import gathered, make_llava, make_llm, make_tokenizer, talk

TEXT = [
    talk(n, 0, words, turns) for n, (words, turns) in enumerate([(3, 1), (25, 2), (9, 1), (40, 1), (5, 3)])
]
ONE = [talk(10 + n, 1, words) for n, words in enumerate([4, 30, 11, 19])]
SEVERAL = [talk(20, 2, 6), talk(21, 0, 14), talk(22, 3, 9, 2), talk(23, 1, 33), talk(24, 0, 2)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def objective_of(
    multimodal: Any, conversations: list[Conversation], folder: Path, packing: bool, module: Any = None
) -> InstructionObjective:
    samples = gathered(conversations, folder)
    chat = ChatTokenizer(multimodal.tokenizer, multimodal.image_tokens, multimodal.max_length)
    views = PerStepFeatures(multimodal, Pixels(samples.images, multimodal.prepare), trained=True)
    return InstructionObjective(multimodal, samples, chat, views, packing=packing, module=module)


def step(objective: InstructionObjective) -> tuple[float, dict[str, Tensor]]:
    """The loss of all samples as one batch, and the gradients."""
    objective.module.zero_grad()
    batch = objective.collate([objective.sample(index, index) for index in range(len(objective))])
    loss = objective.loss(batch).total
    loss.backward()
    return float(loss.detach()), {
        name: parameter.grad.clone()
        for name, parameter in objective.module.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("conversations", [TEXT, ONE, SEVERAL], ids=["text", "one", "several"])
def test_loss_and_gradients_are_those_of_padded_batches(
    tokenizer: Any, conversations: list[Conversation], tmp_path: Path
) -> None:
    multimodal = make_llava(tokenizer)
    packed, padded = (objective_of(multimodal, conversations, tmp_path, packing) for packing in (True, False))
    batch = packed.collate([packed.sample(n, n) for n in range(len(packed))])
    assert len(batch["input_ids"]) < len(conversations)
    loss, gradients = step(packed)
    expected, wanted = step(padded)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert set(gradients) == set(wanted)
    parts = {multimodal.parameter_part(name) for name in gradients}
    assert parts == ({"llm"} if conversations is TEXT else {"llm", "projector", "encoder"})
    for name, value in wanted.items():
        torch.testing.assert_close(
            gradients[name], value, rtol=1e-3, atol=1e-5 * float(value.abs().max() + 1), msg=name
        )


def test_the_loss_equals_that_of_transformers_llava(tokenizer: Any, tmp_path: Path) -> None:
    multimodal = make_llava(tokenizer)
    packed = objective_of(multimodal, SEVERAL, tmp_path, packing=True)
    loss, _ = step(packed)
    theirs = copy.deepcopy(multimodal.model)
    theirs.set_attn_implementation("eager")
    expected = 0.0
    for index in range(len(SEVERAL)):
        sample = packed.sample(index, index)
        ids, labels = (torch.tensor([part]) for part in (sample.encoded.input_ids, sample.encoded.labels))
        options: dict[str, Any] = {}
        if sample.images:
            pixels = torch.stack([packed._features._pixels[image] for image in sample.images])  # type: ignore[union-attr]
            options["pixel_values"] = multimodal._preprocessing.normalize(pixels)
        with torch.no_grad():
            output = theirs(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, **options)
        expected += float(output.loss) * int((labels[:, 1:] != IGNORE).sum())
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dora", [False, True])
def test_packing_with_lora(tokenizer: Any, tmp_path: Path, dora: bool) -> None:
    from peft import LoraConfig, get_peft_model

    from priorkit.architectures.llava.training import lora_targets

    multimodal = make_llava(tokenizer)
    pattern = lora_targets(multimodal.model.model.language_model)
    config = LoraConfig(r=4, target_modules=pattern, use_dora=dora, init_lora_weights=False)
    torch.manual_seed(0)
    module = get_peft_model(multimodal.model, config)
    results = [
        step(objective_of(multimodal, SEVERAL, tmp_path, packing, module)) for packing in (True, False)
    ]
    (loss, gradients), (expected, wanted) = results
    assert loss == pytest.approx(expected, rel=1e-5)
    layers = [name for name in wanted if "lora" in name]
    assert len(layers) == 2 * (7 * 2) + dora * 14
    assert all("language_model" in name for name in layers)
    for name in layers:
        torch.testing.assert_close(gradients[name], wanted[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "olmo", "cohere", "stablelm"])
def test_language_models_of_other_families(tokenizer: Any, tmp_path: Path, family: str) -> None:
    fields: dict[str, Any] = {"model_type": family}
    if family in ("gemma2", "qwen3"):
        fields |= {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 4096}
    model = make_llm(tokenizer, **fields)
    implementation = choose_attention(model, "cpu")
    assert (implementation == PACKED) == (family in ("llama", "qwen3"))
    samples = gathered(TEXT, tmp_path)
    chat = ChatTokenizer(tokenizer, 1, 512)
    losses: list[float] = []
    for packing in (True, False):
        objective = InstructionObjective(TextOnlyModel(model), samples, chat, packing=packing)
        assert objective._packs == packing
        losses.append(step(objective)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_models_that_cannot_keep_samples_apart_are_padded(
    tokenizer: Any, tmp_path: Path, caplog: Any
) -> None:
    from transformers import MambaConfig, MistralConfig

    assert "state from token to token" in packing_obstacle(MambaConfig(), 10)
    window = MistralConfig(sliding_window=8)
    window._attn_implementation = "eager"
    assert "attends to 8 tokens, conversations may have 10" in packing_obstacle(window, 10)
    model = make_llm(tokenizer, model_type="gpt_bigcode")
    choose_attention(model, "cpu")
    chat = ChatTokenizer(tokenizer, 1, 512)
    with caplog.at_level("INFO", "priorkit"):
        objective = InstructionObjective(TextOnlyModel(model), gathered(TEXT, tmp_path), chat)
    assert "padded, not packed: packing is not tested for 'gpt_bigcode'" in caplog.text
    batch = objective.collate([objective.sample(n, n) for n in range(3)])
    assert batch["attention_mask"].sum(1).tolist() == [
        len(objective.sample(n, n).encoded.input_ids) for n in range(3)
    ]
    assert np.isfinite(float(objective.loss(batch).total.detach()))


def test_no_sample_attends_to_another(tokenizer: Any, tmp_path: Path) -> None:
    multimodal = make_llava(tokenizer)
    objective = objective_of(multimodal, SEVERAL, tmp_path, packing=True)
    batch = objective.collate([objective.sample(n, n) for n in range(len(SEVERAL))])
    with torch.no_grad():
        before = objective.last_hidden(batch)
        row = 0
        first = (batch["document_ids"][row] == 0) & (
            batch["input_ids"][row] != multimodal.model.config.image_token_id
        )
        batch["input_ids"][row, first] = 7
        after = objective.last_hidden(batch)
    same = batch["document_ids"][row] > 0
    assert torch.equal(before[row, same], after[row, same])
    assert not torch.equal(before[row, first], after[row, first])


def test_rows_hold_every_sample_once_with_its_images_in_order(tokenizer: Any, tmp_path: Path) -> None:
    multimodal = make_llava(tokenizer)
    objective = objective_of(multimodal, SEVERAL, tmp_path, packing=True)
    items = [objective.sample(n, n) for n in range(len(SEVERAL))]
    batch = objective.collate(items)
    rows, length = objective.arrange(items)
    assert batch["input_ids"].shape == (len(rows), length)
    order = [place for row in rows for place in row]
    assert sorted(order) == list(range(len(SEVERAL)))
    expected = torch.stack([objective._features._pixels[i] for place in order for i in items[place].images])  # type: ignore[union-attr]
    assert torch.equal(batch["pixels"], expected)
    pad = batch["document_ids"] < 0
    assert (batch["labels"][pad] == IGNORE).all()
    for row, places in enumerate(rows):
        ids = batch["input_ids"][row][~pad[row]].tolist()
        assert ids == [token for place in places for token in items[place].encoded.input_ids]
    objective.loss(batch)
    assert objective.useful_share == pytest.approx(float((~pad).float().mean()))


def test_a_batch_without_images_changes_neither_projector_nor_encoder(tokenizer: Any, tmp_path: Path) -> None:
    multimodal = make_llava(tokenizer)
    _, gradients = step(objective_of(multimodal, TEXT, tmp_path, packing=True))
    assert {multimodal.parameter_part(name) for name in gradients} == {"llm"}
