"""Log-probabilities against lm-evaluation-harness and against one plain forward pass per option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from priorkit.architectures.registry import check_model
from priorkit.core.errors import InputError
from priorkit.data.images.decoding import ImageRef, decode
from priorkit.evaluation.runner.prompts import PromptBuilder
from priorkit.evaluation.tasks.choice import CHOICE
from priorkit.evaluation.tasks.item import Item
from priorkit.inference.bos import bos_ids_of
from priorkit.inference.likelihood.requests import (
    LikelihoodRequest,
    requests_of,
    rolling_requests,
    split_pair,
)
from priorkit.inference.loading import load_model_adapter
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.models.language.chat_template import ChatTokenizer
from tests.support.evaluation_models import score_all
from tests.support.golden import load

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="module")
def golden() -> list[dict[str, Any]]:
    return json.loads((GOLDEN / "lm_harness.json").read_text(encoding="utf-8"))["cases"]


@pytest.fixture(scope="module")
def golden_model() -> ModelAdapter:
    return load_model_adapter(check_model(GOLDEN / "tiny-llama"), torch.device("cpu"))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_choices_equal_lm_evaluation_harness(
    golden: list[dict[str, Any]], golden_model: ModelAdapter, batch_size: int
) -> None:
    cases = [case for case in golden if case["input"]["kind"] == "multiple_choice"]
    requests: list[LikelihoodRequest] = []
    for number, case in enumerate(cases):
        pairs = [
            split_pair(golden_model.encode, case["input"]["context"], " " + choice, golden_model.prefix)
            for choice in case["input"]["choices"]
        ]
        requests += requests_of(number, pairs, golden_model.max_length)
    found = score_all(golden_model, requests, [None] * len(cases), batch_size)
    values: list[dict[int, float]] = [{} for _ in cases]
    for request, scores in zip(requests, found, strict=True):
        values[request.item].update(zip(request.places, scores, strict=True))
    for case, own in zip(cases, values, strict=True):
        expected = case["expected"]["loglikelihood"]
        assert [own[place] for place in range(len(expected))] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_choices_equal_lm_evaluation_harness_with_a_beginning_token() -> None:
    cases = load("lm_harness_begin_token")["cases"]
    model = load_model_adapter(check_model(GOLDEN / "tiny-llama-bos"), torch.device("cpu"))
    assert model.bos_ids == [model.prefix]
    for number, case in enumerate(cases):
        pairs = [
            split_pair(model.encode, case["input"]["context"], " " + choice, model.prefix, model.bos_ids)
            for choice in case["input"]["choices"]
        ]
        requests = requests_of(0, pairs, model.max_length)
        (scores,) = score_all(model, requests, [None], 4)
        assert list(scores) == pytest.approx(case["expected"]["loglikelihood"], abs=1e-3), number


def test_the_beginning_token_is_a_choice() -> None:
    tokenizer = load_model_adapter(check_model(GOLDEN / "tiny-llama-bos"), torch.device("cpu")).tokenizer
    plain = load_model_adapter(check_model(GOLDEN / "tiny-llama"), torch.device("cpu")).tokenizer
    bos = tokenizer.bos_token_id
    assert [bos_ids_of(tokenizer, rule) for rule in ("auto", "always", "never")] == [[bos], [bos], []]
    assert bos_ids_of(plain, "auto") == bos_ids_of(plain, "never") == []
    plain.bos_token = None
    with pytest.raises(InputError, match="no beginning-of-text token"):
        bos_ids_of(plain, "always")


def test_a_beginning_token_in_the_text_is_not_doubled() -> None:
    encode = lambda text: list(text.encode())  # noqa: E731
    assert split_pair(encode, "ab", " c", 0, [1]) == ([1, *b"ab"], list(b" c"))
    assert split_pair(encode, "ab", " c", 0, list(b"a")) == (list(b"ab"), list(b" c"))
    assert split_pair(encode, "", " c", 7, [7]) == ([7], list(b" c"))


def test_rolling_windows_equal_lm_evaluation_harness(
    golden: list[dict[str, Any]], golden_model: ModelAdapter
) -> None:
    cases = [case for case in golden if case["input"]["kind"] != "multiple_choice"]
    for case in cases:
        ids = golden_model.encode(case["input"]["text"])
        requests = rolling_requests(0, ids, golden_model.prefix, golden_model.max_length)
        found = score_all(golden_model, requests, [None], 3)
        assert sum(value for (value,) in found) == pytest.approx(case["expected"]["loglikelihood"], rel=1e-5)


def test_windows_predict_every_token_once_from_full_contexts() -> None:
    ids = list(range(100, 125))
    requests = rolling_requests(0, ids, 1, 10)
    assert [token for request in requests for token in request.continuations[0]] == ids
    inputs = [request.context + request.continuations[0][:-1] for request in requests]
    assert [len(window) for window in inputs] == [10, 10, 10]
    assert inputs[0][0] == 1
    assert inputs[-1] == tuple(range(114, 124))


def test_blank_at_the_end_of_the_context_is_scored_with_the_option() -> None:
    def encode(text: str) -> list[int]:
        return list(text.encode())

    assert split_pair(encode, "ab ", " c", 0) == (list(b"ab"), list(b"  c"))
    assert split_pair(encode, "", " c", 0) == ([0], list(b" c"))
    assert split_pair(encode, " ", "c", 0) == ([0], list(b" c"))


def naive(subject: ModelAdapter, prompt: list[int], option: list[int], image: ImageRef | None) -> float:
    """The sum of log-probabilities from one forward pass of transformers' own model."""
    ids = torch.tensor([prompt + option])
    options: dict[str, Any] = {}
    if image is not None and subject.multimodal is not None:
        processor = subject.multimodal.processor.image_processor
        options["pixel_values"] = processor(images=decode(image), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = subject.model(input_ids=ids, **options).logits[0].float()
    logprobs = torch.log_softmax(logits, dim=-1)
    return sum(float(logprobs[len(prompt) - 1 + place, token]) for place, token in enumerate(option))


@pytest.mark.parametrize("form", ["letter", "text"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_shared_contexts_equal_a_pass_per_option(
    llava: ModelAdapter, images: list[ImageRef], form: Any, batch_size: int
) -> None:
    prompter = PromptBuilder(llava.tokenizer, "chat", form)
    items = [
        Item(
            id=number,
            question="What is shown in the image?" + " Look again." * number,
            image=images[number] if number != 3 else None,
            choices=("a red circle", "two", "the small blue square")[: 2 + number % 2],
            answer=0,
        )
        for number in range(6)
    ]
    prompts = [prompter(item, CHOICE, "likelihood") for item in items]
    pairs = [
        [split_pair(llava.encode, prompt.text, option, llava.prefix) for (option,) in prompt.options]
        for prompt in prompts
    ]
    requests = [
        request
        for n, item_pairs in enumerate(pairs)
        for request in requests_of(n, item_pairs, llava.max_length)
    ]
    found = score_all(llava, requests, [item.image for item in items], batch_size)
    for request, scores in zip(requests, found, strict=True):
        image = items[request.item].image
        expected = [naive(llava, list(request.context), list(ids), image) for ids in request.continuations]
        assert scores == pytest.approx(expected, abs=2e-4)
    assert len({round(scores[0], 2) for scores in found}) > 3


def test_chat_prompt_is_the_chat_tokenizers(llava: ModelAdapter, images: list[ImageRef]) -> None:
    item = Item(id=0, question="What is <image> shown?", image=images[0], choices=("one", "two"), answer=1)
    prompt = PromptBuilder(llava.tokenizer, "chat", "letter")(item, CHOICE, "likelihood")
    assert llava.multimodal is not None
    chat = ChatTokenizer(llava.tokenizer, llava.multimodal.image_tokens, llava.max_length)
    question = (
        "What is  shown?\nA. one\nB. two\nAnswer with the option's letter from the given choices directly."
    )
    assert llava.encode(prompt.text) == chat.prompt([("user", "<image>\n" + question)])
    assert prompt.options == ((" A",), (" B",))


def test_options_are_cut_from_the_left_and_keep_their_context_apart() -> None:
    long, short = [7] * 3, [8]
    requests = requests_of(0, [([1, 2, 3, 4], long), ([1, 2, 3, 4], short)], 5)
    assert [(request.context, request.places) for request in requests] == [
        ((2, 3, 4), (0,)),
        ((1, 2, 3, 4), (1,)),
    ]
