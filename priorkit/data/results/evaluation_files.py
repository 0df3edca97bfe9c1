"""The files of an evaluation: ``results.json``, ``samples.jsonl`` and ``scores.safetensors``; written and read here only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError
from priorkit.core.json_text import parse_json
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import read_rows

RESULTS = "results.json"
SAMPLES = "samples.jsonl"
SCORES = "scores.safetensors"


def write_evaluation(
    folder: Path, results: Mapping[str, Any], samples: Iterable[Mapping[str, Any]], tensors: Mapping[str, Any]
) -> None:
    """Write all three files.

    Args:
        folder: the artifact's folder.
        results: the content of ``results.json``, with an entry per benchmark under ``benchmarks``.
        samples: the rows of ``samples.jsonl``, in the benchmarks' order.
        tensors: the numpy arrays of ``scores.safetensors``: ``NAME.score`` float64 ``[items]``;
            ``NAME.loglikelihood`` float64, the options of all items one after the other, with ``NAME.options``
            int64 ``[items]``, their number per item.
    """
    from safetensors.numpy import save_file

    text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / RESULTS).write_text(text + "\n", encoding="utf-8")
    with (folder / SAMPLES).open("w", encoding="utf-8") as stream:
        for sample in samples:
            stream.write(json.dumps(sample, ensure_ascii=False, allow_nan=False) + "\n")
    save_file(dict(tensors), folder / SCORES)


def read_document(folder: Path) -> dict[str, Any]:
    """The content of ``results.json``; under ``benchmarks`` a table for each benchmark.

    Raises:
        InputError: it is missing or not of the form that `evaluate` writes.
    """
    file = folder / RESULTS
    try:
        document: Any = parse_json(file.read_text(encoding="utf-8-sig"))
        for entry in document["benchmarks"].values():
            dict(entry)
    except OSError as error:
        raise InputError(f"not an evaluation: {error.strerror}", where=str(file)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"not an evaluation: {error!r}", where=str(file)) from None
    return document


def read_samples(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and row of each sample; an empty file has none.

    Raises:
        InputError: the file is missing or a line is damaged.
    """
    file = folder / SAMPLES
    if not file.is_file():
        raise InputError("no such file", where=str(file))
    if file.stat().st_size:
        rejects = Rejects(0.0)
        yield from read_rows(file, rejects)
        rejects.raise_if_over_limit()


def shared_benchmarks(first: Sequence[str], second: Sequence[str], where: str) -> list[tuple[str, str]]:
    """The benchmarks that two evaluations have in common: those of equal name, or the only one of each.

    Files of predictions name their benchmark after themselves, so that names need not agree.

    Args:
        first: names of the benchmarks of one evaluation.
        second: those of the other.
        where: the other evaluation, for the error.

    Raises:
        InputError: there are none.
    """
    shared = [(name, name) for name in first if name in second]
    if not shared and len(first) == len(second) == 1:
        shared = [(first[0], second[0])]
    if not shared:
        raise InputError(
            f"no benchmark in common: {', '.join(first)} here, {', '.join(second)} there", where=where
        )
    return shared
