"""A merge method is added in one file: its function, its parameter and their registration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from priorkit.merging.methods.registry import METHODS, PARAMETERS, MergeMethod, Parameter, help_of, register
from priorkit.merging.settings import MergeAdaptersSettings

TOY = '''
from priorkit.merging.methods.registry import MergeMethod, Parameter, register


def root_mean(deltas, weights, density, *, power):
    """The mean of the deltas' signed powers, to the inverse power."""
    terms = [weight * abs(delta) ** power * (2 * (delta > 0) - 1) for weight, delta in zip(weights, deltas)]
    total = sum(terms) / sum(weights)
    return abs(total) ** (1 / power) * (2 * (total > 0) - 1)


register(
    MergeMethod("root_mean", {"density": 1.0, "power": 3.0}, select=root_mean),
    Parameter("power", float, "Power of the mean.", {"gt": 0}),
)
'''

RUN = """
import sys
import toy
from priorkit.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def model(folder: Path, weight: np.ndarray) -> Path:
    folder.mkdir()
    save_file({"model.layers.0.mlp.up_proj.weight": weight}, folder / "model.safetensors")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_new_method_needs_one_file(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    draw = np.random.default_rng(0)
    base, first, second = (draw.standard_normal((6, 5)).astype(np.float32) for _ in range(3))
    folders = [
        model(tmp_path / name, weight) for name, weight in (("base", base), ("a", first), ("b", second))
    ]

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", RUN, "merge-adapters", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path,
            env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[4]}", "PATH": "", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip

    inputs = (*folders[1:], "--base", folders[0], "--method", "root_mean")
    done = run(*inputs, "--power", 2, "--weight", 1, "--weight", 3, "--device", "cpu", "--out", "merged")
    assert done.returncode == 0, done.stderr
    merged = load_file(tmp_path / "merged" / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    deltas = [(x - base).astype(np.float64) for x in (first, second)]
    total = sum(w * np.sign(d) * d**2 for w, d in zip((1, 3), deltas, strict=True)) / 4
    np.testing.assert_allclose(merged, base + np.sign(total) * np.sqrt(np.abs(total)), atol=1e-5)
    assert "Power of the mean (root_mean; default: 3)." in " ".join(run("--help-all").stdout.split())
    refused = run(*folders[1:], "--base", folders[0], "--method", "ties", "--power", 2, "--out", "x")
    assert refused.returncode == 2
    assert "ties has no such parameter" in refused.stderr
    assert run(*inputs, "--power", 0, "--out", "x").returncode == 2


def test_defaults_are_written_in_the_help() -> None:
    assert (
        help_of(PARAMETERS["normalize"]) == "Divide by the total weight (default with linear, ties, della)."
    )
    assert help_of(PARAMETERS["gamma"]).endswith("(breadcrumbs*; default: 0.01).")
    assert help_of(PARAMETERS["t"]).endswith("(slerp).")


def test_every_parameter_of_a_method_is_an_option() -> None:
    for method in METHODS.values():
        assert set(method.parameters) <= {*PARAMETERS, "density"}
        assert set(method.parameters) <= set(MergeAdaptersSettings.model_fields)


def test_names_are_registered_once_and_parameters_declared() -> None:
    with pytest.raises(ValueError, match="registered already"):
        register(MergeMethod("ties", {}))
    with pytest.raises(ValueError, match="declared already"):
        register(MergeMethod("toy", {}), Parameter("gamma", float, "Again."))
    with pytest.raises(ValueError, match="without a declaration: strength"):
        register(MergeMethod("toy", {"strength": 1.0}))
    assert "toy" not in METHODS
