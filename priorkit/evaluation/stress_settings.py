"""Options of ``priorkit stress-test``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from priorkit.core.inputs import Input
from priorkit.core.options.settings import (
    RuntimeSettings,
    StepSettings,
    argument,
    option,
    reject_limit_option,
    resamples_option,
)
from priorkit.core.options.values import Count
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource, find_benchmarks
from priorkit.evaluation.benchmarks.text_rows import refuse_other_tasks
from priorkit.evaluation.presets.loading import expand


class StressTestSettings(RuntimeSettings, StepSettings):
    """Options of ``priorkit stress-test``."""

    step: ClassVar[str] = "stress-test"
    kind: ClassVar[str] = "scores"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit stress-test llm world/benchmarks --epochs 2 --out stressed",
        "priorkit stress-test Qwen/Qwen2.5-7B-Instruct mmstar ai2d --learning-rate 1e-5 --folds 5 --out stressed",
    )

    llm: str = argument("Language model that is tuned on the text.", accepts=("llm",), hub="model")
    benchmarks: tuple[str, ...] = argument(
        "Benchmarks, as `evaluate` takes them: choices, yes or no, and short answers.",
        accepts=("benchmark", "world"),
        metavar="BENCHMARK",
        hub="dataset",
    )
    folds: int = option(
        5, "Parts that each benchmark is cut into; each is answered by a model tuned on the others.", ge=2
    )
    epochs: float = option(1.0, "Passes over the text of the other folds.", gt=0)
    batch_size: int = option(8, "Questions per optimizer step, and per forward pass when answering.", ge=1)
    learning_rate: float = option(3e-5, "Peak learning rate.", gt=0)
    warmup_steps: int = option(0, "Steps of linear warm-up from zero to the peak.", ge=0)
    max_new_tokens: int | None = option(
        None, "Longest written answer in tokens; the benchmark's own or 32 where not given.", ge=1
    )
    limit: Count = option(0, "Take the first items of each benchmark only; 0 takes all.", metavar="N")
    resamples: int = resamples_option("items")
    reject_limit: float = reject_limit_option("items")

    def expand_input(self, name: str, given: str) -> Mapping[str, str]:
        """The data of benchmarks and suites given by name."""
        return expand(given, self.benchmarks) if name == "benchmarks" else {"": given}

    def sources(self, inputs: Mapping[str, Input]) -> list[BenchmarkSource]:
        """The benchmarks that the inputs hold.

        Raises:
            InputError: an input is no benchmark, or one without short answers.
        """
        given = {label: item for label, item in inputs.items() if label.startswith("benchmarks.")}
        sources = find_benchmarks(given, None)
        for source in sources:
            refuse_other_tasks(source.task, source.name)
        return sources
