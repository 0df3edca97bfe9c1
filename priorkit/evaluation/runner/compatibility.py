"""Whether a model can answer a benchmark, and how its items are put to it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorkit.core.boxes import BOX_FORMAT_NAMES, DECIMAL_BOXES, BoxWriter
from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.inputs import Input
from priorkit.core.options.settings import Settings
from priorkit.core.options.specs import refuse_changed
from priorkit.data.images.decoding import image_key, upright_size
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource
from priorkit.evaluation.tasks.base import AnswerMode, BoxFormatChoice, Task
from priorkit.evaluation.tasks.item import Item
from priorkit.evaluation.tasks.registry import TASKS
from priorkit.models.language.tokenizer import check_location_tokens
from priorkit.models.multimodal.box_alignment import misaligned_images, misalignment_warning
from priorkit.models.vision.patch_settings import PatchSettings, check_region_layer

if TYPE_CHECKING:
    from priorkit.inference.model_info import ModelInfo

logger = logging.getLogger(__name__)


def check_groups(names: Sequence[str], known: Sequence[str], cluster: str | None, columns: set[str]) -> None:
    """Check the columns by which metrics are also reported, and the one whose values are resampled.

    Args:
        names: the names of groups given.
        known: names of groups that need not be there.
        cluster: the column whose values are resampled together, where one was given.
        columns: those of all benchmarks.

    Raises:
        InputError: no benchmark has such a column.
    """
    problems = Problems(InputError)
    unknown = [(name, "--group-by") for name in names if name not in columns and name not in known]
    unknown += [(cluster, "--cluster")] if cluster and cluster not in columns else []
    for name, where in unknown:
        problems.add(
            f"no benchmark has a column '{name}'",
            where=where,
            hint=f"the columns are {', '.join(sorted(columns))}",
        )
    problems.raise_if_any()


def check_sight(
    model: str, checked: ModelInfo, sources: Sequence[BenchmarkSource], *, blind: bool, shuffle: bool = False
) -> None:
    """A language model sees no images, an encoder nothing else; without images there is nothing to shuffle.

    Raises:
        InputError: naming every benchmark that the model cannot take.
    """
    problems = Problems(InputError)
    visual = [source.name for source in sources if source.visual]
    if shuffle and not visual:
        problems.add("no benchmark has images that could be shuffled", where="--shuffle-images")
    if checked.kind == "llm" and visual and not blind:
        problems.add(
            f"a language model cannot see the images of {', '.join(visual)}",
            where=model,
            hint="give a multimodal model, or withhold the images with --blind",
        )
    if checked.kind == "encoder":
        for source in sources:
            if "similarity" not in source.task.modes or not source.visual:
                answers = ", ".join(task.name for task in TASKS.values() if "similarity" in task.modes)
                problems.add(
                    f"an encoder answers only {answers} with images, not '{source.task.name}'"
                    + ("" if source.visual else " without images"),
                    where=source.name,
                    hint="give a multimodal model, or choose another --task",
                )
        if blind:
            problems.add("an encoder has nothing to go by without images", where="--blind")
    problems.raise_if_any()


def check_patches(
    settings: PatchSettings, model: str, checked: ModelInfo, sources: Sequence[BenchmarkSource]
) -> None:
    """Check that an encoder's patches can be compared with texts, where a task needs that.

    Raises:
        InputError: the encoder's cannot.
        UsageError: it lacks the layer, or a layer is given for nothing.
    """
    problems = Problems(UsageError)
    names = [name for name, task in TASKS.items() if task.patches]
    if not any(source.task.patches for source in sources):
        refuse_changed(settings, ("region_layer",), problems, f"has an effect only on {', '.join(names)}")
    elif checked.kind == "encoder":
        from priorkit.models.vision.patch_features import check_patch_encoder

        try:
            check_region_layer(settings, check_patch_encoder(checked.folder), problems)
        except InputError as error:
            raise error.at(model) from None
    problems.raise_if_any()


def answer_mode_of(task: Task, kind: str, by: str) -> AnswerMode:
    """How a model of a kind is asked items of a task.

    Raises:
        InputError: the task needs another kind of model.
        UsageError: the mode given by ``--by`` is not one of the task's.
    """
    if kind == "encoder":
        if by != "auto":
            raise UsageError(f"an encoder has no {by}", where="--by", hint="leave --by out")
        return "similarity"
    if task.encoders_only:
        raise InputError(f"'{task.name}' needs an encoder with a text tower", where="MODEL")
    chosen = task.modes[0] if by == "auto" else by
    for mode in task.modes:
        if mode == chosen:
            return mode
    raise UsageError(
        f"'{task.name}' cannot be evaluated by {by}",
        where="--by",
        hint=f"use --by {task.modes[0]}, or leave it out",
    )


def choose_box_request(
    chosen: BoxFormatChoice,
    given: Input,
    model: ModelInfo,
    sources: Sequence[BenchmarkSource],
) -> tuple[str, str]:
    """The format in which boxes are asked for, and the sentence that does; empty texts for the usual one.

    Args:
        chosen: ``--box-format``; with ``auto`` the format that the model's artifact records.
        given: the model as an input.
        model: the model.
        sources: the benchmarks.

    Raises:
        UsageError: a format is chosen, and no prompt can ask for it.
        InputError: the tokenizer has no location tokens.
    """
    asking = [source for source in sources if source.task.boxes]
    if chosen == "auto":
        settings = given.owner.manifest.settings if given.owner is not None and asking else {}
        recorded: Any = settings.get("box_format")
        writer = BoxWriter(recorded) if recorded in BOX_FORMAT_NAMES else DECIMAL_BOXES
    else:
        fixed = [
            source.name for source in asking if source.preset and _words_boxes(source.preset.prompt.chat)
        ]
        if fixed:
            raise UsageError(
                f"the prompt of {', '.join(fixed)} says how boxes are written, so that this has no effect",
                where="--box-format",
                hint="write {box_request} in the prompt, or leave it out",
            )
        if not asking:
            raise UsageError(
                "no benchmark asks for boxes, so that this has no effect",
                where="--box-format",
                hint="leave it out",
            )
        # Every grid has the first and the last token.
        check_location_tokens(model.folder, BoxWriter(chosen, bins=1), given.given)
        writer = BoxWriter(chosen)
    return ("", "") if writer == DECIMAL_BOXES else (writer.format, writer.request)


def _words_boxes(prompt: str) -> bool:
    return bool(prompt) and "{box_request}" not in prompt


def warn_of_misaligned_boxes(model: Path, items: list[Item], name: str) -> None:
    """Warn if images with boxes are cropped or padded, so that answers cannot match the boxes."""
    misaligned = misaligned_images(model)
    if misaligned == "none":
        return
    sizes = {image_key(image): upright_size(image) for item in items for image in item.images}
    if text := misalignment_warning(misaligned, sizes.values()):
        logger.warning(f"{name}: {text}")


COLUMN_OPTIONS = tuple(f"{kind}_column" for kind in ("image", "text", "question", "answer", "choices"))
"""Options that name columns."""


def refuse_columns(settings: Settings, why: str) -> None:
    """Refuse options that name columns where they have no effect.

    Raises:
        UsageError: naming each.
    """
    problems = Problems(UsageError)
    refuse_changed(settings, COLUMN_OPTIONS, problems, f"{why}, so that this has no effect")
    problems.raise_if_any()
