"""Print how long to tune so that stage II alone costs what stages I and II cost together.

    python examples/tuning_length.py TUNED STAGE_ONE ALIGNED

TUNED is the model tuned after stage I, STAGE_ONE the remediated encoder, ALIGNED the model whose projector
was learnt anew for it. Their manifests say how long each trained on this machine; the length of TUNED's
training, in its own unit, is stretched by the share of the other two: ``--steps 3120`` or ``--epochs 1.38``.
"""

import json
import sys
from pathlib import Path


def length(tuned: Path, *before: Path) -> str:
    """The option for ``priorkit tune``."""
    manifests = [json.loads((path / "priorkit.json").read_text()) for path in (tuned, *before)]
    own, *others = (manifest["cost"]["training_seconds"] for manifest in manifests)
    factor = 1 + sum(others) / own
    settings = manifests[0]["settings"]
    for unit in ("steps", "tokens"):
        if settings.get(unit):
            return f"--{unit} {round(factor * settings[unit])}"
    return f"--epochs {factor * (settings.get('epochs') or 1):.4g}"


if __name__ == "__main__":
    sys.stdout.write(length(*map(Path, sys.argv[1:])) + "\n")
