"""A model of open_clip converted by priorkit: the features and the ranks that open_clip itself gives.

    python benchmarks/interop/converted_encoder.py --python ENV/bin/python --images world/entity_images/test \\
        --out /tmp/interop

ENV is an environment with open_clip_torch. There a small CLIP with random weights is made and saved in the layout of
the hub, and encodes the images and their names by open_clip's own preprocessing and tokenizer. Here ``convert`` and
``rank-e`` do the same. Prints one JSON object, and exits with 1 where features or ranks differ.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 128, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
TEMPLATE = "a photo of a {}"
TOLERANCE = 1e-4
"""Of normalized features."""


def main() -> None:
    """Encode with both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", help="Python of the environment with open_clip")
    parser.add_argument(
        "--images", type=Path, required=True, help="a folder per entity, with metadata.jsonl or not"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--reference", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.reference:
        reference(given.images, given.out)
    elif given.python is None:
        parser.error("--python is missing")
    else:
        found = compared(given)
        print(json.dumps(found, indent=2))
        sys.exit(0 if found["equal"] else 1)


def entity_files(images: Path) -> list[tuple[str, Path]]:
    """Name and file of every image, in order."""
    return [
        (folder.name.replace("_", " "), file)
        for folder in sorted(images.iterdir())
        if folder.is_dir()
        for file in sorted(folder.iterdir())
    ]


def reference(images: Path, out: Path) -> None:
    """Make the model and encode, by open_clip."""
    import open_clip  # pyright: ignore[reportMissingImports]
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    torch.manual_seed(0)
    mean, deviation = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    model: Any = open_clip.model.CLIP(**CONFIG).eval()
    folder = out / "open_clip"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    settings = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": mean, "std": deviation}}
    (folder / "open_clip_config.json").write_text(json.dumps(settings), encoding="utf-8")
    shutil.copy(Path(str(open_clip.__file__)).parent / "bpe_simple_vocab_16e6.txt.gz", folder)
    prepare = open_clip.image_transform(64, is_train=False, mean=mean, std=deviation)
    files = entity_files(images)
    names = sorted({name for name, _ in files})
    tokens = open_clip.get_tokenizer("ViT-B-32")([TEMPLATE.format(name) for name in names])
    with torch.no_grad():
        pixels = torch.stack([prepare(Image.open(file).convert("RGB")) for _, file in files])
        image = model.encode_image(pixels, normalize=True)
        text = model.encode_text(tokens, normalize=True)
    save_file({"image": image.contiguous(), "text": text.contiguous()}, out / "reference.safetensors")


def compared(given: argparse.Namespace) -> dict[str, Any]:
    """Features and ranks of the converted model against those of open_clip."""
    import numpy as np
    import torch
    from safetensors.torch import load_file

    import priorkit as pk

    given.out.mkdir(parents=True, exist_ok=True)
    run(given.python, __file__, "--reference", "--images", given.images, "--out", given.out)
    run(
        sys.executable, "-m", "priorkit", "convert", given.out / "open_clip", "--tokenizer",
        given.out / "open_clip" / "bpe_simple_vocab_16e6.txt.gz", "--out", given.out / "clip", "--force",
    )  # fmt: skip
    run(
        sys.executable, "-m", "priorkit", "rank-e", given.out / "clip", given.images, "--template", TEMPLATE,
        "--device", "cpu", "--out", given.out / "ranks", "--force",
    )  # fmt: skip
    theirs = load_file(given.out / "reference.safetensors")
    files = entity_files(given.images)
    names = sorted({name for name, _ in files})
    encoder = pk.load_encoder(given.out / "clip", device="cpu", text=True)
    image = encoder.embed_images([str(file) for _, file in files])
    text = encoder.embed_texts([TEMPLATE.format(name) for name in names])
    own = torch.tensor([names.index(name) for name, _ in files])
    similarity = theirs["image"] @ theirs["text"].T
    # As in Rank_e: how many names are more similar than the true one, and the true one itself.
    expected = (similarity > similarity.gather(1, own[:, None])).sum(1) + 1
    ranks = torch.as_tensor(np.asarray(load_file(given.out / "ranks" / "scores.safetensors")["image_rank"]))
    differences = {
        "image": float((image - theirs["image"]).abs().max()),
        "text": float((text - theirs["text"]).abs().max()),
    }
    same = int((ranks == expected).sum())
    package = "from importlib.metadata import version; print(version('open_clip_torch'))"
    return {
        "open_clip_torch": run(given.python, "-c", package).strip(),
        "transformers": version("transformers"),
        "images": len(files),
        "names": len(names),
        "largest_difference_of_features": differences,
        "images_with_the_same_rank": same,
        "equal": max(differences.values()) < TOLERANCE and same == len(files),
    }


def run(*command: object) -> str:
    """Standard output of a command."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
