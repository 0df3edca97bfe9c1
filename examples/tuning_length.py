"""Print the length of tuning at which stage II costs as much as stages I and II together.

    python examples/tuning_length.py TUNED STAGE_ONE ALIGNED [--by time|flops]

TUNED is the model tuned after stage I, STAGE_ONE the remediated encoder, ALIGNED the model with the projector
trained for it. The length of TUNED's training, in its unit, is scaled by (all three costs) / (TUNED's cost):
``--steps 3120`` or ``--epochs 1.38``. Costs are the training times on this machine, or FLOPs, which are the same on
every machine: those of tuning and alignment as their manifests have them, those of stage I counted from the encoder's
shape, 6 N per patch token of the student and 2 N of each encoder that is only read.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def length(tuned: Path, *before: Path, by: str = "time") -> str:
    """The option for ``priorkit tune``, such as ``--steps 3120``."""
    manifests = [json.loads((path / "priorkit.json").read_text()) for path in (tuned, *before)]
    if by == "time":
        tuning, *others = (manifest["cost"]["training_seconds"] for manifest in manifests)
    else:
        paths = (tuned, *before)
        tuning, *others = (flops(path, manifest) for path, manifest in zip(paths, manifests, strict=True))
    factor = 1 + sum(others) / tuning
    settings = manifests[0]["settings"]
    for unit in ("steps", "tokens"):
        if settings.get(unit):
            return f"--{unit} {round(factor * settings[unit])}"
    return f"--epochs {factor * (settings.get('epochs') or 1):.4g}"


def flops(path: Path, manifest: dict[str, Any]) -> float:
    """FLOPs of a training stage that ran in one process."""
    metrics, cost, settings = manifest["metrics"], manifest["cost"], manifest["settings"]
    if manifest["step"] != "distill-encoder":
        per_token = cost["model_flops_per_second"] / cost["tokens_per_second"]
        return per_token * metrics["tokens"]
    images = metrics["steps"] * settings["batch_size"]
    replayed = (
        images * settings["replay_per_image"] if settings["replay"] and settings["replay_weight"] else 0
    )
    kept = any(settings[name] for name in ("keep_weight", "keep_class_weight", "keep_pooled_weight"))
    # A teacher's features are computed once per view and cached: little next to the student's epochs.
    forward = forward_flops(path)
    return (images + replayed) * (3 + kept) * forward


def forward_flops(encoder: Path) -> float:
    """FLOPs of an image's forward pass through an encoder's image tower: 2 N per token."""
    from priorkit.models.folder import parameter_count
    from priorkit.models.vision.image_tower import patch_side
    from priorkit.models.vision.loading import load_config
    from priorkit.models.vision.towers import tower_config

    tower = tower_config(load_config(encoder))
    tokens = (int(tower.image_size) // patch_side(tower)) ** 2 + 1
    return 2.0 * parameter_count(encoder, exclude="text") * tokens


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tuned", type=Path)
    parser.add_argument("stage_one", type=Path)
    parser.add_argument("aligned", type=Path)
    parser.add_argument("--by", choices=("time", "flops"), default="time")
    given = parser.parse_args()
    sys.stdout.write(length(given.tuned, given.stage_one, given.aligned, by=given.by) + "\n")
