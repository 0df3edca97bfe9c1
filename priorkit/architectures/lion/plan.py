"""The plan of a stage of LION: base, adapter, parts, layers and data checked from headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorkit.architectures.lion.artifact import base_of, is_lion_adapter, read_adapter_config
from priorkit.architectures.lion.modeling.configuration import (
    BRANCHES,
    check_adapters,
    check_layers,
)
from priorkit.architectures.lion.pretrained_qformer import PretrainedQueries, check_queries
from priorkit.architectures.lion.settings import (
    LionTuneSettings,
    conflicting_options,
    lion_values,
    stage_parts,
)
from priorkit.core.errors import InputError, Problems, UsageError, nearest
from priorkit.core.inputs import Input
from priorkit.core.work import Plan
from priorkit.data.columns import check_image_folders
from priorkit.data.conversations.task_conversations import REGION, check_task_conversations
from priorkit.models.folder import read_config
from priorkit.models.language.tokenizer import check_location_tokens
from priorkit.models.multimodal.box_alignment import misaligned_images, misalignment_fact
from priorkit.models.multimodal.llava import check_llava, check_llava_chat_template
from priorkit.models.vision.image_tower import TOWER_CONCAT
from priorkit.training.finetuning.conversation_source import (
    check_box_format,
    check_source_weights,
    sources_of,
)


@dataclass(frozen=True)
class LionPlan:
    """What ``plan`` worked out.

    Attributes:
        base: the LLaVA model.
        base_name: how the adapter will name it.
        start: a LION adapter that training continues from, or None.
        fields: LION's configuration.
        trained: parts that train.
        task_types: of the training data.
        queries: the pretrained Q-Former; None for a random one, or the adapter's.
    """

    base: Input
    base_name: str
    start: Path | None
    fields: Mapping[str, Any]
    trained: tuple[str, ...]
    task_types: tuple[str, ...]
    queries: PretrainedQueries | None = None


def trained_parts(stage: str, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts that a stage trains; encoder and language model never do.

    Stage 1: Q-Former, image adapter. Stage 2: aggregator with its MLP, region adapter. Stage 3 and
    ``all``: these and the router. A shared adapter, LLaVA's projector as a branch and the soft prompt
    are trained in every stage that has them.
    """
    adapters = [name for name in fields["adapters"] if name == "shared" or stage not in ("1", "2")]
    adapters += [name for name in fields["adapters"] if (stage, name) in (("1", "image"), ("2", "region"))]
    left_out = {"1": "aggregator", "2": "qformer"}.get(stage)
    return (
        *(name for name in fields["branches"] if name != left_out),
        *(f"adapter {name}" for name in dict.fromkeys(adapters)),
        *(("router",) if fields["router"] and stage not in ("1", "2") else ()),
        *(("soft prompt",) if fields["tags"] == "soft" else ()),
    )


