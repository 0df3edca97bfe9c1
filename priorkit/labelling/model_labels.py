"""Labels by a language model: of all segments, or of a sample that a linear labeller learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from priorkit.core.work import Work
from priorkit.data.text.segments import SegmentStore
from priorkit.labelling import distillation, label
from priorkit.labelling.comparison import compare_ways
from priorkit.labelling.parallel_linear import label_with_linear
from priorkit.labelling.plan import LABELLER, LabelPlan
from priorkit.labelling.segmentation import segment_images
from priorkit.labelling.settings import LabelCorpusSettings


def label_with_model(
    settings: LabelCorpusSettings,
    work: Work[LabelPlan],
    sources: Mapping[str, Path],
    store: SegmentStore,
    count: int,
) -> label.SegmentLabels:
    """Label all segments with the language model, or a sample and the rest with a linear labeller.

    Args:
        settings: of the run.
        work: gets the metrics; its state keeps the scores.
        sources: paths by name.
        store: the segments.
        count: their number.
    """
    from priorkit.labelling.language_models.loading import load_language_model, read_calibration

    labeller, thresholds = work.plan.payload, label.decision_thresholds(settings)
    sample = distillation.draw_sample(settings, count) if settings.distil_labeller else None
    numbers = np.arange(count) if sample is None else sample.numbers
    scored = label.score_resumably(
        lambda: load_language_model(settings, labeller, work.state),
        store,
        numbers,
        work.state / "scores.f32",
        len(thresholds),
        segment_images(settings, sources, store) if labeller.sees_images else None,
    )
    work.metrics["truncated"] = label.report_truncated(scored)
    if settings.by == "generation":
        work.metrics["unparsed"] = label.report_unparsed(scored)
    if settings.calibrate:
        work.metrics["leaning"] = read_calibration(work.state)
    present = scored.scores >= thresholds
    if settings.compare:
        among = np.ones(len(numbers), dtype=np.bool_) if sample is None else sample.is_held_out
        rows = compare_ways(settings, labeller, store, numbers[among], present[among], work)
        work.metrics["agreement_of_ways"] = _by_label(rows)
    if sample is None:
        by_model = np.ones(count, dtype=np.bool_)
        return label.SegmentLabels(scored.scores, present, by_model, {"llm": thresholds})
    agreement = distillation.distil(settings, store, sample, present, labeller.tokenizer, work.path)
    work.metrics["agreement"] = _by_label(agreement)
    labels = label_with_linear(settings, work.path / LABELLER, store, count)
    labels.scores[numbers], labels.present[numbers], labels.by_model[numbers] = scored.scores, present, True
    labels.thresholds = {"llm": thresholds, **labels.thresholds}
    return labels


def _by_label(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["label"]: {name: value for name, value in row.items() if name != "label"} for row in rows}
