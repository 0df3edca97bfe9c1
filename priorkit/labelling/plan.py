"""Planning ``label-corpus`` from headers: sources, thresholds, prompt and labeller."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from priorkit.core.errors import InputError, Problems, UsageError, nearest
from priorkit.core.options.specs import refuse_changed
from priorkit.core.process import runtime
from priorkit.data.text.documents import check_text_source
from priorkit.labelling.settings import ALL_LABELS, LabelCorpusSettings

if TYPE_CHECKING:
    from priorkit.inference.model_info import ModelInfo, MultimodalFormat
    from priorkit.labelling.language_models.prompts import Prompt

LABELLER = "labeller"
"""Folder of an artifact that holds the linear labeller it was made with."""

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class LabelPlan:
    """A checked labelling run.

    Attributes:
        folder: folder of the labeller.
        tokenizer: folder of the tokenizer that counts the tokens of a segment.
        model: the language model; None for a linear labeller.
        prompt: the language model's prompt; None for a linear labeller.
        form: form of the prompt; None for a linear labeller.
        other_prompt: the prompt of the other way of ``--by``, for ``--compare``.
    """

    folder: Path
    tokenizer: Path
    model: ModelInfo | None = None
    prompt: Prompt | None = None
    form: Literal["chat", "plain"] | None = None
    other_prompt: Prompt | None = None

    @property
    def sees_images(self) -> bool:
        """Whether the labeller is given the images of conversations."""
        return self.model is not None and self.model.kind == "mllm"

    def describe(self, settings: LabelCorpusSettings) -> str:
        """The labeller in words."""
        if self.model is None:
            return "a linear labeller"
        text = f"{self.model.kind} by {settings.by}, {self.form} prompt"
        if settings.distil_labeller:
            text += f" for {settings.sample:,} segments, a linear labeller trained on them for the rest"
        return text


def check_usage(settings: LabelCorpusSettings) -> None:
    """Check options against one another.

    Raises:
        UsageError: an option that does not apply, or a name that cannot be used; all of them are listed.
    """
    if runtime.world_size() > 1:
        raise UsageError("label-corpus runs in one process", hint="split the sources over several runs")
    problems = Problems(UsageError)
    if settings.labels == "abilities":
        refuse_changed(
            settings,
            ("segment_tokens", "text_column"),
            problems,
            "no effect on conversations, which are labelled as a whole from their key 'conversations'",
            hint="leave it out",
        )
    else:
        refuse_changed(
            settings,
            ("image_column", "images"),
            problems,
            "no effect on text, which has no images",
            hint="leave it out",
        )
    if settings.by == "generation":
        refuse_changed(
            settings, ("threshold", "calibrate"), problems, "no effect with --by generation: answers have no scores",
            hint="leave it out, or use --by likelihood",
        )  # fmt: skip
    elif not settings.compare:
        refuse_changed(
            settings, ("max_new_tokens",), problems, "no effect with --by likelihood", hint="leave it out"
        )
    for name in settings.sources:
        if not re.fullmatch(r"\w[\w.-]*", name):
            problems.add(
                f"'{name}' cannot name a file", where="NAME=SOURCE", hint="use letters, digits, '-', '_', '.'"
            )
    _check_thresholds(settings, problems)
    problems.raise_if_any()


def _check_thresholds(settings: LabelCorpusSettings, problems: Problems) -> None:
    labels = settings.label_set
    names = (*labels.labels, ALL_LABELS)
    for name, value in settings.threshold.items():
        if name in labels.combinations:
            problems.add(
                f"'{name}' follows from {', '.join(labels.combinations[name])}",
                where="--threshold",
                hint="set their thresholds instead",
            )
        elif name not in names:
            problems.add(f"unknown label '{name}'", where="--threshold", hint=nearest(name, names))
        elif not 0 <= value <= 1:
            problems.add(f"expected a score between 0 and 1, got {value}", where=f"--threshold {name}")


def check_sources(
    settings: LabelCorpusSettings, sources: Mapping[str, Path], problems: Problems
) -> tuple[Facts, int]:
    """Check the sources by their headers.

    Returns:
        What ``--check`` prints of each, and their size in bytes.
    """
    from priorkit.data.columns import check_image_folders
    from priorkit.data.conversations.conversation import check_conversations

    facts: Facts = []
    size = 0
    with problems.collecting():
        check_image_folders(settings, sources)
    for name, path in sources.items():
        with problems.collecting():
            if settings.labels == "abilities":
                files = check_conversations(path, settings.layout(name))
            else:
                files = check_text_source(path, settings.text_column)
            length = sum(file.stat().st_size for file in files)
            size += length
            facts.append((name, f"{len(files)} files, {length / 1e6:.1f} MB"))
    return facts, size


def plan_labeller(
    settings: LabelCorpusSettings,
    labeller: Path,
    tokenizer: Path | None,
    prompt: Path | None,
    formats: Sequence[MultimodalFormat],
) -> LabelPlan:
    """Check the labeller from its headers.

    Args:
        settings: the options.
        labeller: folder of a language model, a linear labeller, or an artifact that holds one.
        tokenizer: folder of the tokenizer; the labeller's own where None.
        prompt: the prompt file; the shipped one where None.
        formats: those of multimodal models.

    Raises:
        UsageError: options that have no effect with a linear labeller.
        InputError: the labeller, the tokenizer or the prompt file cannot be used.
    """
    from priorkit.inference.model_info import check_language_model, check_model
    from priorkit.labelling.language_models.prompts import read_prompts
    from priorkit.labelling.linear import is_linear_labeller

    folder = labeller / LABELLER if is_linear_labeller(labeller / LABELLER) else labeller
    if is_linear_labeller(folder):
        return _plan_linear(settings, folder, tokenizer or folder)
    if settings.labels == "abilities" and settings.by == "generation":
        checked = check_model(folder, formats)
        if checked.kind == "encoder":
            raise InputError("an encoder cannot label", where=f"--labeller {folder}")
        if checked.kind == "mllm" and settings.compare:
            raise UsageError("the likelihood form takes no images", where="--compare", hint="leave it out")
    else:
        checked = check_language_model(folder, "--labeller")
    tokenizer = tokenizer or checked.folder
    _check_tokenizer(tokenizer)
    _check_tokenizer(checked.folder)
    prompts = read_prompts(prompt, settings.by, settings.label_set)
    other = read_prompts(None, settings.other_way.by, settings.label_set) if settings.compare else None
    form = settings.form
    if form == "auto":
        form = "chat" if _has_chat_template(checked.folder) else "plain"
    return LabelPlan(folder, tokenizer, checked, prompts[form], form, other[form] if other else None)


def _plan_linear(settings: LabelCorpusSettings, folder: Path, tokenizer: Path) -> LabelPlan:
    from priorkit.labelling.linear import check_linear_labeller

    problems = Problems(UsageError)
    options = ("distil_labeller", "prompt", "calibrate", "form", "by", "max_new_tokens", "compare")
    refuse_changed(settings, options, problems, "no effect with a linear labeller", hint="leave it out")
    problems.raise_if_any()
    check_linear_labeller(folder, settings.label_set)
    _check_tokenizer(tokenizer)
    return LabelPlan(folder, tokenizer)


def _check_tokenizer(folder: Path) -> None:
    if not (folder / "tokenizer.json").is_file():
        raise InputError(
            "no tokenizer.json", where=str(folder), hint="name a fast tokenizer with --tokenizer"
        )


def _has_chat_template(folder: Path) -> bool:
    from priorkit.models.folder import read_json

    if (folder / "chat_template.jinja").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(read_json(config).get("chat_template"))
