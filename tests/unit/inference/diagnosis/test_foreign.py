"""States of each family of transformers against its own ``generate``, and how models without a chat template are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from priorkit.architectures.registry import check_model
from priorkit.core.errors import InputError
from priorkit.core.process.runtime import Runtime
from priorkit.data.images.decoding import ImageRef
from priorkit.inference.backends.base import Prompt
from priorkit.inference.diagnosis import foreign_states as room
from priorkit.inference.diagnosis.foreign import BackendAsker
from priorkit.inference.diagnosis.loading import load_asker
from tests.support.evaluation_models import picture
from tests.support.image_text_models import FAMILIES, save_image_text_model

CPU = Runtime(torch.device("cpu"), "fp32", 0)
IMAGES = [ImageRef(f"{n}.png", content=picture(n, side)) for n, side in ((0, 40), (1, 100), (2, 60))]


def load(family: str, folder: Path) -> BackendAsker:
    save_image_text_model(family, folder / "model")
    asker = load_asker(check_model(folder / "model"), CPU, folder / "answers", 2, 0)
    assert isinstance(asker, BackendAsker)
    return asker


def read(asker: BackendAsker, folder: Path) -> tuple[Any, str, tuple[int, int]]:
    prompt, answers = asker.chat("What is shown?", ("a red circle", "it"), image=True)
    tokens = (answers[0][0], answers[1][0])
    inputs = asker.inputs(IMAGES, "What is shown?")
    return asker.states(prompt, inputs, [tokens] * 3, layers=8, scratch=folder), prompt, tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_generate(family: str, tmp_path: Path) -> None:
    asker = load(family, tmp_path)
    states, prompt, tokens = read(asker, tmp_path)
    backend = asker.backend
    assert states.numbers == [1, 2]
    for row, image in enumerate(IMAGES):
        with torch.no_grad():
            output = backend.model.generate(
                **backend._inputs([Prompt(prompt, (image,))]), max_new_tokens=1, output_hidden_states=True,
                output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        expected = [state[0, -1] for state in output.hidden_states[0]]
        torch.testing.assert_close(states.layer(0)[row], expected[1], atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(states.layer(1)[row], expected[2], atol=2e-3, rtol=2e-3)
        logits = output.logits[0][0, list(tokens)].double().numpy()
        np.testing.assert_allclose(
            [states.visual[row, 1], states.prior[row, 1]], logits, atol=2e-3, rtol=2e-3
        )
    assert set(states.left_out) == ({"name_retrieval"} if family == "mllama" else set())
    assert np.isfinite(states.visual).all()
    assert len(states.encoder) == len(states.projected) == 3
    assert states.encoder.std(0).max() > 0
    assert asker.name_embeddings(["star", "red circle"]).shape == (2, states.projected.shape[1])


def test_what_a_family_lacks_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = load("qwen2_vl", tmp_path)

    def refuse(*_: Any) -> None:
        raise InputError("it has no image encoder that can be used by itself")

    monkeypatch.setattr(room, "_stack", lambda decoder: ())
    monkeypatch.setattr(room, "image_part_of", refuse)
    states, _, _ = read(asker, tmp_path)
    assert states.numbers == [2]
    assert states.encoder is states.projected is None
    assert np.isfinite(states.visual).all()
    assert states.left_out["encoder_separability"] == "it has no image encoder that can be used by itself"
    assert states.left_out["layers before the last"] == "its decoder has no list of layers"


def test_the_lens_is_used_only_where_it_gives_the_logits_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = load("idefics3", tmp_path)
    decoder, head = asker.backend.model.get_decoder(), asker.backend.model.get_output_embeddings()
    states = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = head(decoder.norm(states))
        exact = room.Lens(decoder, head, states, logits)
        torch.testing.assert_close(exact(states[:1]), logits[:1])
        assert room.Lens(decoder, head, states, logits * 0.0625)(states) is None
        assert room.Lens(torch.nn.Linear(1, 1), head, states, logits)(states) is None
        assert room.Lens(decoder, head, None, logits)(states) is None
    monkeypatch.setattr(room, "final_norm", lambda decoder: None)
    read_states, _, _ = read(asker, tmp_path)
    assert np.isnan(read_states.visual[:, 0]).all()
    assert np.isfinite(read_states.visual[:, 1]).all()
    assert "no logit lens" in read_states.left_out["arbitration before the last layer"]


def test_a_model_without_a_head_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen2VLForConditionalGeneration

    monkeypatch.setattr(Qwen2VLForConditionalGeneration, "get_output_embeddings", lambda self: None)
    with pytest.raises(InputError, match="has no output embeddings, so that its states cannot be read"):
        load("qwen2_vl", tmp_path)


def test_without_a_chat_template_questions_are_plain_text(tmp_path: Path) -> None:
    asker = load("paligemma", tmp_path)
    prompt, answers = asker.chat("What is shown?", ("a red circle",), image=True)
    assert prompt == "<image>\nWhat is shown?"
    assert asker.tokenizer.decode(answers[0]) == "a red circle"
    written = asker.generate(prompt, asker.inputs(IMAGES, ""), 8, "write")
    assert all("\n" not in text for text in written)


def test_images_that_the_model_cannot_take_are_named(tmp_path: Path) -> None:
    asker = load("qwen2_vl", tmp_path)
    asker.backend.max_length = 12
    prompt, _ = asker.chat("What is shown?", (), image=True)
    with pytest.raises(
        InputError, match=r"images and question take \d+ tokens, the model takes 12"
    ) as caught:
        asker.generate(prompt, asker.inputs(IMAGES, ""), 8, "write")
    assert str(caught.value).startswith(tuple(image.name for image in IMAGES))
    asker.tokenizer.chat_template = "{{ messages[0]['content'][1]['text'] }}"
    with pytest.raises(InputError, match="has 0 placeholders for 1 images"):
        asker.chat("What?", (), image=True)
