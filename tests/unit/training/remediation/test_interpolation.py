from __future__ import annotations

import copy

import torch

from priorkit.models.vision.encoder import Encoder
from priorkit.training.remediation.interpolation import InterpolationPath


def test_the_path_ends_exactly_at_both_encoders(encoder: Encoder) -> None:
    tuned = copy.deepcopy(encoder.model)
    with torch.no_grad():
        for number, parameter in enumerate(tuned.vision_model.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    after = copy.deepcopy(tuned.state_dict())
    path = InterpolationPath(tuned, encoder.model)
    path.move_to(0.25)
    for name, value in tuned.state_dict().items():
        expected = 0.75 * encoder.model.state_dict()[name] + 0.25 * after[name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    path.move_to(0.0)
    assert all(torch.equal(v, encoder.model.state_dict()[k]) for k, v in tuned.state_dict().items())
    path.move_to(1.0)
    assert all(torch.equal(v, after[k]) for k, v in tuned.state_dict().items())
