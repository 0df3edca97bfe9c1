"""Each part of LION equals a plain float64 computation of its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import InstructBlipQFormerModel

from priorkit.architectures.lion.modeling.adapters import LayerAdapters, Routing
from priorkit.architectures.lion.modeling.configuration import check_adapters, check_layers, default_layers
from priorkit.core.errors import UsageError
from tests.support.lion_models import build_lion, randomize_parts


def arrays(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attention(p: dict, at: str, x: np.ndarray, y: np.ndarray, heads: int) -> np.ndarray:
    def line(name: str, value: np.ndarray) -> np.ndarray:
        return value @ p[f"{at}.{name}.weight"].T + p[f"{at}.{name}.bias"]

    query, key, value = line("query", x), line("key", y), line("value", y)
    width = x.shape[-1] // heads
    out = np.zeros_like(query)
    for head in range(heads):
        columns = slice(head * width, (head + 1) * width)
        for row in range(len(x)):
            scores = query[row][:, columns] @ key[row][:, columns].T / math.sqrt(width)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[row][:, columns] = weights / weights.sum(-1, keepdims=True) @ value[row][:, columns]
    return out @ p[f"{at}.output.weight"].T + p[f"{at}.output.bias"]


def block(p: dict, at: str, x: np.ndarray, y: np.ndarray, heads: int) -> np.ndarray:
    def norm(place: int, value: np.ndarray) -> np.ndarray:
        return layer_norm(value, p[f"{at}.norms.{place}.weight"], p[f"{at}.norms.{place}.bias"], 1e-12)

    a = norm(0, x + attention(p, f"{at}.self_attention", x, x, heads))
    b = norm(1, a + attention(p, f"{at}.cross_attention", a, y, heads))
    wide = gelu(b @ p[f"{at}.up.weight"].T + p[f"{at}.up.bias"])
    return norm(2, b + wide @ p[f"{at}.down.weight"].T + p[f"{at}.down.bias"])


def test_aggregator_is_its_formula(base) -> None:
    lion = randomize_parts(build_lion(base), 1)
    module = lion.model.model.lion.aggregator.double()
    width = lion.model.config.vision_config.hidden_size
    deep, middle, shallow = torch.randn(3, 2, 7, width, dtype=torch.float64, generator=_seed(3))
    p = arrays(module)
    first = block(p, "blocks.0", deep.numpy(), middle.numpy(), 2)
    second = block(p, "blocks.1", first, shallow.numpy(), 2)
    joined = layer_norm(second, p["norm.weight"], p["norm.bias"], 1e-5)
    expected = gelu(joined @ p["up.weight"].T + p["up.bias"]) @ p["down.weight"].T + p["down.bias"]
    found = module(deep, middle, shallow).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_a_new_aggregator_block_is_three_layer_norms_and_not_causal(base) -> None:
    module = build_lion(base).model.model.lion.aggregator
    width = module.norm.weight.shape[0]
    x, y = torch.randn(2, 1, 6, width, generator=_seed(1))
    expected = x
    for _ in range(3):
        expected = torch.nn.functional.layer_norm(expected, (width,), eps=1e-12)
    torch.testing.assert_close(module.blocks[0](x, y), expected)
    trained = randomize_parts(build_lion(base), 2).model.model.lion.aggregator
    changed = x.clone()
    changed[0, -1] += 1
    # The first position attends to the last one: attention is not causal.
    assert not torch.allclose(trained.blocks[0](x, y)[0, 0], trained.blocks[0](changed, y)[0, 0])


@pytest.mark.parametrize("shape", ["row", "token"])
def test_mixture_is_its_formula(shape: str) -> None:
    width, bottleneck = 6, 3
    layer = LayerAdapters(["region", "image"], width, bottleneck, True, Routing()).double()
    generator = _seed(4)
    with torch.no_grad():
        for value in layer.parameters():
            value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64))
    hidden = torch.randn(3, 5, width, generator=generator, dtype=torch.float64)
    tasks = torch.tensor([0, 1, 0]) if shape == "row" else torch.randint(0, 2, (3, 5), generator=generator)
    p = arrays(layer)
    expected = np.zeros((3, 5, width))
    for row in range(3):
        for place in range(5):
            task = ("region", "image")[int(tasks[row] if shape == "row" else tasks[row, place])]
            for name in ("region", "image"):
                h = hidden[row, place].numpy()
                at = f"adapters.{name}"
                inner = np.maximum(p[f"{at}.down.weight"] @ h + p[f"{at}.down.bias"], 0)
                up = p[f"{at}.up.weight"] @ inner + p[f"{at}.up.bias"]
                expected[row, place] += p[f"router.{name}_on_{task}"] * p[f"{at}.scale"] * up
    np.testing.assert_allclose(layer(hidden, tasks).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_query_branch_is_the_library_q_former_between_norm_and_projection(base) -> None:
    lion = randomize_parts(build_lion(base), 6)
    branch = lion.model.model.lion.qformer
    width = lion.model.config.vision_config.hidden_size
    image = torch.randn(2, 7, width, generator=_seed(2))
    ids = torch.tensor([[5, 6, 7], [8, 9, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    reference = InstructBlipQFormerModel(branch.qformer.config)
    reference.load_state_dict(branch.qformer.state_dict())
    normed = torch.nn.functional.layer_norm(image, (width,), branch.norm.weight, branch.norm.bias)
    output = reference.eval()(
        input_ids=ids,
        attention_mask=torch.cat([torch.ones(2, 3, dtype=torch.long), mask], dim=1),
        query_embeds=branch.query_tokens.expand(2, -1, -1),
        encoder_hidden_states=normed,
    ).last_hidden_state[:, :3]
    expected = output @ branch.projection.weight.T + branch.projection.bias
    found = branch(image, ids, mask)
    torch.testing.assert_close(found, expected)
    # The question is read, its padding is not.
    assert not torch.allclose(found, branch(image, ids.flip(0), mask.flip(0)))
    other = ids.clone()
    other[1, 2] = 11
    torch.testing.assert_close(branch(image, other, mask), found)


def test_paper_fractions_of_depth() -> None:
    assert default_layers(39) == (38, 28, 18)
    assert default_layers(24) == (23, 17, 11)
    assert check_layers((3, 1, 0), 4) == (3, 1, 0)
    assert check_layers((), 24) == (23, 17, 11)


def test_layers_and_adapters_that_cannot_be(base) -> None:
    with pytest.raises(UsageError, match="the blocks 0 to 3, not 4"):
        check_layers((4, 2, 1), 4)
    with pytest.raises(UsageError, match="three blocks, got 2"):
        check_layers((2, 1), 4)
    with pytest.raises(UsageError, match="did you mean 'region'"):
        check_adapters(("regoin",), router=False)
    with pytest.raises(UsageError, match="a router needs"):
        check_adapters(("image",), router=True)
    with pytest.raises(UsageError, match="only adapter"):
        check_adapters(("shared", "image"), router=False)


def _seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)
