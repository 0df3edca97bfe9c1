"""What vLLM's loader makes of an artifact, as far as no GPU is needed.

    ENV/bin/python benchmarks/interop/vllm_loader.py tuned

Runs in an environment with vLLM (0.33 was read). Of an llm or mllm artifact or of any model of transformers: vLLM's
configuration takes it, its registry has a class of its own for it, that class's mapping of names knows every tensor,
and its processor expands prompts to the token ids and pixels that the model's own processor gives. The engine itself
is not started. Prints one JSON object, and exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

IMAGES = 8
"""Most images of a prompt, as ``--backend vllm`` starts the engine."""


def main() -> None:
    """Check one model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    given = parser.parse_args()
    from vllm.config import ModelConfig  # pyright: ignore[reportMissingImports]
    from vllm.model_executor.models.registry import ModelRegistry  # pyright: ignore[reportMissingImports]

    config: Any = ModelConfig(
        model=str(given.model), dtype="float32", seed=0, trust_remote_code=False, limit_mm_per_prompt={"image": IMAGES}
    )  # fmt: skip
    model_class, architecture = ModelRegistry.resolve_model_cls(config.architectures, config)
    unknown = unplaced(given.model, model_class)
    found: dict[str, Any] = {
        "vllm": version("vllm"),
        "transformers": version("transformers"),
        "class": f"{model_class.__module__}.{model_class.__name__}",
        "max_model_len": config.max_model_len,
        "tensors_without_place": unknown,
    }
    equal = architecture in config.architectures and not unknown and ".transformers" not in found["class"]
    if config.is_multimodal_model:
        found["prompts"] = prompts(given.model, config)
        equal &= found["prompts"]["equal"]
    print(json.dumps({**found, "equal": equal}, indent=2))
    sys.exit(0 if equal else 1)


def unplaced(folder: Path, model_class: Any) -> list[str]:
    """Tensors that the class's mapping of names renames to nothing or leaves without a known beginning."""
    from safetensors import safe_open

    names: list[str] = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stream:
            names += list(stream.keys())
    mapper = getattr(model_class, "hf_to_vllm_mapper", None)
    renamed = mapper.apply_list(names) if mapper is not None else names
    parts = {str(new).rstrip(".") for new in getattr(mapper, "orig_to_new_prefix", {}).values() if new}
    parts = {part.split(".")[0] for part in parts} or {"model", "lm_head"}
    lost = [] if len(renamed) == len(names) else [f"{len(names) - len(renamed)} of {len(names)} dropped"]
    return lost + [name for name in renamed if name.split(".")[0] not in parts]


def prompts(folder: Path, config: Any) -> dict[str, Any]:
    """Prompts with one image and with two, in the form that ``--backend vllm`` gives them: ids and pixels."""
    import torch
    from PIL import Image
    from transformers import AutoProcessor
    from vllm.multimodal import MULTIMODAL_REGISTRY  # pyright: ignore[reportMissingImports]

    own: Any = AutoProcessor.from_pretrained(folder)
    theirs: Any = MULTIMODAL_REGISTRY.create_processor(config)
    pictures = [
        Image.linear_gradient("L").convert("RGB").resize((60, 90)),
        Image.radial_gradient("L").convert("RGB"),
    ]
    ids, pixels = [], []
    for count in (1, 2):
        parts = [{"type": "image"}] * count + [{"type": "text", "text": "What is shown?"}]
        chat = [{"role": "user", "content": parts}]
        text = own.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        images = pictures[:count]
        expected = own(text=[text], images=[images], return_tensors="pt", add_special_tokens=False)
        placeholders = own.tokenizer(text, add_special_tokens=False)["input_ids"]
        got = theirs(placeholders, theirs.info.parse_mm_data({"image": images}))
        ids.append(list(got["prompt_token_ids"]) == expected["input_ids"][0].tolist())
        values = got["mm_kwargs"].get_data()["pixel_values"]
        values = values if isinstance(values, torch.Tensor) else torch.cat(list(values))
        wanted = expected["pixel_values"]
        pixels.append(bool(torch.equal(values.reshape(-1).float(), wanted.reshape(-1).float())))
    return {"same_ids": ids, "same_pixels": pixels, "equal": all(ids) and all(pixels)}


if __name__ == "__main__":
    main()