def plan(settings: LionTuneSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check base, adapter, parts, layers and data from headers."""
    problems = Problems(UsageError)
    shape = stage_parts(settings)
    for name in shape.branches:
        if name not in BRANCHES:
            problems.add(f"no branch '{name}'", where="--branches", hint=nearest(name, BRANCHES))
    if "qformer" in shape.branches and settings.qformer_width % settings.qformer_heads:
        problems.add(
            f"width {settings.qformer_width} cannot be shared among {settings.qformer_heads} heads",
            where="--qformer-heads",
        )
    problems.raise_if_any()
    check_adapters(shape.adapters, shape.router)
    given = inputs["mllm"]
    start = given.path if is_lion_adapter(given.path) else None
    base = base_of(given.path) if start is not None else given
    check_llava_chat_template(base.path, check_llava(base.path), settings.chat_template)
    _check_boxes(settings, inputs, base)
    vision = _vision(base.path)
    layers = check_layers(settings.aggregator_layers, vision["num_hidden_layers"])
    fields = lion_values(settings, vision["hidden_size"], layers)
    if start is not None:
        fields = _continued(settings, fields, start)
    elif settings.stage == "3":
        raise UsageError(
            "stage 3 continues from the merged stages 1 and 2, got a LLaVA model",
            where=str(given.given),
            hint="priorkit merge-adapters STAGE1 STAGE2 --method mixture --out start, then tune start; "
            "or use --stage all to train everything at once",
        )
    queries = None
    if "qformer" in inputs:
        if start is not None or "qformer" not in fields["branches"]:
            why = (
                "the adapter that training continues from has one"
                if start is not None
                else "the model has none"
            )
            raise UsageError(
                f"no Q-Former is initialized here: {why}", where="--qformer", hint="leave it out"
            )
        queries = check_queries(inputs["qformer"].path, fields, vision["hidden_size"], base.path)
        fields["qformer"] |= queries.fields
    if "aggregator" in fields["branches"] and vision["hidden_size"] % fields["aggregator_heads"]:
        raise UsageError(
            f"the encoder's width {vision['hidden_size']} cannot be shared among "
            f"{fields['aggregator_heads']} heads",
            where="--aggregator-heads",
        )
    _check_instructions(settings, inputs, settings.tags_column if fields["tags"] != "off" else "")
    trained = trained_parts(settings.chosen_stage, fields)
    name = base.given if base.revision else str(base.path.resolve())
    return Plan(
        [
            ("stage", settings.chosen_stage),
            ("visual tokens from", ", ".join(fields["branches"]) or "nothing"),
            *([("Q-Former from", _origin(inputs["qformer"], queries))] if queries else []),
            ("trained", ", ".join(trained)),
            ("frozen", "encoder, llm"),
            ("data", ", ".join(shape.task_types)),
            *(misalignment_fact(misaligned_images(base.path)) if REGION in shape.task_types else []),
        ],
        kind="adapter",
        payload=LionPlan(base, name, start, fields, trained, shape.task_types, queries),
    )


def _check_boxes(settings: LionTuneSettings, inputs: Mapping[str, Input], base: Input) -> None:
    """Check that the data have the format of boxes chosen, and that the tokenizer has its tokens."""
    check_box_format(inputs, "instructions", settings.box_writer)
    check_location_tokens(base.path, settings.box_writer, base.given)


def _origin(source: Input, queries: PretrainedQueries) -> str:
    words = "word embeddings" if len(queries.fresh) == 1 else "all parameters for text"
    how = (
        "from those of its vocabulary"
        if queries.words and len(queries.fresh) == 1
        else "randomly initialized"
    )
    return f"{source.given}, {len(queries.tensors)} tensors; {words} {how}"


def _vision(folder: Path) -> dict[str, Any]:
    """The encoder's sizes, with the defaults of its type where the file leaves them out."""
    from transformers import CONFIG_MAPPING

    written = dict(read_config(folder)["vision_config"])
    if written["model_type"] == TOWER_CONCAT:
        raise InputError("LION's branches read one encoder, the model has several", where=str(folder))
    config = CONFIG_MAPPING[written["model_type"]](**written)
    return {"hidden_size": config.hidden_size, "num_hidden_layers": config.num_hidden_layers}


def _continued(settings: LionTuneSettings, wanted: Mapping[str, Any], start: Path) -> dict[str, Any]:
    """The fields of the adapter that training continues from; tags may be switched on."""
    held = dict(read_adapter_config(start)["lion"])
    shape = stage_parts(settings)
    missing = [
        name
        for name in (*shape.branches, *(f"adapter {name}" for name in shape.adapters))
        if name not in (*held["branches"], *(f"adapter {adapter}" for adapter in held["adapters"]))
    ]
    if missing and not settings.branches and not settings.adapters:
        raise UsageError(
            f"stage {settings.stage} needs {', '.join(missing)}, which the adapter does not have",
            where=str(start),
            hint="join the stages with priorkit merge-adapters STAGE1 STAGE2 --method mixture",
        )
    differing = conflicting_options(settings, wanted, held)
    if differing:
        raise UsageError(
            f"the adapter that training continues from has other values of {', '.join(differing)}",
            where=str(start),
            hint="leave them out",
        )
    if held["tags"] == "soft" and wanted["tags"] != "soft" and "tags" in settings.model_fields_set:
        raise UsageError(
            "the adapter that training continues from has a soft prompt",
            where="--tags",
            hint="use --tags soft",
        )
    return {**held, "tags": wanted["tags"] if "tags" in settings.model_fields_set else held["tags"]}


def _check_instructions(settings: LionTuneSettings, inputs: Mapping[str, Input], column: str) -> None:
    """Check the sources' weights, folders of images and rows, the latter with a column of tags where one is named."""
    sources = source_paths(inputs)
    check_source_weights(settings, inputs, "instructions")
    check_image_folders(settings, sources)
    for source, path in sources.items():
        check_task_conversations(path, column, settings.layout(source))


def source_paths(inputs: Mapping[str, Input]) -> dict[str, Path]:
    """The folders or files of instructions, by name."""
    return {name: item.path for name, item in sources_of(inputs, "instructions").items()}
