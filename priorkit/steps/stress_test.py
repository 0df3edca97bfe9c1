"""Stress-test benchmarks: how much of each can be answered from its text, by a language model tuned on the rest of it.

Source: Test-set Stress-Test (TsT-LLM; arXiv 2511.04655): the items are cut into k folds, a language model is tuned
on the questions and answers of k - 1 of them without images, and answers the fold that is left out. What it answers
better than before tuning are patterns of the benchmark itself, which any model can learn.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from priorkit.core.errors import ResourceError
from priorkit.core.options.specs import result_settings
from priorkit.core.process import runtime
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource
from priorkit.evaluation.stress_settings import StressTestSettings
from priorkit.steps import blind_tune, evaluate

logger = logging.getLogger(__name__)

TENSORS = {
    "untuned": "[items] float64, score before tuning",
    "tuned": "[items] float64, score of the model tuned on the other folds",
    "fold": "[items] int64",
}
"""What ``scores.safetensors`` holds, in the order of ``table.parquet``."""


def plan(settings: StressTestSettings, inputs: Inputs) -> Plan[list[BenchmarkSource]]:
    """Check model and benchmarks from headers."""
    from priorkit.models.language.chat_llm import check_chat_llm
    from priorkit.training.engine.resource_estimates import footprint

    if runtime.world_size() > 1:
        raise ResourceError(
            "folds are trained one after the other by one process", hint="run it without torchrun"
        )
    folder = inputs.one("llm").path
    tensors = check_chat_llm(folder)
    sources = settings.sources(inputs)
    size = footprint(tensors, ("llm",))
    return Plan(
        [
            ("folds", str(settings.folds)),
            *((source.name, f"{source.task.name}, {source.rows} items") for source in sources),
        ],
        disk_bytes=2 * size.disk_bytes,
        memory_bytes=size.memory_bytes if settings.device != "cuda" else 0,
        payload=sources,
    )


def execute(settings: StressTestSettings, work: Work[list[BenchmarkSource]]) -> None:
    """Fold by fold: tune on the others' text, answer this one; finished folds are kept when a run is interrupted."""
    from priorkit.analysis.text_shortcuts import summarise, write_shortcuts
    from priorkit.data.io.rejects import Rejects
    from priorkit.evaluation.benchmarks.items_io import read_items
    from priorkit.evaluation.runner.text_folds import write_folds

    found: dict[str, Any] = {}
    kept = _kept_folder(settings, work)
    rejects = Rejects(settings.reject_limit)
    for number, source in enumerate(work.plan.payload):
        rejected = Rejects(settings.reject_limit)
        items = read_items(source, rejected, group_by=(), limit=settings.limit, show_images=False)
        for row in rejected.rows:
            rejects.add(str(row["file"]), int(row["row"]), str(row["reason"]))
        rejects.accept(len(items))
        folder = kept / f"benchmark-{number}"
        folds = write_folds(items, source.task, folder, settings.folds, settings.seed, source.name)
        untuned = _answers(settings, work.inputs.one("llm").path, folder / "all.jsonl", folder / "untuned")
        tuned: dict[str, float] = {}
        for fold in range(settings.folds):
            logger.info(f"  {source.name}: fold {fold + 1} of {settings.folds}")
            tuned |= _fold(settings, work.inputs.one("llm").path, folder / f"fold-{fold}")
        found[source.name] = summarise(items, folds, untuned, tuned, settings.seed, settings.resamples)
    write_shortcuts(found, work.path)
    rejects.write(work.path)
    work.metrics.update(
        {name: shortcuts.to_json() for name, shortcuts in found.items()},
        rejected=len(rejects),
        tensors=TENSORS,
    )
    shutil.rmtree(kept.parent, ignore_errors=True)


def _kept_folder(settings: StressTestSettings, work: Work[Any]) -> Path:
    """Where finished folds are kept: next to ``--out``, as models in an unfinished artifact are no inputs.

    Its name follows from settings and inputs, so that a run with others starts over.
    """
    request = [result_settings(settings), [item.digest() for item in work.inputs.values()]]
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]
    out = Path(settings.out or "").expanduser()
    return out.with_name(f"{out.name}.folds") / digest


def _fold(settings: StressTestSettings, llm: Path, folder: Path) -> dict[str, float]:
    """Scores of a fold by item; the tuned model is removed once it has answered."""
    scores = folder / "scores"
    if not (scores / "priorkit.json").is_file():
        blind_tune.run(
            blind_tune.BlindTuneSettings(
                llm=str(llm),
                instructions={"all": str(folder / "train.jsonl")},
                out=str(folder / "model"),
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                warmup_steps=settings.warmup_steps,
                seed=settings.seed,
                device=settings.device,
                precision=settings.precision,
                workers=settings.workers,
            )
        )
    answered = _answers(settings, folder / "model", folder / "held-out.jsonl", scores)
    shutil.rmtree(folder / "model", ignore_errors=True)
    return answered


def _answers(settings: StressTestSettings, model: Path, benchmark: Path, out: Path) -> dict[str, float]:
    """Scores of all items by id; read again where the evaluation is complete."""
    from priorkit.analysis.text_shortcuts import scores_of

    if not (out / "priorkit.json").is_file():
        evaluate.run(
            evaluate.EvaluateSettings(
                model=str(model),
                benchmarks=(str(benchmark),),
                out=str(out),
                prompt="chat",
                choices="letter",
                batch_size=settings.batch_size,
                max_new_tokens=settings.max_new_tokens,
                seed=settings.seed,
                device=settings.device,
                precision="bf16" if settings.precision == "bf16" else "fp32",
                resamples=100,
                reject_limit=settings.reject_limit,
            )
        )
    return scores_of(out)


STEP = Step(StressTestSettings, plan, execute)
run = STEP.run
