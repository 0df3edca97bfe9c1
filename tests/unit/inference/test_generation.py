"""Greedy generation: equal to transformers' generate, whatever the batch size and the order."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from priorkit.data.images.decoding import ImageRef, decode
from priorkit.inference.model_adapter import ModelAdapter
from tests.support.evaluation_models import generate_all


def prompts(subject: ModelAdapter, images: list[ImageRef]) -> tuple[list[list[int]], list[ImageRef | None]]:
    texts = ["What is it?", "Which colour has the triangle of the two?", "yes", "Is there a star in it? " * 3]
    seen: list[ImageRef | None] = (
        [images[0], None, images[1], images[0]] if subject.multimodal else [None] * 4
    )
    ids = [
        subject.encode(("<image>\n" if image else "") + text) for text, image in zip(texts, seen, strict=True)
    ]
    return ids, seen


def run(
    subject: ModelAdapter, ids: list[list[int]], seen: Any, batch_size: int, stop: set[int]
) -> list[list[int]]:
    return generate_all(subject, ids, seen, batch_size, max_new_tokens=8, stop=stop)


@pytest.mark.parametrize("name", ["llm", "llava"])
def test_equals_transformers_generate(
    name: str, images: list[ImageRef], request: pytest.FixtureRequest
) -> None:
    subject: ModelAdapter = request.getfixturevalue(name)
    ids, seen = prompts(subject, images)
    for prompt, image, found in zip(ids, seen, run(subject, ids, seen, 4, set()), strict=True):
        options: dict[str, Any] = {}
        if image is not None and subject.multimodal is not None:
            pixels = subject.multimodal.processor.image_processor(images=decode(image), return_tensors="pt")
            options["pixel_values"] = pixels["pixel_values"]
        sequence = torch.tensor([prompt])
        with torch.no_grad():
            expected = subject.model.generate(
                input_ids=sequence,
                attention_mask=torch.ones_like(sequence),
                max_new_tokens=8,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                **options,
            )[0, len(prompt) :].tolist()
        assert found == expected


@pytest.mark.parametrize("name", ["llm", "llava"])
def test_does_not_depend_on_batch_size_or_order(
    name: str, images: list[ImageRef], request: pytest.FixtureRequest
) -> None:
    subject: ModelAdapter = request.getfixturevalue(name)
    ids, seen = prompts(subject, images)
    one_by_one = run(subject, ids, seen, 1, set())
    assert len({tuple(answer) for answer in one_by_one}) == 4
    # A token that ends some answers early, so that rows leave the batch at different steps.
    stop = {one_by_one[0][3]}
    expected = [
        answer[: answer.index(one_by_one[0][3])] if one_by_one[0][3] in answer else answer
        for answer in one_by_one
    ]
    for batch_size in (1, 2, 3, 4):
        assert run(subject, ids, seen, batch_size, stop) == expected
    assert run(subject, ids[::-1], seen[::-1], 3, stop) == expected[::-1]


def test_stops_at_the_models_length(llm: ModelAdapter) -> None:
    ids = [[5] * (llm.max_length - 3)]
    assert len(run(llm, ids, [None], 1, set())[0]) == 3
