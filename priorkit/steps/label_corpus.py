"""Label text by concept, segment by segment, with a language model or a fast labeller learnt from one.

Conversations are labelled by the same means, each as a whole: whether perception or reasoning is what it trains.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from priorkit.core import runtime
from priorkit.core.artifact import write_text
from priorkit.core.errors import InputError, Problems, UsageError, nearest
from priorkit.core.inputs import Input
from priorkit.core.progress import track
from priorkit.core.settings import RuntimeSettings, StepSettings, argument, option, reject_limit_option
from priorkit.core.step import Step
from priorkit.core.values import Count, Named, NamedNumbers
from priorkit.core.work import Plan, Work
from priorkit.data.io.rejects import Rejects
from priorkit.data.text.concepts import ABILITY_LABELS, CONCEPT_LABELS, LabelSet
from priorkit.data.text.documents import check_text_source, column_option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from priorkit.data.text.segments import SegmentStore
    from priorkit.inference.model_adapter import Checked
    from priorkit.labelling.label import Labelled
    from priorkit.labelling.language_model import LanguageModelLabeller
    from priorkit.labelling.linear import LinearLabeller
    from priorkit.labelling.prompt import LabelPrompt

logger = logging.getLogger(__name__)

ALL_LABELS = "all"
"""Stands for every label in ``--threshold``."""


class LabelCorpusSettings(RuntimeSettings, StepSettings):
    """Options of ``priorkit label-corpus``."""

    step: ClassVar[str] = "label-corpus"
    kind: ClassVar[str] = "text"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit label-corpus facts=world/text/facts.jsonl code=world/text/code.jsonl --labeller llm "
        "--segment-tokens 128 --out labelled",
        "priorkit label-corpus facts=world/text/facts.jsonl code=world/text/code.jsonl --labeller llm "
        "--segment-tokens 128 --distil-labeller --sample 200 --out labelled-fast",
    )

    sources: Named = argument(
        "Text sources: .jsonl (also .gz, .zst), .parquet, .txt, a folder of them, or a hub dataset id; with "
        "--labels abilities conversations in LLaVA's format.",
        accepts=("world", "text"),
        metavar="NAME=SOURCE",
        hub="dataset",
    )
    labels: Literal["concepts", "abilities"] = option(
        "concepts",
        "What is asked: six concepts of segments of text; or of conversations whether they train perception, "
        "reasoning or neither, written back with the key 'ability', a folder for each.",
    )
    labeller: str = option(
        ...,
        "Who labels: a language model, or what an earlier --distil-labeller left (its folder or artifact).",
        accepts=("llm", "adapter", "text", "instructions"),
        hub="model",
        metavar="MODEL",
    )
    distil_labeller: bool = option(
        False, "Let the model label a sample only, and a linear labeller learnt from it the rest."
    )
    sample: Count = option(
        2000, "Segments that the model labels for --distil-labeller.", metavar="N", ge=20, advanced=True
    )
    held_out: float = option(
        0.2, "Share of the sample on which the linear labeller is compared with the model.", gt=0, lt=1
    )
    segment_tokens: Count = option(1024, "Length of a segment in tokens.", metavar="N", ge=1)
    tokenizer: str | None = option(
        None,
        "Tokenizer whose tokens are counted; the labeller's own where not given.",
        accepts=("tokenizer", "llm", "corpus", "mllm"),
        hub="model",
    )
    threshold: NamedNumbers = option(
        {},
        "Score from which on a segment has a label; all=X sets every label. A model's are 0.5, a linear "
        "labeller brings its own.",
        metavar="LABEL=X",
    )
    prompt: str | None = option(
        None,
        "What a model is asked, a TOML file after the shipped labelling/labelling.toml (abilities: "
        "labelling/abilities.toml).",
        accepts=("text",),
        metavar="FILE",
    )
    form: Literal["auto", "chat", "plain"] = option(
        "auto",
        "Chat template or plain text; auto: chat where the model's tokenizer has a template.",
        advanced=True,
    )
    calibrate: bool = option(
        False,
        "Take off the model's leaning to yes or no, measured on texts that say nothing.",
        advanced=True,
    )
    max_documents: Count = option(0, "Documents read of each source, 0 for all.", metavar="N", advanced=True)
    batch_size: int = option(8, "Segments per forward pass of a model.", ge=1)
    text_column: str = column_option()
    reject_limit: float = reject_limit_option("rows")

    @property
    def known(self) -> LabelSet:
        """The labels that are asked for."""
        return CONCEPT_LABELS if self.labels == "concepts" else ABILITY_LABELS


@dataclass(frozen=True)
class _Job:
    """What ``plan`` found.

    Attributes:
        folder: the labeller's.
        tokenizer: folder of the tokenizer whose tokens are counted.
        model: the language model; None for a linear labeller.
        prompt: what it is asked, with the form.
        form: ``chat``, ``plain``; empty for a linear labeller.
    """

    folder: Path
    tokenizer: Path
    model: Checked | None
    prompt: LabelPrompt | None
    form: Literal["chat", "plain"] | None


def plan(settings: LabelCorpusSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check sources, thresholds, prompt and labeller from headers."""
    from priorkit.data.conversations.conversation import check_conversations

    if runtime.world_size() > 1:
        raise UsageError(
            "label-corpus runs in one process", hint="label parts of the sources in runs of their own"
        )
    _check_names(settings)
    if settings.labels == "abilities":
        _check_whole(settings)
    problems = Problems(InputError)
    facts: list[tuple[str, str]] = []
    size = 0
    for name in settings.sources:
        try:
            path = inputs[f"sources.{name}"].path
            if settings.labels == "abilities":
                files = check_conversations(path)
            else:
                files = check_text_source(path, settings.text_column)
            length = sum(file.stat().st_size for file in files)
            size += length
            facts.append((name, f"{len(files)} files, {length / 1e6:.1f} MB"))
        except InputError as error:
            problems.extend(error)
    job: _Job | None = None
    try:
        job = _plan_labeller(settings, inputs)
    except InputError as error:
        problems.extend(error)
    problems.raise_if_any()
    assert job is not None
    who = "a linear labeller" if job.model is None else f"{job.model.kind}, asked in {job.form} form"
    if settings.distil_labeller:
        who += f" for {settings.sample:,} segments, a linear labeller learnt from it for the rest"
    facts += [("labeller", who), ("labels", ", ".join(settings.known.labels))]
    if settings.labels == "abilities":
        return Plan(facts, disk_bytes=4 * size, payload=job, kind="instructions")
    facts += [("segments of", f"{settings.segment_tokens:,} tokens")]
    return Plan(facts, disk_bytes=4 * size, payload=job)


