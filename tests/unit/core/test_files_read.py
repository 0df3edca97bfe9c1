"""Every file that a step opens decides whether its result is up to date, whatever lies around it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from priorkit.core.boxes import DECIMAL_BOXES
from priorkit.core.errors import InputError
from priorkit.core.input_files import list_files
from priorkit.core.inputs import Input, resolve
from priorkit.core.options.settings import StepSettings
from priorkit.data.columns import layout_of
from priorkit.data.conversations.conversation import drop_broken_images
from priorkit.data.conversations.labelled_conversations import conversation_records
from priorkit.data.images.entities import read_entities
from priorkit.data.images.tagged_tables import find_tables, write_tagged
from priorkit.data.io.rejects import Rejects
from priorkit.data.pairs.reading import read_pairs
from priorkit.evaluation.benchmarks.items_io import read_items
from priorkit.evaluation.settings import EvaluateSettings
from priorkit.inference.alignment_settings import AlignmentSettings
from priorkit.inference.images.tagging_settings import TagImagesSettings
from priorkit.inference.rank_e.settings import RankSettings
from priorkit.labelling.settings import LabelCorpusSettings
from priorkit.mle_bench.annotations import find_annotations
from priorkit.mle_bench.reading import read_annotated
from priorkit.mle_bench.settings import MleBenchSettings
from priorkit.training.finetuning.align_settings import AlignSettings
from priorkit.training.finetuning.blind_settings import BlindTuneSettings
from priorkit.training.finetuning.conversation_source import read_usable
from priorkit.training.pretraining.settings import PretrainEncoderSettings

_opened: set[str] | None = None


def _plain(path: str | Path) -> str:
    """A path without steps back, its links not followed."""
    return os.path.normpath(Path(path).absolute())


def _note(event: str, given: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(given[0], str):
        _opened.add(_plain(given[0]))


sys.addaudithook(_note)  # stays for the process; notes only within `noting`


@contextmanager
def noting() -> Generator[set[str]]:
    """The files that are opened for as long as this is entered."""
    global _opened
    _opened = set()
    try:
        yield _opened
    finally:
        _opened = None


IMAGES = (
    "a.png", "deep/b.png", ".hidden/c.png", "._d.png", "e.png~", "__MACOSX/f.png", "run.partial/g.png",
    "made/h.png", "link.png", "linked/i.png", "gone.png", "around.png",
)  # fmt: skip
"""Of these ``link.png`` and ``linked`` are links, ``made`` is an artifact, the last two lead nowhere."""

CLUTTER = (".rows.jsonl", "._rows.jsonl", "rows.jsonl~", "__MACOSX/rows.jsonl", "made/rows.jsonl", "notes.md")

TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]

Read = Callable[[StepSettings, Path], object]


def _conversations(made: Any, path: Path) -> object:
    rejects = Rejects(1.0)
    return list(drop_broken_images(read_usable(path, rejects, made.layout("x"), DECIMAL_BOXES), rejects))


def _items(made: Any, path: Path) -> object:
    (source,) = made.benchmark_sources({"benchmarks.0": resolve(str(path), "benchmarks", ())})
    return read_items(source, Rejects(1.0), group_by=(), limit=0, show_images=True)


def _tagged(made: Any, path: Path) -> object:
    return [
        write_tagged(file, path.parent.parent / "out.parquet", "tags", lambda rows, _: [["x"]] * len(rows),
                     Rejects(1.0), made.layout)
        for file in find_tables(path, made.layout)
    ]  # fmt: skip


def _annotated(made: Any, path: Path) -> object:
    return read_annotated(find_annotations(path, None, None, None), Rejects(1.0))


ROWS = "x.rows"
STEPS: dict[str, tuple[str, type[StepSettings], dict[str, Any], Read]] = {
    "align": ("captions.x", AlignSettings, {"llm": "l", "encoder": "e", "captions": [f"x={ROWS}"]}, _conversations),
    "blind-tune": ("instructions.x", BlindTuneSettings, {"llm": "l", "instructions": [f"x={ROWS}"]}, _conversations),
    "label-corpus": (
        "sources.x", LabelCorpusSettings, {"sources": [f"x={ROWS}"], "labeller": "l", "labels": "abilities"},
        lambda made, path: list(conversation_records(path, Rejects(1.0), made.layout("x"))),
    ),
    "pretrain-encoder": (
        "pairs", PretrainEncoderSettings, {"pairs": ROWS},
        lambda made, path: read_pairs(path, Rejects(1.0), layout=layout_of(made)),
    ),
    "representation-alignment": (
        "pairs", AlignmentSettings, {"llm": "l", "pairs": ROWS, "encoder": ["e"]},
        lambda made, path: read_pairs(path, Rejects(1.0), layout=layout_of(made)),
    ),
    "rank-e": (
        "images", RankSettings, {"encoder": "e", "images": ROWS},
        lambda made, path: read_entities(path, Rejects(1.0), layout=made.entity_layout({})),
    ),
    "tag-images": ("images", TagImagesSettings, {"images": ROWS, "tagger": "t"}, _tagged),
    "evaluate": ("benchmarks.0", EvaluateSettings, {"model": "m", "benchmarks": [ROWS]}, _items),
}  # fmt: skip


def grow(root: Path, images: Sequence[str], clutter: Sequence[str], format: str) -> Path:
    """A folder of rows that name images, among what is to be left out; returns the table."""
    for folder in ("in", "elsewhere"):
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir()
    for name in ("link.png", "i.png"):
        Image.new("RGB", (4, 4)).save(root / "elsewhere" / name)
    for name in set(images) - {"link.png", "linked/i.png", "gone.png", "around.png"}:
        (root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / "in" / name, "PNG")
    for name, target in (
        ("link.png", root / "elsewhere" / "link.png"), ("linked", root / "elsewhere"), ("gone.png", "nowhere"),
        ("around.png", "around.png"),
    ):  # fmt: skip
        (root / "in" / name).symlink_to(target)
    for name in clutter:
        (root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "in" / name).write_text("{}\n")
    if (root / "in" / "made").is_dir():
        (root / "in" / "made" / "priorkit.json").write_text("{}")
    rows = [
        {"id": str(number), "image": name, "text": "t", "entity": "cat", "question": "q", "answer": "a",
         "conversations": TURNS}
        for number, name in enumerate(images)
    ]  # fmt: skip
    table = root / "in" / f"rows.{format}"
    if format == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
        table.write_text("\ufeff" + text, encoding="utf-8")
    elif format == "json":
        table.write_text(json.dumps(rows))
    else:
        with table.open("w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows({**row, "conversations": json.dumps(TURNS)} for row in rows)
    return table


def counted(item: Input, named: Mapping[str, tuple[Path, Collection[str]]]) -> set[str]:
    """The files whose content decides an input's digest."""
    own = [item.path / name for name in list_files(item.path).names] if item.path.is_dir() else [item.path]
    others = [folder / name for folder, names in named.values() for name in names]
    return {_plain(path) for path in (*own, *others)}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("apart", [False, True])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    images=st.lists(st.sampled_from(IMAGES), min_size=1, max_size=5, unique=True),
    clutter=st.lists(st.sampled_from(CLUTTER), unique=True, max_size=3),
    format=st.sampled_from(("jsonl", "json", "csv")),
    whole=st.booleans(),
)
def test_every_step_opens_what_decides_its_digest(
    tmp_path: Path, step: str, apart: bool, images: list[str], clutter: list[str], format: str, whole: bool
) -> None:
    label, model, given_values, read = STEPS[step]
    table = grow(tmp_path, images, clutter, format)
    path = table.parent
    if apart or not whole or step == "rank-e":
        path = table
    values = json.loads(json.dumps(given_values).replace(ROWS, str(path)))
    if apart:  # the rows in another folder than the images
        folder_option = {"tag-images": "image_folder", "rank-e": ""}.get(step, "images")
        if not folder_option:
            return
        path = table = table.replace(tmp_path / table.name)
        values = json.loads(json.dumps(given_values).replace(ROWS, str(path)))
        values[folder_option] = str(tmp_path / "in")
    made = model(**values, out="o")
    item = resolve(str(path), label.split(".")[0], ())
    expected = counted(item, named := made.named_files({label: item}))
    with noting() as opened, suppress(InputError):  # where none of the images is there
        read(made, path)
    below = {name for name in opened if name.startswith(f"{tmp_path}{os.sep}") and "out.parquet" not in name}
    assert below <= expected
    if step != "label-corpus":  # which looks only for their files
        assert {_plain(folder / name) for folder, names in named.values() for name in names} <= below


