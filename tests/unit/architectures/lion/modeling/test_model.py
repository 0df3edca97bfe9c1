"""The LION model: exact at its start, routed by row and by token, cached, saved and read strictly."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from priorkit.architectures.lion.loading import compose_adapter, load_lion
from priorkit.architectures.lion.modeling.configuration import LionConfig
from priorkit.architectures.lion.modeling.model import LionForConditionalGeneration
from priorkit.core.errors import InputError
from tests.support.lion_models import build_lion, picture, randomize_parts

PROMPTS = ["USER: <image>\nWhat is shown?\nASSISTANT:", "USER: <image>\nFind the red circle.\nASSISTANT:"]
TYPES = ["image-level", "region-level"]


def inputs(lion, prompts=PROMPTS, types=TYPES, **options):
    return lion.processor(
        images=[picture(number) for number, _ in enumerate(prompts)],
        text=prompts,
        task_types=types,
        questions=["What is shown?", "Find the red circle."][: len(prompts)],
        **options,
    )


@torch.no_grad()
def logits(lion, batch) -> torch.Tensor:
    return lion.model(**batch).logits


def test_fresh_adapters_leave_text_as_it_is(base) -> None:
    lion = build_lion(base)
    ids = torch.randint(5, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = base.model(input_ids=ids).logits
        found = lion.model(input_ids=ids, task_types=torch.tensor([0, 1])).logits
    assert torch.equal(found[..., : expected.shape[-1]], expected)


def test_fresh_adapters_on_llavas_projector_give_llavas_logits(base) -> None:
    lion = build_lion(base, branches=["projector"])
    batch = inputs(lion)
    with torch.no_grad():
        expected = base.model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            pixel_values=batch["pixel_values"],
        ).logits
    found = logits(lion, batch)
    assert torch.equal(found[..., : expected.shape[-1]], expected)


def test_hard_routing_is_the_single_adapter(base) -> None:
    both = randomize_parts(build_lion(base, router=False, branches=["projector"]))
    for name, task in (("region", 0), ("image", 1)):
        single = build_lion(base, router=False, branches=["projector"], adapters=[name])
        expected = both.own_tensors()
        with torch.no_grad():
            for key, value in single.own_tensors().items():
                value.copy_(expected[key])
        batch = inputs(both)
        batch["task_types"] = torch.tensor([task, task])
        assert torch.equal(logits(both, batch), logits(single, batch))
    routed = build_lion(base, branches=["projector"])
    with torch.no_grad():
        for key, value in routed.own_tensors().items():
            if ".router." not in key:
                value.copy_(expected[key])
    batch["task_types"] = torch.tensor([0, 1])
    assert torch.equal(logits(routed, batch), logits(both, batch))


def test_rows_of_a_batch_are_routed_one_by_one(base) -> None:
    lion = randomize_parts(build_lion(base))
    together = logits(lion, inputs(lion))
    for row in range(2):
        single = lion.processor(
            images=[picture(row)],
            text=[PROMPTS[row]],
            task_types=[TYPES[row]],
            questions=[["What is shown?", "Find the red circle."][row]],
        )
        found = logits(lion, single)
        torch.testing.assert_close(together[row, -found.shape[1] :], found[0], rtol=1e-4, atol=1e-4)
    swapped = logits(lion, inputs(lion, types=TYPES[::-1]))
    assert not torch.allclose(swapped[:, -1], together[:, -1], atol=1e-3)


def test_task_types_of_tokens_route_samples_that_share_a_row(base) -> None:
    lion = randomize_parts(build_lion(base))
    ids = torch.randint(5, 300, (1, 8), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        first = lion.model(input_ids=ids[:, :4], task_types=torch.tensor([0])).logits
        mixed = lion.model(input_ids=ids, task_types=torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])).logits
        same = lion.model(input_ids=ids, task_types=torch.tensor([0])).logits
    torch.testing.assert_close(mixed[:, :4], first, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(mixed[:, 4:], same[:, 4:], atol=1e-3)


@pytest.mark.parametrize("beams", [1, 2])
def test_generation_with_a_cache_is_generation_without(base, beams: int) -> None:
    lion = randomize_parts(build_lion(base))
    batch = inputs(lion)
    written = [
        lion.model.generate(
            **batch, max_new_tokens=6, do_sample=False, num_beams=beams, use_cache=cached,
            repetition_penalty=1.1,
        )
        for cached in (True, False)
    ]  # fmt: skip
    assert torch.equal(written[0], written[1])
    other = inputs(lion, types=TYPES[::-1])
    changed = lion.model.generate(**other, max_new_tokens=6, do_sample=False, num_beams=beams)
    assert not torch.equal(changed[:, -6:], written[0][:, -6:])


def test_the_soft_token_reads_the_learned_vector_and_is_never_generated(base) -> None:
    lion = randomize_parts(build_lion(base))
    tagged = inputs(lion, tags=[["red", "circle"], []])
    soft = lion.model.config.soft_token_id
    assert (tagged["input_ids"] == soft).sum(1).tolist() == [1, 1]
    places = tagged["input_ids"] == soft
    embedded = lion.model.model.embed(tagged["input_ids"])
    assert torch.equal(embedded[places], lion.model.model.lion.soft_prompt.expand(2, -1))
    before = logits(lion, tagged)
    assert int((before.argmax(-1) == soft).sum()) == 0
    assert before.shape[-1] == soft + 1
    with torch.no_grad():
        lion.model.model.lion.soft_prompt.add_(1)
    assert not torch.allclose(before, logits(lion, tagged), atol=1e-3)
    # Where the table has spare rows, the token's logit is masked.
    closed = lion.model.never_soft(torch.zeros(1, soft + 5))
    assert closed.argmin(-1).item() == soft


def test_a_deep_copy_has_separate_adapters(base) -> None:
    lion = randomize_parts(build_lion(base))
    batch = inputs(lion)
    before = logits(lion, batch)
    twin = copy.deepcopy(lion.model)
    with torch.no_grad():
        for layer in lion.model.model.lion.layers:
            for value in layer.parameters():
                value.zero_()
        assert torch.equal(twin(**batch).logits, before)
    assert not torch.allclose(logits(lion, batch), before, atol=1e-3)


def test_normed_adapters_read_what_the_mlp_reads(base) -> None:
    residual, normed = (
        randomize_parts(build_lion(base, adapter_input=way, branches=["projector"]))
        for way in ("residual", "normed")
    )
    batch = inputs(residual)
    assert not torch.allclose(logits(residual, batch), logits(normed, batch), atol=1e-3)


def test_save_and_load_through_the_auto_classes(base, tmp_path: Path) -> None:
    lion = randomize_parts(build_lion(base))
    lion.save(tmp_path)
    batch = inputs(lion)
    expected = logits(lion, batch)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), LionConfig)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert isinstance(model, LionForConditionalGeneration)
    again = AutoProcessor.from_pretrained(tmp_path)
    rebuilt = inputs(type(lion)(model, again))
    assert torch.equal(rebuilt["input_ids"], batch["input_ids"])
    with torch.no_grad():
        torch.testing.assert_close(model(**rebuilt).logits, expected)
    torch.testing.assert_close(logits(_evaluated(load_lion(tmp_path)), batch), expected)


def test_an_adapter_on_its_base_equals_the_full_model(base, tmp_path: Path) -> None:
    lion = randomize_parts(build_lion(base))
    lion.save_adapter(tmp_path, "base", "3")
    again = _evaluated(compose_adapter(base, tmp_path))
    batch = inputs(lion)
    assert torch.equal(logits(again, batch), logits(lion, batch))
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (written["peft_type"], written["stage"]) == ("LION", "3")


def test_a_soft_prompt_that_an_adapter_lacks_is_drawn_by_the_seed(base, tmp_path: Path) -> None:
    randomize_parts(build_lion(base, tags="off")).save_adapter(tmp_path, "base", "3")
    first, again, other = (compose_adapter(base, tmp_path, "soft", seed).own_tensors() for seed in (1, 1, 2))
    name = "model.lion.soft_prompt"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    assert all(torch.equal(value, other[key]) for key, value in first.items() if key != name)


def test_no_key_stays_silent(base, tmp_path: Path) -> None:
    lion = build_lion(base)
    lion.save_adapter(tmp_path, "base", "3")
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    wrong = dict(tensors)
    wrong.pop("model.lion.soft_prompt")
    wrong["model.lion.other"] = torch.zeros(1)
    save_file(wrong, file)
    with pytest.raises(InputError, match=r"1 missing tensors, such as model.lion.soft_prompt; 1 unexpected"):
        compose_adapter(base, tmp_path)
    whole = tmp_path / "whole"
    lion.save(whole)
    state = load_file(whole / "model.safetensors")
    state.pop(next(name for name in state if "aggregator.up.weight" in name))
    save_file(state, whole / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="missing tensors"):
        LionForConditionalGeneration.from_pretrained(whole)
    with pytest.raises(InputError, match="missing"):
        load_lion(whole)


def test_what_the_model_refuses(base) -> None:
    lion = build_lion(base)
    ids = torch.tensor([[5, 6]])
    with pytest.raises(ValueError, match="pass task_types"):
        lion.model(input_ids=ids)
    with pytest.raises(ValueError, match=r"must be \[1\] or \[1, 2\]"):
        lion.model(input_ids=ids, task_types=torch.tensor([0, 1]))
    plain = build_lion(base, tags="off")
    with pytest.raises(ValueError, match="no soft prompt"):
        plain.model(input_ids=torch.tensor([[lion.model.config.soft_token_id]]), task_types=torch.tensor([0]))


def _evaluated(lion):
    lion.model.eval()
    return lion
