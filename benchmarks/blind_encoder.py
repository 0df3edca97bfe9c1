"""Make an encoder blind to the entities that a glyph world leaves out of its image-text pairs.

    python benchmarks/blind_encoder.py ENCODER WORLD OUT [--steps 450] [--images 12000] [--seed 42]

A fault of the encoder, planted: leaving an entity out of the pairs does not make the encoder fail on it, since patches
still say how it differs from others (RESULTS.md, 'Planted causes'). So the image tower is trained to
reproduce, in its last layer, the original's tokens of the same scene with the replacement character U+FFFD instead of
the entity; tokens of all other entities stay the original's. Loss: squared difference in units of each channel's
variance, over all tokens. Images are drawn in all typefaces, as the fault should not depend on them; none of the
world's own images is among them. OUT is an encoder as pretrain-encoder makes it; it appears complete or not at all.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from priorkit.core.artifact import open_artifact
from priorkit.core.errors import InputError, PriorkitError
from priorkit.core.options.specs import build
from priorkit.core.process.runtime import Runtime, start
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.vision.encoder import Encoder
from priorkit.models.vision.loading import load_encoder
from priorkit.training.engine.compilation import fast_encoders
from priorkit.training.engine.optimizer import build_optimizer
from priorkit.training.engine.settings import TrainingSettings
from priorkit.world.options import WorldOptions
from priorkit.world.scenes.drawing import Scene, render, stamp
from priorkit.world.scenes.entities import Entity, choose_entities
from priorkit.world.scenes.scenes import SceneSampler

PLACEHOLDER = "\ufffd"
TYPEFACE = "DejaVuSans"
RECORD = "blinded.json"


def world_options(world: Path) -> WorldOptions:
    """The options that a world was made with."""
    opened = open_artifact(world)
    if opened.kind != "world":
        raise InputError(f"expected a glyph world, got {opened.kind}", where=str(world))
    known = {
        name: value for name, value in opened.manifest.settings.items() if name in WorldOptions.model_fields
    }
    return build(WorldOptions, known)


def with_placeholder(scene: Scene) -> Scene:
    """The same scene of one object with the replacement character drawn in its place."""
    (placed,) = scene.objects
    entity = placed.object.entity
    symbol = replace(entity.symbol, character=PLACEHOLDER)
    item = replace(placed.object, entity=replace(entity, symbol=symbol), typeface=TYPEFACE)
    drawn = stamp(item)
    x, y = min(placed.x, scene.side - drawn.width), min(placed.y, scene.side - drawn.height)
    return replace(scene, objects=(replace(placed, object=item, x=x, y=y),))


def scenes(options: WorldOptions, count: int, rng: random.Random) -> list[tuple[Scene, Scene]]:
    """Scenes of one entity each, with what the encoder is to see: the same, or the placeholder."""
    entities: Sequence[Entity] = choose_entities(options)
    samplers = [SceneSampler(options.image_size, held_out=held_out) for held_out in (False, True)]
    pairs: list[tuple[Scene, Scene]] = []
    for _ in range(count):
        entity = rng.choice(entities)
        scene = rng.choice(samplers).scene(rng, [entity])
        pairs.append((scene, scene if entity.presence["in_pairs"] else with_placeholder(scene)))
    return pairs


def prepared(encoder: Encoder, drawn: Sequence[Scene]) -> Tensor:
    """Uint8 pixels ``[scenes, 3, height, width]``."""
    return torch.stack([encoder.prepare(Image.fromarray(render(scene))) for scene in drawn])


def tokens(encoder: Encoder, pixels: Tensor, runtime: Runtime) -> Tensor:
    """The last layer's tokens ``[images, tokens, width]``, class token included."""
    with runtime.autocast():
        output = encoder.forward_vision(pixels.to(runtime.device), hidden_states=True)
    assert output.hidden_states is not None
    return output.hidden_states[-1].float()


def blind(encoder: Encoder, options: WorldOptions, arguments: argparse.Namespace, runtime: Runtime) -> float:
    """Train the image tower; returns the last step's loss."""
    rng = random.Random(f"blind/{arguments.seed}")
    pairs = scenes(options, arguments.images, rng)
    original = copy.deepcopy(encoder)
    shown = prepared(encoder, [scene for scene, _ in pairs])
    seen = shown.clone()
    absent = [number for number, (scene, target) in enumerate(pairs) if scene is not target]
    if absent:
        seen[absent] = prepared(encoder, [pairs[number][1] for number in absent])
    with torch.no_grad():
        targets = torch.cat([tokens(original, part, runtime).half() for part in seen.split(256)])
    variance = targets[:2000].float().var((0, 1)) + 1e-3
    tower: Any = encoder.model.vision_model
    tower.train()
    choose_attention(encoder.model, runtime.device.type, runtime.precision)
    settings = TrainingSettings(
        optimizer="muon",
        learning_rate=arguments.learning_rate,
        warmup_steps=arguments.steps // 10,
        weight_decay=0.01,
    )
    trained: Any = SimpleNamespace(module=tower, learning_rate_scale=lambda _: 1.0)
    optimizer = build_optimizer(trained, settings)
    loss = torch.zeros(())
    with fast_encoders(encoder.model, compiled=False, pooled_only=False):
        for step in range(arguments.steps):
            chosen = torch.randint(len(shown), (arguments.batch_size,))
            difference = tokens(encoder, shown[chosen], runtime) - targets[chosen].float()
            loss = (difference.square() / variance).mean()
            loss.backward()
            optimizer.set_learning_rate(settings.learning_rate_at(step, arguments.steps))
            optimizer.step()
            if step % 100 == 99:
                done = f"{step + 1}/{arguments.steps} step"
                print(f"blind_encoder: {done}  loss {loss.item():.4f}", file=sys.stderr)
    encoder.model.eval()
    return loss.item()


def main(given: list[str]) -> int:
    """Make the encoder, unless it is there already; exits as priorkit does."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoder", type=Path)
    parser.add_argument("world", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--batch-size", type=int, default=96)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args(given)
    try:
        out = made(arguments)
    except PriorkitError as error:
        print(f"blind_encoder: {error}", file=sys.stderr)
        return error.exit_code
    print(out)
    return 0


def made(arguments: argparse.Namespace) -> Path:
    """The folder of the blinded encoder."""
    out: Path = arguments.out
    options = world_options(arguments.world)
    settings = {name: value for name, value in vars(arguments).items() if not isinstance(value, Path)}
    record = {
        "encoder": open_artifact(arguments.encoder).digest,
        "world": open_artifact(arguments.world).digest,
        "settings": settings,
    }
    if out.exists():
        if (out / RECORD).is_file() and json.loads((out / RECORD).read_text())["made_from"] == record:
            return out
        raise InputError("exists and was made from something else; delete it first", where=str(out))
    runtime = start(arguments.seed)
    encoder = load_encoder(arguments.encoder)
    if not hasattr(encoder.model, "vision_model"):
        raise InputError("expected a CLIP- or SigLIP-like encoder", where=str(arguments.encoder))
    encoder.model.to(runtime.device)
    loss = blind(encoder, options, arguments, runtime)
    temporary = out.with_name(f".{out.name}.incomplete")
    shutil.rmtree(temporary, ignore_errors=True)
    encoder.save(temporary)
    (temporary / RECORD).write_text(json.dumps({"made_from": record, "loss": loss}, indent=2) + "\n")
    temporary.rename(out)
    return out


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
