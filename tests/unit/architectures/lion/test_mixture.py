"""The mixture of two stages: joined exactly, hard gates, everything that does not fit refused at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from priorkit.architectures.lion.loading import compose_adapter
from priorkit.architectures.lion.mixture import plan_mixture, write_mixture
from priorkit.core.errors import InputError
from tests.support.lion_models import build_lion, randomize_parts

STAGE1 = {"branches": ["qformer"], "adapters": ["image"], "router": False, "tags": "off"}
STAGE2 = {"branches": ["aggregator"], "adapters": ["region"], "router": False, "tags": "off"}
LABELS = ("one", "two")


@pytest.fixture
def stages(base, tmp_path: Path) -> tuple[Path, Path]:
    """Artifacts of stages 1 and 2."""
    folders = tmp_path / "one", tmp_path / "two"
    for number, (folder, shape) in enumerate(zip(folders, (STAGE1, STAGE2), strict=True)):
        folder.mkdir()
        randomize_parts(build_lion(base, **shape), number).save_adapter(folder, "the-base", str(number + 1))
    return folders


def test_the_start_of_stage_three_is_both_stages_with_hard_gates(base, stages, tmp_path: Path) -> None:
    out = tmp_path / "start"
    out.mkdir()
    report = write_mixture(plan_mixture(LABELS, stages), out)
    joined = load_file(out / "adapter_model.safetensors")
    assert report["tensors"] == len(joined)
    for folder in stages:
        for name, value in load_file(folder / "adapter_model.safetensors").items():
            assert torch.equal(joined[name], value)
    lion = compose_adapter(base, out)
    lion.model.eval()
    assert lion.model.config.branches == ["qformer", "aggregator"]
    gates = lion.model.model.lion.layers[0].router
    assert bool((gates.gates("region") == torch.tensor([[1.0], [0.0]])).all())
    assert bool((gates.gates("image") == torch.tensor([[0.0], [1.0]])).all())
    # An image-level text is answered as stage 1 answers it: only its adapter is active.
    one = compose_adapter(base, stages[0])
    one.model.eval()
    ids = torch.randint(5, 300, (1, 6), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = lion.model(input_ids=ids, task_types=torch.tensor([1])).logits
        assert torch.equal(found, one.model(input_ids=ids, task_types=torch.tensor([1])).logits)


def test_the_order_of_the_stages_does_not_matter(stages, tmp_path: Path) -> None:
    files = []
    for number, folders in enumerate((stages, stages[::-1])):
        out = tmp_path / str(number)
        out.mkdir()
        write_mixture(plan_mixture(LABELS, folders), out)
        files.append(load_file(out / "adapter_model.safetensors"))
        config = json.loads((out / "adapter_config.json").read_text())["lion"]
        assert config["aggregator_layers"] == [1, 1, 0]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(value, files[1][name]) for name, value in files[0].items())


def _rewrite(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_is_no_mixture(base, stages, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one image and one region adapter make a mixture, got image, image"):
        plan_mixture(LABELS, (stages[0], stages[0]))
    other = tmp_path / "other"
    shutil.copytree(stages[1], other)
    _rewrite(other, base_model_name_or_path="another-base")
    with pytest.raises(InputError, match="tuned on one base"):
        plan_mixture(LABELS, (stages[0], other))
    _rewrite(other, base={"text": ["llama", 8, 2, 100], "vision": []})
    with pytest.raises(InputError, match="its base is"):
        plan_mixture(LABELS, (stages[0], other))
    clash = tmp_path / "clash"
    shutil.copytree(stages[1], clash)
    file = clash / "adapter_model.safetensors"
    save_file({**load_file(file), "model.lion.soft_prompt": torch.zeros(4)}, file)
    with_soft = tmp_path / "with-soft"
    shutil.copytree(stages[0], with_soft)
    own = with_soft / "adapter_model.safetensors"
    save_file({**load_file(own), "model.lion.soft_prompt": torch.zeros(4)}, own)
    with pytest.raises(
        InputError, match=r"both have 1 tensors, such as model.lion.soft_prompt \(a soft prompt"
    ):
        plan_mixture(LABELS, (with_soft, clash))
    (clash / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(InputError, match="no LION adapter"):
        plan_mixture(LABELS, (stages[0], clash))


def test_mixture_on_the_command_line(artifacts, cli, stages, tmp_path: Path) -> None:
    one, two = stages
    refused = cli("merge-adapters", one, two, "--method", "mixture", "--rank", 4, "--out", tmp_path / "no")
    assert refused.code == 2
    assert "--rank: no effect with mixture" in refused.err
    single = cli("merge-adapters", one, "--method", "mixture", "--out", tmp_path / "no")
    assert single.code == 2
    assert "mixture joins two adapters, got 1" in single.err
    check = cli("merge-adapters", one, two, "--method", "mixture", "--check", "--out", tmp_path / "no")
    assert check.code == 0, check.err
    lora = cli(
        "merge-adapters", artifacts.mllm, artifacts.mllm, "--method", "mixture", "--out", tmp_path / "no"
    )
    assert lora.code == 3
    assert "no LION adapter" in lora.err
