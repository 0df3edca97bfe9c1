"""Each family of transformers, answered in batches, gives what a plain loop over single samples gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from priorkit.architectures.registry import check_model
from priorkit.core.process.runtime import Runtime
from priorkit.data.images.decoding import ImageRef, decode
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.runner.asking import RequestOptions
from priorkit.evaluation.runner.backends.requests import run_backend
from priorkit.evaluation.runner.prompts import PromptBuilder
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.evaluation.tasks.registry import TASKS
from priorkit.inference.answer_cache import AnswerCache
from priorkit.inference.backends.generate import GenerateBackend
from priorkit.inference.backends.loading import BackendOptions, load_backend
from tests.support.evaluation_models import picture
from tests.support.image_text_models import FAMILIES, save_image_text_model

CPU = Runtime(torch.device("cpu"), "fp32", 0)
SIDES = (40, 100, 60, 40)
QUESTIONS = (
    "What is shown in it?",
    "Which colour?",
    "Is there a star, or a small circle, or a triangle?",
    "Why so?",
)


def images(*numbers: int) -> tuple[ImageRef, ...]:
    return tuple(ImageRef(f"{n}.png", content=picture(n, SIDES[n % len(SIDES)])) for n in numbers)


def items() -> list[Item]:
    """Items with one image of several sizes, with two, and without."""
    seen = [images(0), images(1), images(2), images(3), images(1, 0), ()]
    return [
        Item(
            f"i{number}", QUESTIONS[number % 4], shown[0] if shown else None, shown[1:],
            choices=("a red circle", "it", f"star {number}"), answer=0,
        )
        for number, shown in enumerate(seen)
    ]  # fmt: skip


@dataclass(frozen=True)
class Plain:
    """The model and its processor as anybody would use them."""

    model: Any
    processor: Any
    chat: bool

    def prompt(self, item: Item, text: str) -> str:
        if (
            not self.chat
        ):  # PaliGemma's processor ends a prompt with a line break, also where there is no image
            return "<image>\n" * len(item.images) + text + ("" if item.images else "\n")
        parts = [{"type": "image"}] * len(item.images) + [{"type": "text", "text": text}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
        )

    def inputs(self, item: Item, text: str, **more: Any) -> dict[str, Any]:
        shown = [[decode(image) for image in item.images]] if item.images else None
        call = self.processor if shown else self.processor.tokenizer
        encoded = call(text=[text], **({"images": shown} if shown else {}), return_tensors="pt", **more)
        return {name: value for name, value in encoded.items() if name != "labels" and torch.is_tensor(value)}

    @torch.no_grad()
    def write(self, item: Item, text: str, tokens: int) -> str:
        inputs = self.inputs(item, self.prompt(item, text))
        written = self.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        new = written[0, inputs["input_ids"].shape[1] :]
        return self.processor.tokenizer.decode(new, skip_special_tokens=True)

    @torch.no_grad()
    def score(self, item: Item, text: str, option: str) -> float:
        """Log-probability of an option by one forward pass over prompt and option."""
        prompt = self.prompt(item, text)
        tail = self.processor.tokenizer(option, add_special_tokens=False)["input_ids"]
        if self.chat:
            inputs = self.inputs(item, prompt + option)
        elif not item.images:
            inputs = self.inputs(item, prompt + option)
            inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
            inputs["token_type_ids"][:, -len(tail) :] = 1
        else:  # a prefix that attends in both directions, and a suffix that does not
            inputs = self.inputs(item, prompt, suffix=option)
            inputs = {n: v[:, :-1] if n in TEXT else v for n, v in inputs.items()}  # its end of text
        assert inputs["input_ids"][0, -len(tail) :].tolist() == tail
        logits = self.model(**inputs).logits[0, -len(tail) - 1 : -1]
        return float(logits.log_softmax(-1).gather(-1, torch.tensor(tail)[:, None]).double().sum())


TEXT = ("input_ids", "attention_mask", "token_type_ids")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    save_image_text_model(request.param, folder)
    return request.param, folder


@pytest.fixture(scope="module")
def backend(family: tuple[str, Path]) -> GenerateBackend:
    info = check_model(family[1])
    assert (info.kind, info.native) == ("mllm", False)
    loaded = load_backend("transformers", info, CPU, BackendOptions())
    assert isinstance(loaded, GenerateBackend)
    return loaded


@pytest.fixture(scope="module")
def plain(family: tuple[str, Path]) -> Plain:
    model = AutoModelForImageTextToText.from_pretrained(family[1]).eval()
    return Plain(model, AutoProcessor.from_pretrained(family[1]), bool(FAMILIES[family[0]].image))


def ask(
    backend: GenerateBackend, folder: Path, batch_size: int, mode: Any, chat: bool, tokens: int = 5
) -> list[ModelAnswer]:
    prompter = PromptBuilder(
        backend.tokenizer, "chat" if chat else "plain", "text", image_token=backend.image_token, parts=True
    )
    task = TASKS["choice" if mode == "likelihood" else "exact"]
    answered, answers = run_backend(
        backend, RequestOptions(prompter, batch_size, tokens), items(), task, mode, Rejects(0.0), "b",
        AnswerCache(folder / f"{mode}{batch_size}", "b"),
    )  # fmt: skip
    assert [item.id for item in answered] == [item.id for item in items()]
    return answers


def texts_of(answers: Sequence[ModelAnswer], chat: bool) -> list[str]:
    """The user's words in each prompt."""
    if not chat:
        return [answer.prompt.replace("<image>\n", "") for answer in answers]
    texts = [answer.prompt.split("user\n")[1].split("<|im_end|>")[0] for answer in answers]
    known = [item.question for item in items()]
    return [text[text.index(question) :] for text, question in zip(texts, known, strict=True)]


def test_answers_are_those_of_a_plain_loop_for_any_batch_size(
    family: tuple[str, Path], backend: GenerateBackend, plain: Plain, tmp_path: Path
) -> None:
    one = ask(backend, tmp_path, 1, "generation", plain.chat)
    many = ask(backend, tmp_path, 4, "generation", plain.chat)
    assert one == many
    expected = [
        plain.write(item, text, 5) for item, text in zip(items(), texts_of(one, plain.chat), strict=True)
    ]
    got = [answer.prediction for answer in one]
    assert got == [text.strip() if plain.chat else text.strip().split("\n")[0].strip() for text in expected]
    assert len(set(expected)) > 1, "the answers do not depend on the items"
    assert [answer.image_tokens > 0 for answer in one] == [True] * 5 + [False]


def test_likelihoods_are_those_of_a_forward_pass_for_any_batch_size(
    family: tuple[str, Path], backend: GenerateBackend, plain: Plain, tmp_path: Path
) -> None:
    answers = ask(backend, tmp_path, 4, "likelihood", plain.chat)
    again = ask(backend, tmp_path, 1, "likelihood", plain.chat)
    for item, answer, single, text in zip(
        items(), answers, again, texts_of(answers, plain.chat), strict=True
    ):
        expected = [plain.score(item, text, option) for option in item.choices]
        assert answer.loglikelihoods == pytest.approx(expected, abs=2e-3), item.id
        assert answer.loglikelihoods == pytest.approx(single.loglikelihoods, abs=2e-4), item.id
        assert max(answer.tokens) > 1
    assert len({answer.loglikelihoods[2] for answer in answers}) > 3, "the answers do not depend on the items"
