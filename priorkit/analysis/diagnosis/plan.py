"""The plan of a diagnosis: everything that can be checked before a weight is read, all of it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from priorkit.analysis.diagnosis.naming_counts import COUNTED
from priorkit.analysis.diagnosis.remedies import read_gains
from priorkit.analysis.diagnosis.settings import DiagnoseSettings
from priorkit.analysis.diagnosis.validation import read_causes
from priorkit.analysis.diagnosis.verdict_model import VerdictModel, read_verdict_model
from priorkit.core.errors import InputError, Problems, UsageError, nearest
from priorkit.core.process import runtime
from priorkit.core.work import Inputs, Plan
from priorkit.data.conversations.conversation import check_conversations
from priorkit.data.images.entities import EntityImages, check_entities, folded_name, read_names
from priorkit.data.io.rejects import Rejects
from priorkit.inference.diagnosis.facts import read_facts

if TYPE_CHECKING:
    from priorkit.inference.model_info import ModelInfo

_LEAST_ENTITIES = 2


@dataclass(frozen=True)
class DiagnosisPlan:
    """What ``plan`` found.

    Attributes:
        model: what is diagnosed.
        rank_e: whether the encoder has a text tower to rank names with.
        verdict_model: the fitted one; None for the ordered tests.
    """

    model: ModelInfo
    rank_e: bool
    verdict_model: VerdictModel | None


def plan_diagnosis(
    settings: DiagnoseSettings, inputs: Inputs, check_model: Callable[[Path], ModelInfo]
) -> Plan[DiagnosisPlan]:
    """Check model, images, facts, names and files, from headers and rows.

    Raises:
        PriorkitError: naming all problems found.
    """
    if runtime.world_size() > 1:
        raise UsageError("diagnose runs in one process", hint="start it without torchrun")
    usage, problems = Problems(UsageError), Problems(InputError)
    _check_options(settings, usage)
    usage.raise_if_any()
    model = encoder = verdict_model = entities = None
    with problems.collecting():
        model = _check_multimodal(settings.mllm, check_model(inputs.one("mllm").path))
    with problems.collecting():
        entities = check_entities(
            inputs.one("images").path, settings.reject_limit, settings.entity_layout(inputs)
        )
        _check_entities(settings, entities)
    with problems.collecting():
        encoder = _text_tower(inputs)
    for data, layout in COUNTED.items():
        with problems.collecting():
            if item := inputs.optional(data):
                check_conversations(item.path, layout)
    with problems.collecting():
        if item := inputs.optional("verdict_model"):
            verdict_model = read_verdict_model(item.path)
            _check_measures(settings, verdict_model)
    with problems.collecting():
        if item := inputs.optional("truth"):
            read_causes(item.path)
    with problems.collecting():
        if item := inputs.optional("gains"):
            read_gains(item.path)
    names = entities.entities if entities is not None else None
    with problems.collecting():
        if (item := inputs.optional("facts")) and names is not None:
            read_facts(item.path, names, Rejects(settings.reject_limit))
    with problems.collecting():
        if item := inputs.optional("control"):
            named_controls(item.path, names, settings.control or "")
    problems.raise_if_any()
    assert model is not None  # otherwise there was a problem
    facts = [
        ("model", model.kind + (" with adapter" if model.adapter else "")),
        ("asked", _asked(model)),
    ]
    if entities is not None:
        facts.append(("images", f"{len(entities.images)} of {len(entities.entities)} entities"))
    facts += [
        ("evidence of the encoder", "Rank_e and the probe" if encoder else "only the probe"),
        ("verdicts by", "a fitted model" if verdict_model else "ordered tests"),
        ("false-discovery rate", f"{settings.false_discovery_rate:g} within each part"),
    ]
    return Plan(facts, payload=DiagnosisPlan(model, bool(encoder), verdict_model))


def _check_options(settings: DiagnoseSettings, problems: Problems) -> None:
    for flag, text in (
        ("--template", settings.template),
        ("--presence-question", settings.presence_question),
    ):
        if "{}" not in text:
            problems.add("needs {} where the name goes", where=flag)
    for flag, text in (("--question", settings.question), ("--image-phrase", settings.image_phrase)):
        if not text.strip():
            problems.add("is blank", where=flag)
    chance = 1 / (1 + settings.distractors)
    if chance >= settings.works_from:
        problems.add(
            f"guessing among {1 + settings.distractors} names is right in {chance:.2f} of the cases, which "
            f"--works-from {settings.works_from:g} does not exceed",
            where="--distractors",
            hint="raise one of the two",
        )


def _check_multimodal(given: str, model: ModelInfo) -> ModelInfo:
    """Refuse what has no image and language part.

    Raises:
        InputError: a language model or an encoder.
    """
    if model.kind != "mllm":
        lacks = "it sees no images" if model.kind == "llm" else "it writes no answers"
        raise InputError(
            f"expected a multimodal model, got {'a language model' if model.kind == 'llm' else 'an encoder'}: {lacks}",
            where=given,
            hint="give what align or tune made, or an image-text-to-text model of transformers",
        )
    return model


def _asked(model: ModelInfo) -> str:
    """How the model is asked, for the plan."""
    if model.native:
        return "in a chat, by priorkit's own loops"
    from priorkit.inference.backends.loading import prompts_of

    if prompts_of(model)[0].chat_template:
        return "in a chat, by transformers' generate"
    return "in plain text, as it has no chat template, by transformers' generate"


def _check_entities(settings: DiagnoseSettings, entities: EntityImages | None) -> None:
    if entities is not None and len(entities.entities) < _LEAST_ENTITIES:
        raise InputError(
            f"one entity, '{entities.entities[0]}': its name can be compared with no other",
            where=settings.images,
            hint="diagnose needs images of several entities",
        )


def _text_tower(inputs: Inputs) -> bool:
    """Whether there is an encoder with a text tower."""
    from priorkit.inference.images.encoders import check_any_encoder

    item = inputs.optional("encoder")
    return item is not None and check_any_encoder(item.path)[1]


def _check_measures(settings: DiagnoseSettings, model: VerdictModel) -> None:
    """Refuse a verdict model that needs evidence which the options do not give.

    Raises:
        InputError: naming every option that is missing.
    """
    problems = Problems(InputError)
    needs = {
        "--encoder": (settings.encoder, ("rank_e",)),
        "--facts": (settings.facts, ("fact_margin", "fact_accuracy")),
        "--captions": (settings.captions, ("captions",)),
        "--instructions": (settings.instructions, ("instructions",)),
    }
    for flag, (given, measures) in needs.items():
        needed = [name for name in measures if name in model.measures]
        if needed and not given:
            problems.add(
                f"was fitted with {', '.join(needed)}, which {flag} gives",
                where=str(settings.verdict_model),
                hint=f"give {flag}, or fit a model without it",
            )
    problems.raise_if_any()


def named_controls(path: Path, entities: Sequence[str] | None, given: str) -> list[str]:
    """Names of the controls in the spelling of the images'.

    Args:
        path: the file of names.
        entities: names of the images; None where they are not known yet.
        given: the path as the user gave it.

    Raises:
        InputError: a name is of no entity.
    """
    names = read_names(path)
    if entities is None:
        return names
    known = {folded_name(name): name for name in entities}
    problems = Problems(InputError)
    for name in names:
        if folded_name(name) not in known:
            problems.add(
                f"'{name}' is no entity of the images",
                where=given,
                hint=nearest(name, entities, only_close=True),
            )
    problems.raise_if_any()
    return [known[folded_name(name)] for name in dict.fromkeys(names)]
