"""Label text by concept, segment by segment, with a language model or a linear labeller distilled from one.

Conversations are labelled the same way, each as one segment, by whether they train perception or reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError, Problems
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.data.text.segments import SegmentStore
from priorkit.labelling import output
from priorkit.labelling.model_labels import label_with_model
from priorkit.labelling.parallel_linear import label_with_linear
from priorkit.labelling.plan import LabelPlan, check_sources, check_usage, plan_labeller
from priorkit.labelling.segmentation import cut_sources, read_segmentation
from priorkit.labelling.settings import LabelCorpusSettings


def plan(settings: LabelCorpusSettings, inputs: Inputs) -> Plan[LabelPlan]:
    """Check sources, thresholds, prompt and labeller from headers."""
    check_usage(settings)
    problems = Problems(InputError)
    facts, size = check_sources(settings, _sources(inputs), problems)
    tokenizer, prompt = inputs.optional("tokenizer"), inputs.optional("prompt")
    labeller: LabelPlan | None = None
    with problems.collecting():
        from priorkit.architectures.registry import ARCHITECTURES, architecture

        labeller = plan_labeller(
            settings,
            inputs.one("labeller").path,
            tokenizer.path if tokenizer else None,
            prompt.path if prompt else None,
            [architecture(name) for name in ARCHITECTURES],
        )
    problems.raise_if_any()
    assert labeller is not None
    facts += [("labeller", labeller.describe(settings)), ("labels", ", ".join(settings.label_set.labels))]
    if settings.labels == "abilities":
        return Plan(facts, disk_bytes=4 * size, payload=labeller, kind="instructions")
    facts += [("segments of", f"{settings.segment_tokens:,} tokens")]
    return Plan(facts, disk_bytes=4 * size, payload=labeller)


def execute(settings: LabelCorpusSettings, work: Work[LabelPlan]) -> None:
    """Cut the sources into segments, score and label them, write the text with its labels and their shares."""
    from priorkit.models.language.tokenizer import load_tokenizer

    labeller, sources = work.plan.payload, _sources(work.inputs)
    # A language model's run keeps its segments and scores, so that it resumes; a linear labeller starts over.
    resumable = labeller.model is not None
    if not (resumable and work.state.exists()):
        folder = work.scratch / "cut"
        folder.mkdir()
        counting = load_tokenizer(labeller.tokenizer)
        cut_sources(settings, sources, counting, folder, labeller.sees_images)
        if resumable:
            folder.replace(work.state)
    folder = work.state if resumable else work.scratch / "cut"
    store, segmentation = SegmentStore(folder, len(sources)), read_segmentation(folder)
    if resumable:
        labels = label_with_model(settings, work, sources, store, segmentation.segments)
    else:
        labels = label_with_linear(settings, labeller.folder, store, segmentation.segments)
    rejects = segmentation.rejects(settings.reject_limit)
    if settings.labels == "abilities":
        folder = work.path / "conversations"
        output.write_conversations(labels, segmentation, store, sources, folder, rejects, settings.layout)
    else:
        output.write_text(labels, segmentation, store, work.path / "text")
    rejects.write(work.path)
    shares = output.label_shares(labels, segmentation, store, settings.label_set)
    output.write_tables(settings, labels, shares, work.path)
    _draw(settings, shares, work.path / "proportions.png")
    work.metrics.update(
        segments=segmentation.segments,
        tokens=sum(row["tokens"] for row in shares),
        by_model=int(labels.by_model.sum()),
        rejected=len(rejects),
        shares=output.token_shares(shares, settings.label_set),
    )


def _sources(inputs: Inputs) -> dict[str, Path]:
    return {name: source.path for name, source in inputs.named("sources").items()}


def _draw(settings: LabelCorpusSettings, shares: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot the share of tokens of each label by source."""
    from priorkit.report.figures import to_png
    from priorkit.report.plots.runs import label_proportions

    columns = output.table_columns(settings.label_set)
    rows = [[row[name] for name in columns] for row in shares]
    path.write_bytes(to_png(label_proportions(list(settings.sources), columns, rows, "tokens")))


STEP = Step(LabelCorpusSettings, plan, execute)
run = STEP.run
