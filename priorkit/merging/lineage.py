"""Whether adapters were trained from the base they are merged with, and what a plan says of its inputs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError, Problems
from priorkit.core.inputs import Input
from priorkit.merging.plan import MergePlan
from priorkit.merging.settings import MODELS, MergeAdaptersSettings

logger = logging.getLogger(__name__)


def check_lineage(labels: Sequence[str], inputs: Sequence[Input], base: Input | None) -> None:
    """Refuse adapters whose manifest names a base of another digest.

    Those of a language model may be merged into a multimodal one, with a warning where its manifest does not name it.

    Raises:
        InputError: naming them all.
    """
    if base is None or base.owner is None:
        return
    problems = Problems(InputError)
    digest = base.digest()
    for label, item in zip(labels, inputs, strict=True):
        if item.kind != "adapter" or item.owner is None:
            continue
        trained = [record for record in item.owner.manifest.inputs if record.kind in MODELS]
        if base.kind == "mllm" and trained and all(record.kind == "llm" for record in trained):
            known = {record.digest for record in base.owner.manifest.inputs}
            if not known & {record.digest for record in trained}:
                logger.warning(
                    f"{label} was trained on the language model {trained[0].path}; its shapes are compared"
                )
            continue
        if trained and all(record.digest != digest for record in trained):
            problems.add(
                f"the adapter was trained on {trained[0].path} ({trained[0].digest[:12]}...), "
                f"the base is {digest[:12]}...",
                where=label,
                hint="name that model with --base",
            )
    problems.raise_if_any()


def warn_of_other_base(merge: MergePlan, base: Input | None) -> None:
    """Warn of adapters that name another base, which may be a renamed copy."""
    if base is None:
        return
    for item in merge.inputs:
        name = item.adapter.base_name.rstrip("/") if item.adapter else ""
        if name and Path(name).name != Path(base.given.rstrip("/")).name and name != base.given:
            logger.warning(f"{item.label} names '{name}' as its base, not '{base.given}'; the shapes fit")


def facts_of(settings: MergeAdaptersSettings, merge: MergePlan) -> list[tuple[str, str]]:
    """What ``--check`` prints."""
    parameters = {"weight": list(settings.weight), **merge.parameters}
    if "density" in merge.method.parameters:
        parameters["density"] = list(merge.density)
    text = ", ".join(f"{name.rstrip('_')} {value}" for name, value in parameters.items() if value is not None)
    facts = [("method", "compare only" if settings.analyse else f"{settings.method} ({text})")]
    if merge.reference:
        dtypes = _listed(merge.stored_dtype(name) for name in merge.reference)
        count = sum(info.count for info in merge.reference.values())
        facts.append(("tensors", f"{len(merge.reference)}, {count:,} values, stored as {dtypes}"))
        facts.append(("names and companions", f"of {merge.folder}"))
    for item in merge.inputs:
        parts: list[str] = []
        if item.loras:
            ranks = sorted({lora.rank for lora in item.loras.values()})
            parts.append(f"LoRA of rank {'/'.join(map(str, ranks))} in {len(item.loras)} modules")
        if item.full:
            dtypes = _listed(info.dtype for info in item.full.values())
            parts.append(f"{len(item.full)} full tensors of type {dtypes}")
        facts.append((item.label, ", ".join(parts)))
    for label, names in merge.redundant.items():
        facts.append((label, f"left out, a copy of the embeddings it is tied to: {', '.join(names)}"))
    return facts


def _listed(dtypes: Iterable[str]) -> str:
    return "/".join(sorted(set(dtypes)))


def log_summary(report: Mapping[str, Any]) -> None:
    """Log the size of the merged delta, the error of truncation and what was left out."""
    relative = report.get("relative_change")
    logger.info(
        f"  delta {report['change_norm']:.4g}" + ("" if relative is None else f" {relative:.3%} of the base")
    )
    if "relative_error" in report:
        logger.info(f"  rank {report['rank']}, truncation error {report['relative_error']:.3%}")
    if left_out := report.get("left_out"):
        logger.warning(
            f"{len(left_out)} tensors changed that a LoRA cannot change, such as {next(iter(left_out))}; "
            "merge.json lists them"
        )
