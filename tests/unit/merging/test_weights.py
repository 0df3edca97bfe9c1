"""Weights per input, layer range, name pattern and depth."""

from __future__ import annotations

import pytest

from priorkit.core.errors import UsageError
from priorkit.merging.weights import Weights, parse_rules

NAMES = [
    "model.embed_tokens.weight",
    *(
        f"model.layers.{layer}.{part}.weight"
        for layer in range(5)
        for part in ("self_attn.q_proj", "mlp.up_proj")
    ),
    "lm_head.weight",
]


def weights(rules, plain=(1.0, 2.0)):
    return Weights(plain, parse_rules(rules, len(plain)), NAMES)


def test_without_rules_the_plain_weights_hold():
    assert weights({}).of(NAMES[0]) == (1.0, 2.0)


def test_a_part_of_a_name_a_pattern_and_a_layer_range():
    found = weights({"mlp": "0.5", "2:*q_proj*": "0.25", "layers.3-4": "0"})
    assert found.of("model.layers.0.mlp.up_proj.weight") == (0.5, 0.5)
    assert found.of("model.layers.0.self_attn.q_proj.weight") == (1.0, 0.25)
    assert found.of("model.layers.3.mlp.up_proj.weight") == (0.0, 0.0)
    assert found.of("lm_head.weight") == (1.0, 2.0)


def test_the_last_rule_that_fits_holds():
    assert weights({"1:mlp": "0", "layers.0-1": "0.75"}).of("model.layers.1.mlp.up_proj.weight") == (
        0.75,
        0.75,
    )


def test_a_gradient_runs_over_the_depth():
    found = weights({"1:*": "0,1,0.5"})
    expected = {0: 0.0, 1: 0.5, 2: 1.0, 3: 0.75, 4: 0.5}
    for layer, value in expected.items():
        assert found.of(f"model.layers.{layer}.mlp.up_proj.weight") == (pytest.approx(value), 2.0)
    assert found.of("model.embed_tokens.weight")[0] == 0.0
    assert found.of("lm_head.weight")[0] == 0.5


def test_rules_that_cannot_be_read_or_fit_nothing():
    with pytest.raises(UsageError) as caught:
        parse_rules({"mlp": "half", "3:mlp": "1"}, 2)
    assert len(caught.value.problems) == 2
    assert weights({"visoin_tower": "0"}).unused == ["visoin_tower"]
