"""Verdicts against known causes: balanced accuracy, confusion matrix, abstentions, calibration."""

from __future__ import annotations

# sklearn has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.analysis.diagnosis.measures import NONE, PLANTED, UNDECIDED, VERDICTS
from priorkit.core.errors import InputError
from priorkit.core.interval import Interval
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import column_names, read_rows
from priorkit.scoring.statistics.calibration import calibration_error
from priorkit.scoring.statistics.intervals import bootstrap_indices, percentile_interval

Causes = Mapping[str, frozenset[str]]
"""Entity -> the parts that were made to fail; empty where none was."""


def read_causes(path: Path) -> dict[str, frozenset[str]]:
    """Read which training data each entity is in, and so which parts were made to fail.

    Args:
        path: a table with ``entity`` and the boolean columns of
            :data:`priorkit.analysis.diagnosis.measures.PLANTED`, as a world's ``entities.parquet``.

    Raises:
        InputError: a column is missing, or a value is neither true nor false.
    """
    present = column_names(path)
    missing = [column for column in ("entity", *PLANTED) if column not in present]
    if missing:
        raise InputError(f"no column {', '.join(missing)}; got {', '.join(present)}", where=str(path))
    causes: dict[str, frozenset[str]] = {}
    for number, row in read_rows(path, Rejects(0.0), ["entity", *PLANTED]):
        values = [row[column] for column in PLANTED]
        if not all(isinstance(value, bool) for value in values):
            raise InputError(f"row {number}: expected true or false, got {values}", where=str(path))
        failing = [part for part, value in zip(PLANTED.values(), values, strict=True) if not value]
        causes[str(row["entity"])] = frozenset(failing)
    return causes


def planted_cause(parts: frozenset[str]) -> str:
    """The one cause of an entity: ``none``, a part, or empty where there are several.

    >>> planted_cause(frozenset()), planted_cause(frozenset({"encoder"})), planted_cause(frozenset({"a", "b"}))
    ('none', 'encoder', '')
    """
    return NONE if not parts else next(iter(parts)) if len(parts) == 1 else ""


def balanced_accuracy(
    causes: Sequence[str], verdicts: Sequence[str], *, seed: int, resamples: int = 1000
) -> Interval:
    """Mean over causes of the share of their entities with the right verdict, entities resampled within each cause.

    An abstention is not right. Equal to scikit-learn's ``balanced_accuracy_score``.

    Args:
        causes: of each entity.
        verdicts: of each entity.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    right = np.array(
        [cause == verdict for cause, verdict in zip(causes, verdicts, strict=True)], dtype=np.float64
    )
    groups = [right[[cause == name for cause in causes]] for name in dict.fromkeys(causes)]
    if not groups:
        return Interval(math.nan, math.nan, math.nan)
    replicates = np.mean(
        [
            np.concatenate(
                [group[draw].mean(1) for draw in bootstrap_indices(len(group), resamples, seed + number)]
            )
            for number, group in enumerate(groups)
        ],
        axis=0,
    )
    return percentile_interval(float(np.mean([group.mean() for group in groups])), replicates, 0.95)


def validate(
    entities: Sequence[str],
    verdicts: Sequence[str],
    probability: NDArray[np.float64],
    fails: NDArray[np.bool_],
    causes: Causes,
    *,
    seed: int,
    resamples: int = 1000,
) -> dict[str, Any]:
    """How verdicts agree with planted causes.

    Of entities with one planted cause those count that fail end to end, since a cause without an effect is none; of
    entities without one all count. Entities with several causes are reported apart: right is any of them.

    Args:
        entities: names.
        verdicts: one each.
        probability: stated of each verdict; NaN where nothing was decided.
        fails: whether the entity fails end to end.
        causes: by entity.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        InputError: no entity has a known cause.
    """
    known = [row for row, entity in enumerate(entities) if entity in causes]
    if not known:
        raise InputError("no entity of the images is among those of known cause")
    parts = [causes[entities[row]] for row in known]
    said = [verdicts[row] for row in known]
    failing = fails[known]
    single = [row for row, planted in enumerate(parts) if not planted or (len(planted) == 1 and failing[row])]
    several = [row for row, planted in enumerate(parts) if len(planted) > 1 and failing[row]]
    truth = [planted_cause(parts[row]) for row in single]
    given = [said[row] for row in single]
    right = np.array([a == b for a, b in zip(truth, given, strict=True)], dtype=np.bool_)
    stated = probability[known][single]
    decided = np.isfinite(stated)
    among = [said[row] in parts[row] for row in several]
    return {
        "entities": len(known),
        "counted": {cause: truth.count(cause) for cause in VERDICTS if cause != UNDECIDED},
        "planted_but_working": sum(
            len(planted) == 1 and not fail for planted, fail in zip(parts, failing, strict=True)
        ),
        "balanced_accuracy": balanced_accuracy(truth, given, seed=seed, resamples=resamples).to_dict(),
        "chance": 1 / (len(VERDICTS) - 1),
        "accuracy_where_decided": float(right[decided].mean()) if decided.any() else None,
        "abstained": float(np.mean([verdict == UNDECIDED for verdict in given])) if given else None,
        "calibration_error": calibration_error(stated[decided], right[decided]) if decided.any() else None,
        "confusion": confusion(truth, given),
        "several_causes": {
            "entities": len(several),
            "named_one_of_them": float(np.mean(among)) if among else None,
            "abstained": float(np.mean([said[row] == UNDECIDED for row in several])) if several else None,
        },
    }


def confusion(causes: Sequence[str], verdicts: Sequence[str]) -> dict[str, dict[str, int]]:
    """Planted cause -> verdict -> number of entities."""
    rows = [verdict for verdict in VERDICTS if verdict != UNDECIDED]
    return {
        cause: {
            verdict: sum(a == cause and b == verdict for a, b in zip(causes, verdicts, strict=True))
            for verdict in VERDICTS
        }
        for cause in rows
    }
