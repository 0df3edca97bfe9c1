"""Print the length of tuning at which stage II costs as much as stages I and II together.

    python examples/tuning_length.py TUNED STAGE_ONE ALIGNED

TUNED is the model tuned after stage I, STAGE_ONE the remediated encoder, ALIGNED the model with the projector
trained for it. Their manifests hold the training time of each on this machine; the length of TUNED's training,
in its unit, is scaled by (all three times) / (TUNED's time): ``--steps 3120`` or ``--epochs 1.38``.
"""

import json
import sys
from pathlib import Path


def length(tuned: Path, *before: Path) -> str:
    """The option for ``priorkit tune``, such as ``--steps 3120``."""
    manifests = [json.loads((path / "priorkit.json").read_text()) for path in (tuned, *before)]
    tuning, *others = (manifest["cost"]["training_seconds"] for manifest in manifests)
    factor = 1 + sum(others) / tuning
    settings = manifests[0]["settings"]
    for unit in ("steps", "tokens"):
        if settings.get(unit):
            return f"--{unit} {round(factor * settings[unit])}"
    return f"--epochs {factor * (settings.get('epochs') or 1):.4g}"


if __name__ == "__main__":
    sys.stdout.write(length(*map(Path, sys.argv[1:])) + "\n")
