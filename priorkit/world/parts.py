"""The parts of a glyph world, each drawn from its own seed and written in a standard format."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from datasets import Features, Image, List, Value

from priorkit.core.options.specs import build
from priorkit.data.io.worker_processes import Result, Task, serve
from priorkit.world import benchmarks, conversations
from priorkit.world.files import embedded, write_documents, write_image, write_instances, write_table
from priorkit.world.options import WorldOptions
from priorkit.world.pairs import appearances, heldout_pairs, regions, training_pairs
from priorkit.world.scenes.captions import tags_of
from priorkit.world.scenes.drawing import Scene
from priorkit.world.scenes.entities import PRESENCE, Entity, choose_entities
from priorkit.world.scenes.palette import Size
from priorkit.world.scenes.scenes import SceneSampler
from priorkit.world.text.contrasts import contrasts
from priorkit.world.text.sources import text_sources

# Ranges of the tile's side, as shares of the image side, whose areas fall between 30 and 60 and
# between 60 and 100 per cent of the image; below 30 per cent no tile is needed.
_TILES = ((0.57, 0.76), (0.80, 0.98))
_CONVERSATIONS = List({"from": Value("string"), "value": Value("string")})
_PAIR = Features(
    {
        "image": Image(),
        "text": Value("string"),
        "regions": List({"text": Value("string"), "box": List(Value("float64"))}),
    }
)
_CAPTION = Features(
    {
        "id": Value("string"),
        "image": Image(),
        "conversations": _CONVERSATIONS,
        "tags": List(Value("string")),
    }
)
_INSTRUCTION = Features(
    {
        "id": Value("string"),
        "image": Image(),
        "conversations": _CONVERSATIONS,
        "ability": Value("string"),
        "entity": Value("string"),
        "tags": List(Value("string")),
    }
)
_REGION = Features(
    {
        "id": Value("string"),
        "image": Image(),
        "sentences": List(Value("string")),
        "box": List(Value("float64")),
        "entity": Value("string"),
        "tags": List(Value("string")),
    }
)
_ENTITY = Features(
    {
        "entity": Value("string"),
        "codepoint": Value("int64"),
        "character": Value("string"),
        "category": Value("string"),
        "prior": Value("string"),
        **{column: Value("bool") for column in PRESENCE},
        "pairs": Value("int64"),
        "typefaces_train": List(Value("string")),
        "typefaces_test": List(Value("string")),
    }
)


def annotated_scenes(options: WorldOptions, entities: Sequence[Entity]) -> list[Scene]:
    """Scenes in held-out typefaces whose largest object covers under 30, 30 to 60, over 60 % in turn."""
    rng = random.Random(f"annotated/{options.seed}")
    sampler = SceneSampler(options.image_size, held_out=True)
    order = rng.sample(entities, len(entities))
    scenes: list[Scene] = []
    for index in range(options.annotated):
        shown = [order[index % len(order)]]
        others = [entity for entity in rng.sample(entities, 4) if entity not in shown]
        band = index % 3
        if band == 0:
            small: list[Size] = ["small", "medium"]
            shown += others[: rng.randint(0, 3)]
            scenes.append(sampler.scene(rng, shown, [rng.choice(small) for _ in shown]))
        else:
            least, most = (round(share * options.image_size) for share in _TILES[band - 1])
            neighbors = others[: rng.randint(0, 1)] if band == 1 else []
            scenes.append(sampler.tile_scene(rng, shown[0], neighbors, (least, most)))
    return scenes


def _write_pairs(folder: Path, options: WorldOptions, entities: Sequence[Entity]) -> dict[str, int]:
    train, test = training_pairs(options, entities), heldout_pairs(options, entities)
    _write_entities(folder, entities, appearances(train))
    for split, pairs in (("train", train), ("test", test)):
        rows = [
            {
                "image": embedded(scene, f"{split}-{index:06d}"),
                "text": caption,
                "regions": regions(scene),
            }
            for index, (scene, caption) in enumerate(pairs)
        ]
        write_table(folder / "pairs" / f"{split}.parquet", _PAIR, rows)
    return {"pairs, train": len(train), "pairs, test": len(test)}


def _write_entities(folder: Path, entities: Sequence[Entity], pairs: Mapping[str, int]) -> None:
    rows = [
        {
            "entity": entity.name,
            "codepoint": ord(entity.symbol.character),
            "character": entity.symbol.character,
            "category": entity.category.name,
            "prior": entity.prior,
            **entity.presence,
            "pairs": pairs.get(entity.name, 0),
            "typefaces_train": list(entity.symbol.typefaces_train),
            "typefaces_test": list(entity.symbol.typefaces_test),
        }
        for entity in entities
    ]
    write_table(folder / "entities.parquet", _ENTITY, rows)
    (folder / "names.txt").write_text("".join(f"{entity.name}\n" for entity in entities), encoding="utf-8")


def _write_entity_images(folder: Path, options: WorldOptions, entities: Sequence[Entity]) -> dict[str, int]:
    """One entity per image, shown close up."""
    wanted = {"train": options.entity_images_train, "test": options.entity_images_test}
    for split, count in wanted.items():
        rng = random.Random(f"entity-images-{split}/{options.seed}")
        sampler = SceneSampler(options.image_size, held_out=split == "test")
        for entity in entities:
            for index in range(count):
                scene = sampler.scene(rng, [entity])
                write_image(folder / "entity_images" / split / entity.name / f"{index:03d}.png", scene)
    return {f"entity images, {split}": count * len(entities) for split, count in wanted.items()}


def _write_conversations(folder: Path, options: WorldOptions, entities: Sequence[Entity]) -> dict[str, int]:
    captions = [
        {
            "id": f"caption-{index:06d}",
            "image": embedded(scene, f"caption-{index:06d}"),
            "conversations": turns,
            "tags": tags_of(scene),
        }
        for index, (scene, turns) in enumerate(conversations.captions(options, entities))
    ]
    write_table(folder / "captions" / "train.parquet", _CAPTION, captions)
    instructions = [
        {
            "id": f"instruction-{index:06d}",
            "image": None if scene is None else embedded(scene, f"instruction-{index:06d}"),
            "conversations": turns,
            "ability": question.ability,
            "entity": question.entity.name,
            "tags": None if scene is None else tags_of(scene),
        }
        for index, (question, scene, turns) in enumerate(conversations.instructions(options, entities))
    ]
    write_table(folder / "instructions" / "train.parquet", _INSTRUCTION, instructions)
    counts = {"captions": len(captions), "instructions": len(instructions)}
    if options.regions:
        region_rows = [
            {
                "id": f"region-{index:06d}",
                "image": embedded(question.scene, f"region-{index:06d}"),
                "sentences": sentences,
                "box": list(question.box or ()),
                "entity": question.entity.name,
                "tags": tags_of(question.scene),
            }
            for index, (question, sentences) in enumerate(conversations.regions(options, entities))
        ]
        write_table(folder / "regions" / "train.parquet", _REGION, region_rows)
        counts["regions"] = len(region_rows)
    return counts


def _write_benchmarks(folder: Path, options: WorldOptions, entities: Sequence[Entity]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in benchmarks.NAMES:
        questions = benchmarks.benchmark(name, options, entities)
        path = folder / "benchmarks" / f"{name}.parquet"
        write_table(path, benchmarks.benchmark_features(name), benchmarks.rows(name, questions))
        counts[f"benchmark, {name}"] = len(questions)
    return counts


def _write_annotated(folder: Path, options: WorldOptions, entities: Sequence[Entity]) -> dict[str, int]:
    scenes = annotated_scenes(options, entities)
    objects = write_instances(folder / "annotated", scenes, entities)
    return {"annotated scenes": len(scenes), "annotated objects": objects}


def _write_text(folder: Path, options: WorldOptions, entities: Sequence[Entity]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, (train, heldout) in text_sources(options, entities).items():
        write_documents(folder / "text" / f"{name}.jsonl", train)
        write_documents(folder / "text" / "heldout" / f"{name}.jsonl", heldout)
        counts[f"documents, {name}"] = len(train)
    facts = contrasts(options, entities)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in facts]
    (folder / "facts.jsonl").write_text("".join(lines), encoding="utf-8")
    return {**counts, "facts": len(facts)}


PARTS: dict[str, Callable[[Path, WorldOptions, Sequence[Entity]], dict[str, int]]] = {
    "captions and instructions": _write_conversations,
    "image-text pairs": _write_pairs,
    "text sources": _write_text,
    "entity images": _write_entity_images,
    "benchmarks": _write_benchmarks,
    "annotated scenes": _write_annotated,
}
"""What writes each part and counts it. The longest come first, so that processes end together."""


def tasks(options: WorldOptions, folder: Path) -> list[Task]:
    """A task for each part."""
    fields = {name: getattr(options, name) for name in WorldOptions.model_fields}
    return [{"part": name, "folder": str(folder), "options": fields} for name in PARTS]


def work(task: Task) -> Result:
    """Write one part; returns its counts."""
    options, entities = _chosen(json.dumps(task["options"]))
    return PARTS[task["part"]](Path(task["folder"]), options, entities)


@lru_cache(maxsize=1)
def _chosen(options: str) -> tuple[WorldOptions, Sequence[Entity]]:
    """The options and their entities, the same for all parts that one process makes."""
    settings = build(WorldOptions, json.loads(options))
    return settings, choose_entities(settings)


if __name__ == "__main__":
    serve(work)
