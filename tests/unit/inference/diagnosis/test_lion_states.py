"""States of a LION model, whose visual tokens depend on the question."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from priorkit.data.images.decoding import ImageRef
from priorkit.inference.diagnosis.native import NativeAsker
from priorkit.inference.diagnosis.states import image_inputs, image_states
from priorkit.inference.model_adapter import ModelAdapter
from tests.support.lion_models import build_base, build_lion, png, randomize_parts


def test_states_end_in_the_logits_of_the_model(tmp_path: Path) -> None:
    lion = randomize_parts(build_lion(build_base(tmp_path / "base")))
    model = ModelAdapter(lion.model, lion.tokenizer, lion.max_length, lion)
    images = [ImageRef(f"{number}.png", content=png(number)) for number in range(3)]
    prompt, answers = NativeAsker(model, tmp_path / "answers", 2).chat(
        "What is shown?", ("red", "blue"), image=True
    )
    inputs = image_inputs(model, images, "What is shown?")
    assert inputs[0].question == "What is shown?"
    tokens = [(answers[0][0], answers[1][0])] * 3
    states = image_states(model, prompt, inputs, tokens, layers=4, batch_size=2, scratch=tmp_path)
    ids = torch.tensor([prompt])
    with torch.no_grad():
        for row, prompted in enumerate(inputs):
            positions = torch.arange(len(prompt))[None]
            logits, _ = model.forward(ids, torch.ones_like(ids), positions, keep=1, inputs=[prompted])
            expected = logits[0, -1, [answers[0][0], answers[1][0]]].double().numpy()
            np.testing.assert_allclose(
                [states.visual[row, -1], states.prior[row, -1]], expected, atol=1e-3, rtol=1e-3
            )
    assert len(states.encoder) == len(states.projected) == 3
    assert states.encoder.isfinite().all()
    assert states.projected.std(0).max() > 0
