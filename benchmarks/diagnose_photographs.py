"""Time and memory of ``diagnose`` on a folder of photographs, by a model of transformers that priorkit did not make.

    python benchmarks/diagnose_photographs.py OUT [--family qwen2_vl] [--entities 10] [--images 8 32]

Photographs are JPEG crops of 320 x 240 pixels of the two that scikit-learn ships, a folder per place in the picture; the
model is a tiny random one of its family, so that its verdicts mean nothing. Each number of images per entity runs in a
process of its own and prints a line of JSON: images, seconds and peak memory in bytes, as the artifact states them.
"""

from __future__ import annotations

# sklearn has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from priorkit.core.artifact import open_artifact
from tests.support.image_text_models import save_image_text_model

CROP = (320, 240)
JITTER = 40


def write_photographs(folder: Path, entities: int, images: int) -> None:
    """Crops around one place per entity, each moved a little."""
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = random.Random(0)
    for entity in range(entities):
        photograph = photographs[entity % len(photographs)]
        left, top = (rng.randrange(0, photograph.size[axis] - CROP[axis] - JITTER) for axis in (0, 1))
        place = folder / f"place {entity}"
        place.mkdir(parents=True)
        for image in range(images):
            x, y = left + rng.randrange(JITTER), top + rng.randrange(JITTER)
            photograph.crop((x, y, x + CROP[0], y + CROP[1])).save(place / f"{image:04d}.jpg")


def main(given: list[str]) -> int:
    """Measure each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--family", default="qwen2_vl")
    parser.add_argument("--entities", type=int, default=10)
    parser.add_argument("--images", type=int, nargs="+", default=[8, 32])
    arguments = parser.parse_args(given)
    arguments.out.mkdir(parents=True)
    model = arguments.out / "model"
    save_image_text_model(arguments.family, model)
    for images in arguments.images:
        folder, out = arguments.out / f"photographs-{images}", arguments.out / f"diagnosis-{images}"
        write_photographs(folder, arguments.entities, images)
        command = ["diagnose", model, folder, "--distractors", arguments.entities - 1, "--out", out]
        subprocess.run([sys.executable, "-m", "priorkit", *map(str, command)], check=True)
        cost = open_artifact(out).manifest.cost
        line = {"family": arguments.family, "images": images * arguments.entities}
        line |= {name: cost[name] for name in ("seconds", "peak_memory_bytes")}
        print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