def _check_whole(settings: LabelCorpusSettings) -> None:
    """What is about segments of text has no meaning for conversations."""
    problems = Problems(UsageError)
    for name in ("segment_tokens", "text_column"):
        if getattr(settings, name) != LabelCorpusSettings.model_fields[name].default:
            problems.add(
                "conversations are labelled whole, by their key 'conversations'",
                where="--" + name.replace("_", "-"),
                hint="leave it out",
            )
    problems.raise_if_any()


def _check_names(settings: LabelCorpusSettings) -> None:
    problems = Problems(UsageError)
    for name in settings.sources:
        if not re.fullmatch(r"\w[\w.-]*", name):
            problems.add(
                f"'{name}' cannot name a file", where="NAME=SOURCE", hint="use letters, digits, '-', '_', '.'"
            )
    for name, value in settings.threshold.items():
        known = (*settings.known.labels, ALL_LABELS)
        if name in settings.known.combinations:
            problems.add(
                f"'{name}' follows from {', '.join(settings.known.combinations[name])}",
                where="--threshold",
                hint="set the thresholds of those",
            )
        elif name not in known:
            problems.add(f"no label is called '{name}'", where="--threshold", hint=nearest(name, known))
        elif not 0 <= value <= 1:
            problems.add(f"a score lies between 0 and 1, got {value}", where=f"--threshold {name}")
    problems.raise_if_any()


def _plan_labeller(settings: LabelCorpusSettings, inputs: Mapping[str, Input]) -> _Job:
    from priorkit.labelling.linear import check_linear_labeller, is_linear_labeller

    folder = inputs["labeller"].path
    if is_linear_labeller(folder / LABELLER):
        folder = folder / LABELLER
    tokenizer = inputs["tokenizer"].path if "tokenizer" in inputs else folder
    if is_linear_labeller(folder):
        unused = {"--distil-labeller": settings.distil_labeller, "--prompt": settings.prompt}
        unused |= {"--calibrate": settings.calibrate, "--form": settings.form != "auto"}
        problems = Problems(UsageError)
        for flag, given in unused.items():
            if given:
                problems.add("this labeller is a linear one, which is asked nothing", where=flag)
        problems.raise_if_any()
        check_linear_labeller(folder, settings.known)
        _check_tokenizer(tokenizer)
        return _Job(folder, tokenizer, None, None, None)
    from priorkit.inference.model_adapter import check_model
    from priorkit.labelling.prompt import read_prompts

    checked = check_model(folder)
    if checked.kind != "llm":
        raise InputError(
            f"expected a language model, got a model of kind '{checked.kind}'", where=settings.labeller
        )
    if "tokenizer" not in inputs:
        tokenizer = checked.folder
    _check_tokenizer(tokenizer)
    _check_tokenizer(checked.folder)
    prompts = read_prompts(inputs["prompt"].path if "prompt" in inputs else None, settings.known)
    form = settings.form
    if form == "auto":
        form = "chat" if _has_chat_template(checked.folder) else "plain"
    return _Job(folder, tokenizer, checked, prompts[form], form)


