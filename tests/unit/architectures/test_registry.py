"""An architecture is a folder and a line of the registry: a toy one trains, is recognized and evaluates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from priorkit.architectures.base import Architecture
from priorkit.architectures.registry import ARCHITECTURES, architecture, option_groups, tune_options

SETTINGS = """
from typing import ClassVar

from priorkit.architectures.base import TuneOptions
from priorkit.core.options.settings import Settings, option


class ToySettings(Settings):
    group: ClassVar[str] = "toy"

    toy_mark: str = option("plain", "Text that is stored with the model.")


OPTIONS = TuneOptions(groups=(ToySettings,), unsupported={"lora_rank": "the toy has no LoRA"})
"""

MODULE = '''
import json
from dataclasses import replace

from priorkit.architectures.base import Architecture
from priorkit.inference.model_info import ModelInfo
from priorkit.models.folder import read_config, tensor_files
from priorkit.models.multimodal.llava import LlavaMultimodal, load_processor


class Toy(Architecture):
    """A LLaVA model under a type of its own."""

    def plan(self, settings, inputs):
        from priorkit.architectures.llava.plan import plan

        return plan(settings, inputs)

    def prepare(self, settings, work, runtime):
        from priorkit.architectures.llava.training import prepare

        prepared = prepare(settings, work, runtime)

        def save(folder):
            prepared.save(folder)
            config = json.loads((folder / "config.json").read_text())
            config |= {"model_type": "toy", "mark": settings.toy_mark}
            (folder / "config.json").write_text(json.dumps(config))

        return replace(prepared, save=save)

    def recognizes(self, folder):
        return (folder / "config.json").is_file() and read_config(folder)["model_type"] == "toy"

    def check(self, folder):
        tensor_files(folder)
        return ModelInfo("mllm", folder, format=self)

    def load_for_inference(self, info):
        from transformers import LlavaConfig, LlavaForConditionalGeneration

        config = LlavaConfig.from_dict(read_config(info.folder) | {"model_type": "llava"})
        model = LlavaForConditionalGeneration.from_pretrained(info.folder, config=config)
        return LlavaMultimodal(model, load_processor(info.folder))


ARCHITECTURE = Toy()
'''

RUN = """
from priorkit.architectures import registry

registry.ARCHITECTURES["toy"] = registry.Entry("toy_architecture", "as LLaVA, to test the registry")

from priorkit.cli.main import main

main()
"""


@pytest.fixture
def toy(tmp_path: Path) -> Any:
    """Runs ``priorkit`` in a process in which the toy is registered."""
    package = tmp_path / "toy_architecture"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "settings.py").write_text(SETTINGS)
    (package / "architecture.py").write_text(MODULE)
    (tmp_path / "run.py").write_text(RUN)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tmp_path / "run.py"), *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


def test_a_toy_architecture_trains_and_evaluates(artifacts, toy, tmp_path: Path) -> None:
    common = (
        "tune", artifacts.mllm, artifacts.instructions, "--steps", 1, "--batch-size", 2, "--device", "cpu",
        "--precision", "fp32",
    )  # fmt: skip
    out = tmp_path / "tuned"
    made = toy(*common, "--architecture", "toy", "--toy-mark", "here", "--out", out)
    assert made.returncode == 0, made.stderr
    assert json.loads((out / "config.json").read_text())["mark"] == "here"
    assert "toy-mark" in (out / "recipe.toml").read_text().replace("_", "-")
    benchmark = artifacts.world / "benchmarks" / "naming.parquet"
    scored = toy("evaluate", out, benchmark, "--limit", 4, "--device", "cpu", "--out", tmp_path / "scores")
    assert scored.returncode == 0, scored.stderr
    assert len((tmp_path / "scores" / "samples.jsonl").read_text().splitlines()) == 4
    foreign = toy(*common, "--toy-mark", "here", "--out", tmp_path / "no")
    assert foreign.returncode == 2
    assert "--toy-mark: only --architecture toy takes this" in foreign.stderr
    refused = toy(*common, "--architecture", "toy", "--lora-rank", 2, "--stage", 1, "--out", tmp_path / "no")
    assert refused.returncode == 2
    assert "--lora-rank: the toy has no LoRA" in refused.stderr
    assert "--stage: only --architecture lion takes this" in refused.stderr
    assert "toy, as LLaVA, to test the registry" in " ".join(toy("tune", "--help-all").stdout.split())


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_architecture_fulfils_the_protocol(name: str, tmp_path: Path) -> None:
    assert isinstance(architecture(name), Architecture)
    assert not architecture(name).recognizes(tmp_path)
    assert set(tune_options()[name].groups) <= set(option_groups())
