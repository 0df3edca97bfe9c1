"""LION's ablations as recipes: each is the shared settings and the arm's own, and the example runs them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from priorkit.architectures.lion.settings import stage_parts
from priorkit.cli.options import read_settings
from priorkit.core.errors import UsageError
from priorkit.core.options import recipe
from priorkit.steps.tag_images import TagImagesSettings
from priorkit.steps.tune import TuneSettings

BOTH = ("qformer", "aggregator")
TWO = ("region", "image")
ARMS = {
    "baseline": (("qformer",), ("shared",), False, "off"),
    "aggregator": (BOTH, ("shared",), False, "off"),
    "two-adapters": (BOTH, TWO, False, "off"),
    "router": (BOTH, TWO, True, "off"),
    "no-aggregator": (("qformer",), TWO, True, "off"),
    "hard-tags": (BOTH, TWO, True, "hard"),
    "soft-tags": (BOTH, TWO, True, "soft"),
}


def tuning(name: str, **given: object) -> TuneSettings:
    found = read_settings(TuneSettings, {"recipe": name, "mllm": "m", "instructions": ["a=b"], **given})
    assert isinstance(found, TuneSettings)
    return found


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_is_the_shared_settings_and_a_few_more(name: str) -> None:
    arm, shared = tuning(f"lion/{name}"), tuning("lion")
    shape = stage_parts(arm)
    assert (shape.branches, shape.adapters, shape.router, arm.tags) == ARMS[name]
    assert shape.task_types == ("region-level", "image-level")
    allowed = {"stage", "branches", "adapters", "router", "tags", "recipe"}
    assert arm.model_dump(exclude=allowed) == shared.model_dump(exclude=allowed)
    assert arm.stage == "all"


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_at_the_published_sizes_has_the_same_parts(name: str) -> None:
    arm, small, shared = tuning(f"lion-paper/{name}"), tuning(f"lion/{name}"), tuning("lion-paper")
    own = ("stage", "branches", "adapters", "router", "tags")
    assert [getattr(arm, key) for key in own] == [getattr(small, key) for key in own]
    assert arm.model_dump(exclude={*own, "recipe"}) == shared.model_dump(exclude={*own, "recipe"})


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_is_tuned_by_its_name(name: str, artifacts, cli, tmp_path: Path) -> None:
    found = cli(
        "tune",
        artifacts.mllm,
        artifacts.instructions,
        "--recipe",
        f"lion/{name}",
        "--check",
        "--out",
        tmp_path / "no",
    )
    assert found.code == 0, found.err
    assert ("aggregator" in found.err) == ("aggregator" in ARMS[name][0])
    assert ("router" in found.err) == ARMS[name][2]
    assert ("soft prompt" in found.err) == (ARMS[name][3] == "soft")


def test_noise_and_the_stages(cli) -> None:
    noisy = read_settings(TagImagesSettings, {"recipe": "lion/noisy-tags", "images": "a"})
    assert isinstance(noisy, TagImagesSettings)
    assert (noisy.drop, noisy.corrupt) == (0.3, 0.3)
    with pytest.raises(UsageError, match="--stage is missing"):
        stage_parts(tuning("lion"))
    assert stage_parts(tuning("lion", stage="2")).branches == ("aggregator",)


def test_the_example_runs_them() -> None:
    script = (Path(__file__).parents[2] / "examples" / "lion.sh").read_text(encoding="utf-8")
    found = re.search(r"variants=\(([^)]*)\)", script)
    assert found
    shipped = {name.removeprefix("lion/") for name in recipe.shipped() if name.startswith("lion/")}
    assert shipped == {*ARMS, "noisy-tags"}
    published = {
        name.removeprefix("lion-paper/") for name in recipe.shipped() if name.startswith("lion-paper/")
    }
    assert published == set(ARMS)
    variants = {name.removesuffix("-noisy") for name in found[1].split()}
    assert variants == {*ARMS, "three-stages"} - {"no-aggregator"}