def _check_tokenizer(folder: Path) -> None:
    if not (folder / "tokenizer.json").is_file():
        raise InputError(
            "no tokenizer.json here", where=str(folder), hint="name a fast tokenizer with --tokenizer"
        )


def _has_chat_template(folder: Path) -> bool:
    from priorkit.models.folder import read_json

    if (folder / "chat_template.jinja").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(read_json(config).get("chat_template"))


LABELLER = "labeller"
"""Folder of an artifact that holds the linear labeller it was made with."""

CUTS = "cuts.json"
"""Counts and rejected rows, noted when the sources were cut."""


def execute(settings: LabelCorpusSettings, work: Work) -> None:
    """Cut, score, label; write the text with its labels, the proportions, and the labeller that was learnt."""
    from priorkit.data.text.segments import SegmentStore
    from priorkit.labelling.label import label_by_linear
    from priorkit.labelling.linear import load_linear_labeller
    from priorkit.labelling.output import write_conversations, write_figures, write_text_of_sources
    from priorkit.labelling.parallel_linear import shared
    from priorkit.models.language.tokenizer import load_tokenizer

    job: _Job = work.plan.payload
    # A linear labeller is fast enough to begin anew; a model's run keeps its segments and scores.
    keeps = job.model is not None
    if not (keeps and work.state.exists()):
        folder = work.scratch / "cut"
        folder.mkdir()
        _cut(settings, work, load_tokenizer(job.tokenizer), folder)
        if keeps:
            folder.replace(work.state)
    folder = work.state if keeps else work.scratch / "cut"
    store = SegmentStore(folder, len(settings.sources))
    cuts = json.loads((folder / CUTS).read_text(encoding="utf-8"))
    if keeps:
        labelled, thresholds = _label_by_model(settings, work, job, store, cuts["segments"])
    else:
        linear = load_linear_labeller(job.folder)
        own = _thresholds(settings, linear)
        with shared(linear, job.folder, settings.workers) as several:
            labelled = label_by_linear(several, store, cuts["segments"], own)
        thresholds = {"linear": own}
    rejects = Rejects(settings.reject_limit)
    rejects.rows, rejects.seen = cuts["rejected"], cuts["seen"]
    if settings.labels == "abilities":
        write_conversations(settings, work, store, cuts, labelled, rejects)
    else:
        write_text_of_sources(settings, work, store, cuts, labelled)
    rejects.write(work.path)
    write_figures(settings, work, store, cuts, labelled, thresholds, rejects)


def _cut(settings: LabelCorpusSettings, work: Work, tokenizer: Any, folder: Path) -> None:
    """Cut all sources into segments, a file each, and note the counts and the rejected rows."""
    from priorkit.data.conversations.labelled_conversations import conversation_records
    from priorkit.data.text.segments import SegmentStore, read_records, segments_of

    store = SegmentStore(folder, len(settings.sources))
    rejects = Rejects(settings.reject_limit)
    documents: dict[str, int] = {}
    counts: dict[str, int] = {}
    for number, name in enumerate(settings.sources):
        documents[name] = 0

        def records(name: str = name) -> Iterator[Any]:
            path = work.inputs[f"sources.{name}"].path
            if settings.labels == "abilities":
                found = conversation_records(path, rejects)
            else:
                found = read_records(path, rejects, settings.text_column)
            for record in itertools.islice(found, settings.max_documents or None):
                documents[name] += 1
                yield record

        tracked = track(records(), f"cut {name}", total=0, unit="documents")
        length = sys.maxsize if settings.labels == "abilities" else settings.segment_tokens
        counts[name] = store.write(number, segments_of(tracked, name, tokenizer, length))
    rejects.judge()
    cuts = {"segments": sum(counts.values()), "counts": counts, "documents": documents}
    cuts |= {"seen": rejects.seen, "rejected": rejects.rows}
    (folder / CUTS).write_text(json.dumps(cuts), encoding="utf-8")


def _thresholds(settings: LabelCorpusSettings, linear: LinearLabeller | None = None) -> NDArray[np.float64]:
    """The score from which on a segment has a label, float64 ``[labels]``."""
    import numpy as np

    own = np.full(len(settings.known.labels), 0.5) if linear is None else linear.thresholds.copy()
    given = dict(settings.threshold)
    own[:] = given.pop(ALL_LABELS, own)
    for name, value in given.items():
        own[settings.known.labels.index(name)] = value
    return own


