"""Merge adapters and models: fold LoRAs into a base, join LoRAs into one, average or extract models.

The methods are mergekit's; peft_factor_linear sums LoRA factors as PEFT's 'linear' does. With --base the
result is a model, from adapters only it is an adapter. Tensors are merged one by one, so that no model is
fully loaded. The method mixture joins the adapters of LION's stages 1 and 2 into the start of stage 3; with
--base it makes the complete LION model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorkit.core.errors import Problems, UsageError
from priorkit.core.options.specs import refuse_changed
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.merging.lineage import check_lineage, facts_of, log_summary, warn_of_other_base
from priorkit.merging.plan import MergePlan, MergeRequest, plan_merge
from priorkit.merging.settings import MIXTURE, MergeAdaptersSettings, MethodSettings
from priorkit.models.folder import copy_companions, note_dtype

if TYPE_CHECKING:
    from priorkit.architectures.lion.mixture import MixturePlan

    AnyPlan = MergePlan | MixturePlan


def plan(settings: MergeAdaptersSettings, inputs: Inputs) -> Plan[AnyPlan]:
    """Check from headers that the inputs and the options fit together."""
    from priorkit.merging.execute import sizes

    if not settings.inputs:
        raise UsageError("INPUT is missing", hint="priorkit merge-adapters --help")
    base = inputs.optional("base")
    labels = [f"INPUT {number} {given}" for number, given in enumerate(settings.inputs, start=1)]
    items = inputs.many("inputs")
    folders = [item.path for item in items]
    check_lineage(labels, items, base)
    if settings.method == MIXTURE:
        return _plan_mixture(settings, labels, folders, has_base=base is not None)
    request = MergeRequest(
        method=settings.method,
        weights=settings.weight,
        density=settings.density,
        rules=settings.weight_rule,
        parameters=settings.method_parameters,
        extract=settings.extract,
        rank=settings.rank,
        energy=settings.energy,
        dtype=settings.dtype,
        analyse=settings.analyse,
    )
    named_base = (f"--base {base.given}", base.path) if base else None
    merge = plan_merge(request, list(zip(labels, folders, strict=True)), named_base)
    warn_of_other_base(merge, base)
    memory, disk = sizes(merge)
    kind = "scores" if settings.analyse else merge.kind
    facts = facts_of(settings, merge)
    return Plan(facts, disk_bytes=disk, memory_bytes=memory, payload=merge, kind=kind)


def execute(settings: MergeAdaptersSettings, work: Work[AnyPlan]) -> None:
    """Merge tensor by tensor into the artifact's folder, or compare the inputs."""
    merge, base = work.plan.payload, work.inputs.optional("base")
    if not isinstance(merge, MergePlan):
        _execute_mixture(merge, work)
        return
    from priorkit.merging.deltas import Deltas, device_of
    from priorkit.merging.execute import (
        note_untied,
        open_inputs,
        summary,
        write_model,
    )
    from priorkit.merging.tensors import TensorReader, compute_dtype

    folders = [item.folder for item in merge.inputs]
    device = device_of(settings.device, settings.seed, merge)
    with TensorReader() as reader:
        open_inputs(merge, reader)
        deltas = Deltas(merge, reader, compute_dtype(settings.precision), settings.seed, device)
        if settings.analyse:
            from priorkit.merging.comparison import compare_inputs, write_comparison

            comparison = compare_inputs(merge, deltas, settings.workers)
            work.metrics.update(write_comparison(comparison, work.path))
            return
        if merge.to_adapter:
            from priorkit.merging.adapters import write_merged

            name = str(base.path) if base else ""
            report = write_merged(merge, deltas, reader, work.path, settings.workers, name)
            copy_companions(folders, work.path, with_config=False)
        else:
            report = summary(write_model(merge, deltas, reader, work.path, settings.workers))
            copy_companions([merge.folder or folders[0], *folders], work.path, with_config=True)
            if settings.dtype:
                note_dtype(work.path, settings.dtype)
            if merge.unties:
                note_untied(work.path)
    report = {"method": settings.method, "weights": list(settings.weight), **report}
    _write_report(report, work)
    log_summary(report)


def _write_report(report: dict[str, Any], work: Work[AnyPlan]) -> None:
    (work.path / "merge.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    work.metrics.update({name: value for name, value in report.items() if isinstance(value, int | float)})


def _plan_mixture(
    settings: MergeAdaptersSettings, labels: list[str], folders: list[Path], *, has_base: bool
) -> Plan[AnyPlan]:
    """Two stages of LION into one adapter; with a base, these or one adapter into a complete model."""
    from priorkit.architectures.lion.mixture import plan_mixture, plan_single

    problems = Problems(UsageError)
    options = (
        *MethodSettings.model_fields,
        *("rank", "energy", "dtype", "extract", "analyse", "density", "weight_rule", "weight"),
    )
    refuse_changed(settings, options, problems, "no effect with mixture, which joins adapters as they are")
    if len(folders) != 2 and not (has_base and len(folders) == 1):
        problems.add(
            f"mixture joins two adapters, got {len(folders)}",
            where="INPUT",
            hint="give stage 1 and stage 2; a single LION adapter is put into its model with --base",
        )
    problems.raise_if_any()
    merge = plan_mixture(labels, folders) if len(folders) == 2 else plan_single(labels[0], folders[0])
    facts = [("method", MIXTURE), ("tensors", f"{len(merge.tensors)}, visual tokens {merge.image_tokens}")]
    facts += [(label, str(folder)) for label, folder in zip(labels, folders, strict=True)]
    size = sum(info.count * 4 for info in merge.tensors.values())
    return Plan(facts, disk_bytes=size, payload=merge, kind="mllm" if has_base else "adapter")


def _execute_mixture(merge: MixturePlan, work: Work[AnyPlan]) -> None:
    from priorkit.architectures.lion.loading import load_on_base
    from priorkit.architectures.lion.mixture import write_mixture

    base = work.inputs.optional("base")
    joined = merge.folders[0] if len(merge.folders) == 1 else (work.scratch if base else work.path)
    report: dict[str, Any] = {"method": MIXTURE}
    if len(merge.folders) == 2:
        copy_companions([merge.folders[0]], joined, with_config=False)
        report |= write_mixture(merge, joined)
    if base is not None:
        load_on_base(base.path, joined).save(work.path)
    _write_report(report, work)


STEP = Step(MergeAdaptersSettings, plan, execute)
run = STEP.run
