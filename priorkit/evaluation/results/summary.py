"""The summary of an evaluation: a line per benchmark and suite, and the differences that its size can detect."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from priorkit.evaluation.results.scored_benchmarks import BenchmarkSummary

logger = logging.getLogger(__name__)


def say_results(summaries: Mapping[str, BenchmarkSummary], suites: Mapping[str, Any]) -> None:
    """Say the first metrics of every benchmark, the means of suites, and the power of the first benchmark."""
    for name, summary in summaries.items():
        logger.info(f"  {name}: {_line(summary.entry)}")
    for name, content in suites.items():
        overall = content["overall"]
        logger.info(f"  {name}: {_number(overall['value'])} over {overall['benchmarks']} benchmarks")
    first = next(iter(summaries.values()), None)
    if first is not None and first.entry["detectable_difference"]:
        logger.info(
            f"  differences of {first.headline} under {_number(first.entry['detectable_difference'])} cannot be "
            f"distinguished with {first.entry['items']} items, unless models are compared on the same ones (--compare)"
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _line(entry: Mapping[str, Any]) -> str:
    parts = [
        f"{name} {_number(metric['value'])} [{_number(metric['low'])}, {_number(metric['high'])}]"
        for name, metric in list(entry["metrics"].items())[:3]
    ]
    unread = f", {entry['unparsed']} unparsed, {entry['unparsed_rate']:.1%}" if entry["unparsed"] else ""
    return f"{', '.join(parts)} ({entry['items']} items{unread})"