def _label_by_model(
    settings: LabelCorpusSettings, work: Work, job: _Job, store: SegmentStore, count: int
) -> tuple[Labelled, dict[str, NDArray[np.float64]]]:
    """Let the model label all segments, or a sample and a linear labeller the rest."""
    import numpy as np

    from priorkit.data.shuffling import permute
    from priorkit.labelling.label import Labelled, label_by_linear, score_by_model
    from priorkit.labelling.parallel_linear import shared

    own = _thresholds(settings)
    distil = settings.distil_labeller
    # The sample in an order of its own, so that any part of it is a sample too.
    sample = permute(np.arange(min(settings.sample, count)), count, settings.seed) if distil else None
    numbers = np.arange(count) if sample is None else np.sort(sample)
    scores, truncated = score_by_model(
        lambda: _load_model(settings, job, work.state), store, numbers, work.state / "scores.f32",
        settings.batch_size, len(own),
    )  # fmt: skip
    work.metrics["truncated"] = truncated
    if truncated:
        logger.info(f"  {truncated:,} segments exceed the model's context; it did not see their middle")
    if settings.calibrate:
        work.metrics["leaning"] = json.loads((work.state / LEANING).read_text(encoding="utf-8"))
    present = scores >= own
    if sample is None:
        return Labelled(scores, present, np.ones(count, dtype=np.bool_)), {"llm": own}
    linear = _distil(settings, work, job, store, sample, present)
    linear_own = _thresholds(settings, linear)
    with shared(linear, work.path / LABELLER, settings.workers) as several:
        found = label_by_linear(several, store, count, linear_own)
    found.scores[numbers], found.present[numbers], found.by_model[numbers] = scores, present, True
    return found, {"llm": own, "linear": linear_own}


LEANING = "leaning.json"


def _load_model(settings: LabelCorpusSettings, job: _Job, state: Path) -> LanguageModelLabeller:
    import torch

    from priorkit.inference.model_adapter import load_subject
    from priorkit.labelling.language_model import LanguageModelLabeller

    started = runtime.start_portable(settings.seed, settings.device, settings.precision)
    if job.model is None or job.prompt is None or job.form is None:
        raise TypeError("no language model was planned")
    # Only read, never trained: its weights can be as narrow as the arithmetic.
    dtype = torch.bfloat16 if started.precision == "bf16" else torch.float32
    subject = load_subject(job.model, started.device, dtype)
    labeller = LanguageModelLabeller(subject, job.prompt, job.form)
    if settings.calibrate:
        leaning = dict(zip(settings.known.labels, labeller.calibrate().tolist(), strict=True))
        write_text(state / LEANING, json.dumps(leaning))
    return labeller


def _distil(
    settings: LabelCorpusSettings,
    work: Work,
    job: _Job,
    store: SegmentStore,
    sample: NDArray[np.int64],
    present: NDArray[np.bool_],
) -> LinearLabeller:
    """Learn a linear labeller from the sample but for its held-out part, and compare the two on that.

    Args:
        sample: numbers of the segments in random order.
        present: what the model said of them, in ascending order of their numbers.
    """
    import numpy as np

    from priorkit.data.io.tables import write_table
    from priorkit.labelling.label import compare_labels
    from priorkit.labelling.linear import fit_linear_labeller
    from priorkit.models.language.tokenizer import load_tokenizer

    held = max(1, round(settings.held_out * len(sample)))
    numbers = np.sort(sample)
    is_held = np.isin(numbers, sample[len(sample) - held :])
    texts = list(store.chosen(numbers))
    learnt = [text for text, own in zip(texts, is_held, strict=True) if not own]
    linear = fit_linear_labeller(learnt, present[~is_held], settings.seed, settings.known.labels)
    scores = linear.score([text for text, own in zip(texts, is_held, strict=True) if own])
    rows = compare_labels(present[is_held], scores >= _thresholds(settings, linear), settings.known)
    write_table({name: [row[name] for row in rows] for name in rows[0]}, work.path / "agreement.parquet")
    linear.save(work.path / LABELLER, {"learnt_from": len(learnt), "agreement": rows})
    load_tokenizer(job.tokenizer).save_pretrained(work.path / LABELLER)
    work.metrics["agreement"] = {row["label"]: {k: v for k, v in row.items() if k != "label"} for row in rows}
    logger.info(f"  agreement with the model on {held:,} held-out segments:")
    for row in rows:
        measures = ("precision", "recall", "f1", "kappa")
        values = ", ".join(
            f"{key} {'-' if row[key] is None else format(row[key], '.2f')}" for key in measures
        )
        logger.info(f"    {row['label']:<20} {row['given']:,} given, {values}")
    return linear


STEP = Step(LabelCorpusSettings, plan, execute)
run = STEP.run
