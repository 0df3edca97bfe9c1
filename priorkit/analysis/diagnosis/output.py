"""The files of a diagnosis: a row per entity, results of all entities, values of images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from priorkit.analysis.diagnosis.collecting import Readings
from priorkit.analysis.diagnosis.evidence import Evidence
from priorkit.analysis.diagnosis.measures import MEASURES, UNDECIDED, VERDICTS
from priorkit.analysis.diagnosis.stored import RESULTS
from priorkit.analysis.diagnosis.verdicts import Verdicts
from priorkit.core.interval import Interval, finite
from priorkit.data.io.tables import write_table
from priorkit.scoring.diagnosis.knowledge import correct_given_attempted, knowledge_gap
from priorkit.scoring.diagnosis.readout import crossing_layer, mean_margin, readout_gap
from priorkit.scoring.statistics.intervals import bootstrap_mean

TENSORS = {
    "right": "[images] float64, 1 where the own name is the most probable of those compared",
    "encoder": "[images] float64, reciprocal rank of the own centroid in what the projector reads",
    "projector": "[images] float64, the same in the projected tokens",
    "layers": "[images, layers] float64, the same at the last position of the question",
    "layer_numbers": "[layers] int64, numbers of these hidden states; 0 is the embeddings",
    "arbitration_margin": "[images, layers] float64, logit of the own name minus that of the name expected blind",
}
"""What ``scores.safetensors`` holds, images in the order of ``images.parquet``."""

_MOST_CONFUSED = 3


def write_table_of_entities(
    folder: Path,
    evidence: Evidence,
    verdicts: Verdicts,
    controls: NDArray[np.bool_],
    confused: Sequence[Sequence[str]],
    unwritable: Sequence[str],
) -> None:
    """Write ``table.parquet``, entities whose names cannot be written last."""
    columns: dict[str, list[Any]] = {
        "entity": list(evidence.entities),
        "verdict": list(verdicts.verdict),
        "probability": [finite(float(value)) for value in verdicts.probability],
        "accuracy": evidence.accuracy.value.tolist(),
        "accuracy_low": evidence.accuracy.low.tolist(),
        "accuracy_high": evidence.accuracy.high.tolist(),
        **evidence.columns(),
        "right": evidence.right.tolist(),
        "control": controls.tolist(),
        "works_probability": verdicts.works.tolist(),
        "confused_with": [list(names) for names in confused],
        "name_can_be_written": [True] * len(evidence.entities),
    }
    for part, values in verdicts.adjusted.items():
        columns[f"{part}_adjusted_p"] = [finite(float(value)) for value in values]
    for part, values in verdicts.faults.items():
        columns[f"{part}_fault"] = values.tolist()
    if verdicts.weak_parts:
        columns["weak_parts"] = [", ".join(parts) for parts in verdicts.weak_parts]
    empty: dict[str, Any] = {
        "verdict": UNDECIDED, "images": 0, "right": 0, "control": False, "confused_with": [],
        "name_can_be_written": False, "weak_parts": "",
    }  # fmt: skip
    for name in unwritable:
        for column, values in columns.items():
            values.append(name if column == "entity" else empty.get(column))
    write_table(columns, folder / "table.parquet")


def write_images(folder: Path, readings: Readings) -> None:
    """Write ``images.parquet`` and ``scores.safetensors``."""
    entities, naming = readings.entities, readings.naming
    names = entities.entities
    columns = {
        "path": [ref.name for ref in entities.images],
        "entity": entities.shown,
        "taken": [names[number] for number in naming.taken],
        "taken_blind": [names[number] for number in naming.blind_taken],
        "written": naming.generated,
        "said": [names[number] if number >= 0 else None for number in naming.said],
    }
    write_table(columns, folder / "images.parquet")
    tensors = {
        "right": readings.right,
        "encoder": readings.encoder,
        "projector": readings.projector,
        "layers": np.ascontiguousarray(readings.layers),
        "layer_numbers": np.array(readings.numbers, dtype=np.int64),
        "arbitration_margin": np.ascontiguousarray(readings.margin),
    }
    # No metadata: safetensors writes several entries in random order.
    save_file(tensors, folder / "scores.safetensors")


def confusions(readings: Readings) -> list[list[str]]:
    """For each entity the wrong names most often taken for it, by likelihood."""
    names = readings.entities.entities
    counted: list[Counter[int]] = [Counter() for _ in names]
    for entity, taken in zip(readings.entities.entity_of, readings.naming.taken.tolist(), strict=True):
        if taken != entity:
            counted[entity][taken] += 1
    return [
        [
            names[other]
            for other, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_CONFUSED]
        ]
        for counts in counted
    ]


def overall_results(
    readings: Readings, evidence: Evidence, verdicts: Verdicts, *, seed: int, resamples: int
) -> dict[str, Any]:
    """Measures over all entities, with 95 % intervals that resample entities."""
    shown = readings.entities.shown
    bootstrap: dict[str, Any] = {"seed": seed, "resamples": resamples}
    said_right = readings.naming.said == np.array(readings.entities.entity_of)
    means = {"accuracy": bootstrap_mean(evidence.accuracy.value, **bootstrap)}
    for name, estimates in evidence.measures.items():
        known = estimates.value[np.isfinite(estimates.value)]
        means[name] = bootstrap_mean(known, **bootstrap)
    attempted = correct_given_attempted(
        said_right & readings.naming.attempted, readings.naming.attempted, shown, **bootstrap
    )
    counts = Counter(verdicts.verdict)
    return {
        "entities": len(evidence.entities),
        "images": len(shown),
        "verdicts": {verdict: counts.get(verdict, 0) for verdict in VERDICTS},
        "several_weak_parts": sum(
            verdict == UNDECIDED and len(parts) > 1
            for verdict, parts in zip(verdicts.verdict, verdicts.weak_parts, strict=True)
        ),
        "means": {name: interval.to_dict() for name, interval in means.items()},
        "not_measured": [measure.name for measure in MEASURES if measure.name not in evidence.measures],
        "left_out": dict(readings.left_out),
        "correct_given_attempted": attempted.to_dict(),
        "knowledge_gap": _gap(readings, evidence, bootstrap).to_dict() if readings.facts else None,
        "neighbor_overlap": _overlap(readings, bootstrap),
        "readout_gap": _readout(readings, bootstrap),
        "arbitration": _arbitration(readings, bootstrap),
    }


def _gap(readings: Readings, evidence: Evidence, bootstrap: Mapping[str, Any]) -> Interval:
    """The knowledge gap over facts of entities that are named right in more than half of their images."""
    nameable = dict(zip(evidence.entities, evidence.accuracy.value > 0.5, strict=True))
    return knowledge_gap(
        readings.named > 0,
        [float((margins > 0).mean()) for margins in readings.shown],
        [fact.entity for fact in readings.facts],
        [bool(nameable[fact.entity]) for fact in readings.facts],
        **bootstrap,
    )


def _overlap(readings: Readings, bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    others = max(1, len(readings.entities.images) - 1)
    return {
        str(k): {
            **bootstrap_mean(values, clusters=readings.entities.shown, **bootstrap).to_dict(),
            "chance": k / others,
        }
        for k, values in readings.overlap.items()
    }


def _readout(readings: Readings, bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """Probe accuracy minus that of the answer at encoder, projector and each layer."""
    places = {"encoder": readings.encoder, "projector": readings.projector}
    places |= {f"layer {number}": readings.layers[:, index] for index, number in enumerate(readings.numbers)}
    probes = {
        place: np.where(np.isnan(ranks), np.nan, (ranks == 1).astype(np.float64))
        for place, ranks in places.items()
    }
    gaps = readout_gap(probes, readings.right, readings.entities.shown, **bootstrap)
    return {place: interval.to_dict() for place, interval in gaps.items()}


def _arbitration(readings: Readings, bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """Mean margin by layer, and how many images end with the visual answer ahead."""
    # Without a logit lens only the last layer has a margin.
    last = len(readings.numbers) - 1
    known = [index for index in range(last) if np.isfinite(readings.margin[:, index]).any()] + [last]
    margin = readings.margin[:, known]
    numbers = [readings.numbers[index] for index in known]
    margins = mean_margin(margin, readings.entities.shown, **bootstrap)
    crossing = crossing_layer(margin)
    defined = crossing >= 0
    ahead = defined & (crossing < len(numbers))
    return {
        "layers": numbers,
        "margin": [interval.to_dict() for interval in margins],
        "images": int(defined.sum()),
        "visual_answer_ahead": float(ahead.sum() / defined.sum()) if defined.any() else None,
        "median_crossing_layer": float(np.median([numbers[index] for index in crossing[ahead]]))
        if ahead.any()
        else None,
    }


def write_results(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``results.json``."""
    text = json.dumps(dict(content), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / RESULTS).write_text(text + "\n", encoding="utf-8")


def describe_verdicts(counts: Mapping[str, int]) -> str:
    """The counts in a line: ``12 encoder, 3 none``."""
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)


def meanings() -> dict[str, str]:
    """What each measure is and of which part it is evidence, for the manifest."""
    return {
        measure.name: measure.meaning + (f" (evidence of {measure.part})" if measure.part else "")
        for measure in MEASURES
    }
