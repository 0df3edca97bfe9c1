"""Continuations scored as trees against one plain forward pass for each."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from priorkit.data.images.decoding import ImageRef
from priorkit.inference.likelihood import further_tokens, scoring
from priorkit.inference.likelihood.further_tokens import divided, tree_of
from priorkit.inference.likelihood.requests import Ids, LikelihoodRequest
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.inference.prompt_inputs import PromptInputs
from priorkit.models.language.attention_window import attention_window

SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 128,
}  # fmt: skip
CONTINUATIONS: tuple[Ids, ...] = ((3, 4, 5), (7,), (3, 4, 6, 11), (3, 4, 5), (8, 9), (3, 4), (12, 3, 4, 5, 6))


def adapter(kind: str, **options: Any) -> ModelAdapter:
    torch.manual_seed(3)
    classes: dict[str, Any] = {
        "llama": (LlamaForCausalLM, LlamaConfig),
        "mistral": (MistralForCausalLM, MistralConfig),
        "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig),
    }
    model_class, config_class = classes[kind]
    model = model_class(config_class(**SIZES, **options)).eval()
    for parameter in model.requires_grad_(False).parameters():
        parameter.mul_(3)
    return ModelAdapter(model, None, 128)


@torch.no_grad()
def one_by_one(model: ModelAdapter, request: LikelihoodRequest) -> list[float]:
    found: list[float] = []
    for ids in request.continuations:
        logits = model.model(input_ids=torch.tensor([request.context + ids])).logits[0].double()
        at = torch.arange(len(request.context) - 1, len(request.context) + len(ids) - 1)
        found.append(float(logits.log_softmax(-1)[at, torch.tensor(ids)].sum()))
    return found


def requests(lengths: list[int]) -> list[LikelihoodRequest]:
    draw = random.Random(5)
    places = tuple(range(len(CONTINUATIONS)))
    return [
        LikelihoodRequest(n, tuple(draw.randrange(40) for _ in range(length)), CONTINUATIONS, places)
        for n, length in enumerate(lengths)
    ]


def test_a_tree_has_each_beginning_once() -> None:
    tree = tree_of([(3, 4, 5), (3, 4, 6, 7), (8, 9), (3, 5, 5)])
    assert tree.tokens.tolist() == [3, 4, 6, 8, 5]
    assert tree.depths.tolist() == [0, 1, 2, 0, 1]
    assert tree.ways == ((0, 1), (0, 1, 2), (3,), (0, 4))
    assert [row.nonzero()[0].tolist() for row in tree.allowed] == [[0], [0, 1], [0, 1, 2], [3], [0, 4]]


@pytest.mark.parametrize("most", [1, 5, 12, 1000])
def test_trees_are_bounded_and_hold_every_continuation_once(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(further_tokens, "MOST_NODES", most)
    draw = random.Random(most)
    continuations = [tuple(draw.choices(range(3), k=draw.randint(2, 6))) for _ in range(40)]
    parts = divided(continuations)
    assert sorted(index for part in parts for index in part) == list(range(40))
    for part in parts:
        nodes = len(tree_of([continuations[index] for index in part]).tokens)
        assert nodes <= most or len({continuations[index][:-1] for index in part}) == 1
    if most == 1000:
        assert len(parts) == 1


@pytest.mark.parametrize("most", [1, 4, 256])
def test_scores_are_those_of_a_pass_each(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    model = adapter("llama")
    assert further_tokens._takes_trees(model)
    model.takes_trees = True
    monkeypatch.setattr(further_tokens, "MOST_NODES", most)
    batch = requests([4, 9, 2])
    found = scoring._shared(model, batch, [PromptInputs()] * 3)
    for request, scores in zip(batch, found, strict=True):
        assert scores == pytest.approx(one_by_one(model, request), abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mistral", {"sliding_window": 8}),
        ("gemma3", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    ],
)
@pytest.mark.parametrize("same", [False, True])
def test_windows_are_kept(kind: str, options: dict[str, Any], same: bool) -> None:
    """A mask given by hand, or padding within a row, must not change what a sliding window sees."""
    model = adapter(kind, **options)
    assert attention_window(model.model.config) == 8
    batch = requests([4, 30, 21])
    if same:  # contexts that begin alike
        start = batch[1].context[:20]
        batch = [
            LikelihoodRequest(n, start + request.context[: 3 + n], request.continuations, request.places)
            for n, request in enumerate(batch)
        ]
    found = scoring._score(model, batch, [PromptInputs()] * 3)
    for request, scores in zip(batch, found, strict=True):
        assert scores == pytest.approx(one_by_one(model, request), abs=1e-4)


def test_short_texts_are_packed_whatever_the_window() -> None:
    model = adapter("mistral", sliding_window=64)
    batch = requests([4, 9])
    assert model.takes_masks
    assert model.sees_all(64)
    assert not model.sees_all(65)
    for request, scores in zip(batch, scoring._score(model, batch, [PromptInputs()] * 2), strict=True):
        assert scores == pytest.approx(one_by_one(model, request), abs=1e-4)


def test_a_model_that_takes_no_notice_of_the_mask_gets_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapter("llama")
    forward = model.forward

    def unmasked(ids: Any, mask: Any, positions: Any, **options: Any) -> Any:
        return forward(ids, mask[:, 0, -1].long() if mask.dim() == 4 else mask, positions, **options)

    monkeypatch.setattr(model, "forward", unmasked)
    batch = requests([4, 9])
    found = scoring._shared(model, batch, [PromptInputs()] * 2)
    assert model.takes_trees is False
    for request, scores in zip(batch, found, strict=True):
        assert scores == pytest.approx(one_by_one(model, request), abs=1e-4)


def test_a_multimodal_model_takes_trees(llava: ModelAdapter, images: list[ImageRef]) -> None:
    assert llava.multimodal is not None
    image = llava.multimodal.model.config.image_token_id
    prompt = (5, *[image] * llava.multimodal.image_tokens, 6, 7)
    places = tuple(range(len(CONTINUATIONS)))
    batch = [LikelihoodRequest(n, prompt, CONTINUATIONS, places) for n in range(2)]
    seen = [PromptInputs((picture,)) for picture in images[:2]]
    llava.takes_trees = None
    found = scoring.score_batch(llava, batch, seen)
    assert llava.takes_trees
    llava.takes_trees = False
    for scores, in_rows in zip(found, scoring.score_batch(llava, batch, seen), strict=True):
        assert scores == pytest.approx(in_rows, abs=1e-4)
    llava.takes_trees = None


def test_windows_of_configurations() -> None:
    def window(**values: Any) -> int | None:
        config = SimpleNamespace(**values)
        config.get_text_config = lambda: config
        return attention_window(config)

    assert window() is None
    assert window(sliding_window=None) is None
    assert window(sliding_window=512, attention_chunk_size=None) == 512
    assert window(attention_chunk_size=64, sliding_window=128) == 64
