from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from priorkit.core.process.runtime import Runtime
from priorkit.data.conversations.conversation import Conversation, Turn
from priorkit.data.conversations.refusal import REFUSAL
from priorkit.data.images.decoding import ImageRef
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.kernels.cross_entropy import IGNORE
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.models.multimodal.text_only import TextOnlyModel
from priorkit.scoring.answers.refusals import abstains
from priorkit.training.finetuning import withheld_images
from tests.support.chat_models import gathered, make_llm, make_tokenizer, talk

RUNTIME = Runtime(torch.device("cpu"), "fp32", 0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def mean_log_likelihood(model: Any, chat: ChatTokenizer, turns: list[tuple[str, str]]) -> float:
    """transformers' own loss of one conversation, unpacked."""
    encoded = chat.encode(turns)
    ids, labels = torch.tensor([encoded.input_ids]), torch.tensor([encoded.labels])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
    wanted = labels[0, 1:] != IGNORE
    return float(logits[wanted].gather(1, labels[0, 1:][wanted][:, None]).mean())


@pytest.mark.parametrize("packing", [True, False])
def test_gains_are_differences_of_mean_log_likelihoods(tokenizer: Any, tmp_path: Path, packing: bool) -> None:
    model = make_llm(tokenizer).eval()
    chat = ChatTokenizer(tokenizer, 1, 512)
    talks = [talk(n, 0, 3 + n, 1 + n % 2) for n in range(7)]
    expected: list[float] = []
    for conversation in talks:
        turns = [(turn.role, turn.text) for turn in conversation.turns]
        empty = [(role, "" if role == "user" else text) for role, text in turns]
        expected.append(mean_log_likelihood(model, chat, turns) - mean_log_likelihood(model, chat, empty))
    choose_attention(model, "cpu")
    gains = withheld_images.answer_gains(
        TextOnlyModel(model), gathered(talks, tmp_path), chat, packing, RUNTIME
    )
    np.testing.assert_allclose(gains, expected, rtol=1e-4, atol=1e-5)
    assert gains.std() > 0


def test_every_sample_shows_the_images_of_another_with_as_many(tmp_path: Path) -> None:
    talks = [talk(n, n % 3, 4, 1) for n in range(20)] + [talk(99, 5, 6, 1)]
    samples = gathered(talks, tmp_path)
    shown = withheld_images.OtherImages(samples, seed=3)
    assert shown.unshuffled == 1
    assert len(shown) == 21
    assert [shown[n].id for n in range(21)] == [samples[n].id for n in range(21)]
    for count in (0, 1, 2):
        alike = [n for n in range(20) if n % 3 == count]
        assert sorted(tuple(shown.images_of(n)) for n in alike) == sorted(
            tuple(samples.images_of(n)) for n in alike
        )
        if count:
            assert all(shown.images_of(n) != samples.images_of(n) for n in alike)
    other = withheld_images.OtherImages(samples, seed=4)
    assert [shown.images_of(n) for n in range(21)] != [other.images_of(n) for n in range(21)]


def test_shuffled_answers_come_from_another_with_as_many(tmp_path: Path) -> None:
    talks = [talk(n, 0, 2, 1 + n % 3) for n in range(20)] + [talk(99, 0, 2, 5)]
    samples = gathered(talks, tmp_path)
    partners, unshuffled = withheld_images.shuffled_partners(samples, seed=3)
    assert unshuffled == 1
    assert sorted(partners) == list(range(21))
    assert [n for n in range(21) if partners[n] == n] == [20]
    for index, other in enumerate(partners):
        made = withheld_images.with_answers(talks[index], withheld_images.answers_of(talks[int(other)]))
        assert withheld_images.answers_of(made) == withheld_images.answers_of(talks[int(other)])
        assert [turn.text for turn in made.turns[::2]] == [turn.text for turn in talks[index].turns[::2]]
    assert not np.array_equal(partners, withheld_images.shuffled_partners(samples, seed=4)[0])


def test_refusals_keep_the_questions() -> None:
    made = withheld_images.with_refusals(talk(1, 1, 4, 2))
    assert withheld_images.answers_of(made) == [REFUSAL, REFUSAL]
    assert made.turns[0] == talk(1, 1, 4, 2).turns[0]
    assert abstains(REFUSAL)
    assert abstains(f"{REFUSAL}</s>")
    assert not abstains("I can tell: it is a heron.")


def test_images_are_withheld_but_counted() -> None:
    conversation = Conversation(
        "1", (Turn("user", "<image>\nq"), Turn("assistant", "a")), talk(1, 1, 1).images
    )
    assert withheld_images.withhold_images(conversation, "drop").turns[0].text == "q"
    assert withheld_images.withhold_images(conversation, "keep").turns[0].text == "<image>\nq"
    assert len(withheld_images.drop_image_content(conversation).images) == 1
    assert withheld_images.drop_image_content(conversation).images[0].content is None


def test_a_new_placeholder_is_distributed_like_the_embeddings() -> None:
    table = torch.randn(4000, 6, generator=torch.Generator().manual_seed(1)) * 3 + 5
    made, same, other = (
        withheld_images.placeholder_embedding(table, 3000, seed).weight for seed in (1, 1, 2)
    )
    assert torch.equal(made, same)
    assert not torch.equal(made, other)
    torch.testing.assert_close(made.mean(0), table.mean(0), rtol=0.1, atol=0)
    torch.testing.assert_close(made.std(0), table.std(0), rtol=0.1, atol=0)


def test_changed_conversations_keep_everything_else() -> None:
    image = ImageRef("a.png", content=b"x")
    turns = (Turn("user", "<image>\nWhat?"), Turn("assistant", "A heron."))
    whole = Conversation("1", turns, (image,), "perception", {"task": "image-level"})
    named = withheld_images.drop_image_content(whole)
    refused = withheld_images.with_refusals(whole)
    answered = withheld_images.with_answers(whole, ["No."])
    for changed in (named, refused, answered):
        assert (changed.id, changed.ability, changed.payload) == ("1", "perception", {"task": "image-level"})
    assert named == replace(whole, images=(ImageRef("a.png"),))
    assert answered == replace(whole, turns=(turns[0], Turn("assistant", "No.")))