MASKS = ("plain", "link", "hidden")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from("abc"), st.sampled_from(MASKS), min_size=1), st.booleans())
def test_masks_belong_to_the_annotated_images(tmp_path: Path, pictures: dict[str, str], apart: bool) -> None:
    for folder in ("coco", "masks", "elsewhere"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    (tmp_path / "elsewhere").mkdir()
    images = tmp_path / "coco" / "images"
    masks = tmp_path / "masks" / "panoptic" if apart else tmp_path / "coco" / "panoptic"
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for name, kind in pictures.items():
        file = f".{name}.png" if kind == "hidden" else f"{name}.png"
        for folder, colour in ((images, (9, 9, 9)), (masks, (1, 0, 0))):
            target = folder / file
            if kind == "link":
                target = tmp_path / "elsewhere" / f"{folder.name}-{name}.png"
                (folder / file).symlink_to(target)
            Image.new("RGB", (4, 4), colour).save(target)
        rows.append({"id": name, "file_name": file, "width": 4, "height": 4})
    annotations = [
        {"image_id": row["id"], "file_name": row["file_name"], "segments_info": [{"id": 1, "category_id": 1}]}
        for row in rows
    ]
    document = {"images": rows, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    file = (tmp_path / "masks" if apart else tmp_path / "coco") / "panoptic.json"
    file.write_text(json.dumps(document))
    given_file = file if apart else None
    made = MleBenchSettings(images=str(tmp_path / "coco"), annotations=(apart and str(file)) or None, out="o")
    inputs = {"images": resolve(str(tmp_path / "coco"), "images", ())}
    if apart:
        inputs["annotations"] = resolve(str(file), "annotations", ())
    named = made.named_files(inputs)
    expected = set[str]().union(*(counted(item, named) for item in inputs.values()))
    with noting() as opened, suppress(InputError):
        read_annotated(find_annotations(tmp_path / "coco", given_file, None, None), Rejects(1.0))
    assert {name for name in opened if name.startswith(f"{tmp_path}{os.sep}")} <= expected
