"""Merge adapters and models: fold LoRAs into a base, join LoRAs into one, average or extract models.

Methods, by mergekit's names: linear, slerp, task_arithmetic, ties, dare_linear, dare_ties, della,
della_linear, breadcrumbs, breadcrumbs_ties, sce, model_stock, karcher; and peft_factor_linear, which adds
up LoRA factors as PEFT's 'linear' does and is no sum of changes. With --base the result is a model, from
adapters alone it is an adapter. Nothing is loaded whole: tensors pass through one by one. mixture joins the
adapters of LION's stages 1 and 2 into the start of stage 3; with --base it makes the whole LION model.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from priorkit.core import runtime
from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.inputs import Input
from priorkit.core.settings import Settings, StepSettings, argument, option
from priorkit.core.step import Step
from priorkit.core.values import Named, Numbers
from priorkit.core.work import Plan, Work

if TYPE_CHECKING:
    from priorkit.merging.deltas import Device
    from priorkit.merging.plan import MergePlan

logger = logging.getLogger(__name__)

MethodName = Literal[
    "linear",
    "slerp",
    "task_arithmetic",
    "ties",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
    "breadcrumbs",
    "breadcrumbs_ties",
    "sce",
    "model_stock",
    "karcher",
    "peft_factor_linear",
    "mixture",
]

MODELS = ("llm", "mllm", "encoder")


class MethodSettings(Settings):
    """Parameters of single methods; each method refuses those it does not have."""

    group: ClassVar[str] = "parameters"

    normalize: bool | None = option(
        None, "Divide by the sum of the weights that count; linear, ties and della do unless told not to."
    )
    rescale: bool | None = option(
        None,
        "Make up for dropped entries; dare_* and della* do unless told not to.",
        advanced=True,
    )
    lambda_: float | None = option(
        None, "Factor on the merged change (default 1).", flag="--lambda", metavar="X"
    )
    t: float | None = option(
        None, "slerp: position from the first (0) to the second (1); from the weights where not given.",
        ge=0, le=1, advanced=True,
    )  # fmt: skip
    gamma: float | None = option(
        None,
        "breadcrumbs*: share of the largest entries to drop (default 0.01).",
        ge=0,
        lt=1,
        advanced=True,
    )
    epsilon: float | None = option(
        None,
        "della*: half the range of keeping probabilities around the density (default 0.15).",
        gt=0,
        lt=1,
        advanced=True,
    )
    select_topk: float | None = option(
        None,
        "sce: share of the entries that vary most to keep (default 1).",
        gt=0,
        le=1,
        advanced=True,
    )
    max_iter: int | None = option(None, "karcher: most iterations (default 10).", ge=1, advanced=True)
    tol: float | None = option(None, "karcher: angle at which it stops (default 1e-5).", gt=0, advanced=True)


class AdapterSettings(Settings):
    """The size of a merged adapter."""

    group: ClassVar[str] = "adapter"

    extract: bool = option(
        False, "Write the change from --base as an adapter: from full models this extracts a LoRA."
    )
    rank: int | None = option(
        None, "Largest rank of the merged adapter; the sum of the ranks, which is exact, if not given.", ge=1
    )
    energy: float | None = option(
        None,
        "Least share of the squared singular values that the merged adapter keeps, 0 to 1.",
        gt=0,
        le=1,
        advanced=True,
    )


class MergeRuntimeSettings(Settings):
    """How to compute a merge."""

    group: ClassVar[str] = "runtime"

    seed: int = option(42, "Seed of the random masks of dare_* and della*.", ge=0)
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", "Where entries are selected; auto takes a GPU if there is one. Sums stay on the CPU."
    )
    precision: Literal["auto", "fp32", "fp64"] = option(
        "auto", "Arithmetic; auto is fp32. The result is cast once, to the type of the base."
    )
    dtype: Literal["float32", "bfloat16", "float16"] | None = option(
        None, "Type to store; that of the base, or float32 for an adapter, if not given."
    )
    workers: int = option(
        0, "Tensors in flight, a number; as many as there are processors for 0.", ge=0, changes_result=False
    )


class MergeAdaptersSettings(MethodSettings, AdapterSettings, MergeRuntimeSettings, StepSettings):
    """Options of ``priorkit merge-adapters``."""

    step: ClassVar[str] = "merge-adapters"
    kind: ClassVar[str] = "adapter"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit merge-adapters adapter --base llm --method linear --out merged",
        "priorkit merge-adapters tuned-a tuned-b --base llm --method ties --weight 1 --weight 0.5 "
        "--density 0.5 --out merged",
    )

    inputs: tuple[str, ...] = argument(
        "Adapters in PEFT's format and full models, in any number: artifacts, folders or hub ids.",
        accepts=("adapter", *MODELS),
        metavar="INPUT",
        hub="model",
    )
    base: str | None = option(
        None, "Full model that the inputs were trained from.", accepts=MODELS, hub="model", metavar="MODEL"
    )
    method: MethodName = option("linear", "How to merge.", metavar="NAME")
    weight: Numbers = option((1.0,), "Weight, once or once per input, in order.", metavar="W")
    density: Numbers = option(
        (), "Share of entries to keep, above 0 to 1, once or once per input, in order.", metavar="X"
    )
    weight_rule: Named = option(
        {},
        "Weights of parts, as [INPUT:]PATTERN=W: PATTERN is a part of a tensor's name, a shell pattern or "
        "layers.A-B; several values W1,W2,... are spread over the depth. The last rule that fits holds.",
        metavar="RULE",
        advanced=True,
    )
    analyse: bool = option(
        False,
        "Compare the inputs' changes (cosine, signs, norms, ranks) in place of merging them.",
        advanced=True,
    )


def plan(settings: MergeAdaptersSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check from headers alone that everything fits."""
    from priorkit.merging.execute import sizes
    from priorkit.merging.plan import Request, kind_of, make
    from priorkit.models.folder import read_config

    if not settings.inputs:
        raise UsageError("INPUT is missing", hint="priorkit merge-adapters --help")
    base = inputs.get("base")
    labels = [f"INPUT {number} {given}" for number, given in enumerate(settings.inputs, start=1)]
    folders = [inputs[f"inputs.{number}"].path for number in range(len(settings.inputs))]
    _check_lineage(labels, [inputs[f"inputs.{number}"] for number in range(len(folders))], base)
    if settings.method == "mixture":
        return _plan_mixture(settings, labels, folders, base)
    request = Request(
        method=settings.method,
        weights=settings.weight,
        density=settings.density,
        rules=settings.weight_rule,
        parameters={
            name: value
            for name in MethodSettings.model_fields
            if (value := getattr(settings, name)) is not None
        },
        extract=settings.extract,
        rank=settings.rank,
        energy=settings.energy,
        dtype=settings.dtype,
        analyse=settings.analyse,
    )
    merge = make(
        request,
        list(zip(labels, folders, strict=True)),
        (f"--base {base.given}", base.path) if base else None,
    )
    _warn_of_other_base(merge, base)
    memory, disk = sizes(merge)
    if settings.analyse:
        kind = "scores"
    else:
        kind = "adapter" if merge.to_adapter or merge.folder is None else kind_of(read_config(merge.folder))
    return Plan(_facts(settings, merge), disk_bytes=disk, memory_bytes=memory, payload=merge, kind=kind)


def _plan_mixture(
    settings: MergeAdaptersSettings, labels: list[str], folders: list[Path], base: Input | None
) -> Plan:
    """Two stages of LION into one adapter; with a base, these or one adapter into a whole model."""
    from priorkit.architectures.lion.mixture import plan_mixture, plan_single

    problems = Problems(UsageError)
    given = [name for name in MethodSettings.model_fields if getattr(settings, name) is not None]
    given += [name for name in ("rank", "energy", "dtype") if getattr(settings, name) is not None]
    given += [name for name in ("extract", "analyse", "density", "weight_rule") if getattr(settings, name)]
    if settings.weight != (1.0,):
        given.append("weight")
    for name in given:
        problems.add(
            "mixture joins adapters as they are and takes no such option", where="--" + name.replace("_", "-")
        )
    if len(folders) != 2 and not (base and len(folders) == 1):
        problems.add(
            f"mixture joins two adapters, got {len(folders)}",
            where="INPUT",
            hint="give stage 1 and stage 2; a single LION adapter is put into its model with --base",
        )
    problems.raise_if_any()
    merge = plan_mixture(labels, folders) if len(folders) == 2 else plan_single(labels[0], folders[0])
    facts = [("method", "mixture"), ("tensors", f"{len(merge.tensors)}, visual tokens {merge.image_tokens}")]
    facts += [(label, str(folder)) for label, folder in zip(labels, folders, strict=True)]
    size = sum(info.count * 4 for info in merge.tensors.values())
    return Plan(facts, disk_bytes=size, payload=merge, kind="mllm" if base else "adapter")


def _execute_mixture(work: Work) -> None:
    from priorkit.architectures.lion.mixture import write_mixture
    from priorkit.merging.execute import copy_companions

    merge = work.plan.payload
    base = work.inputs.get("base")
    joined = merge.folders[0] if len(merge.folders) == 1 else (work.scratch if base else work.path)
    report: dict[str, Any] = {"method": "mixture"}
    if len(merge.folders) == 2:
        copy_companions([merge.folders[0]], joined, with_config=False)
        report |= write_mixture(merge, joined)
    if base is not None:
        from priorkit.architectures.lion.build import load_on_base

        load_on_base(base.path, joined).save(work.path)
    (work.path / "merge.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    work.metrics.update({name: value for name, value in report.items() if isinstance(value, int | float)})


def _check_lineage(labels: list[str], inputs: list[Input], base: Input | None) -> None:
    """Refuse adapters whose manifest names a base of another digest."""
    if base is None or base.owner is None:
        return
    problems = Problems(InputError)
    digest = base.digest()
    for label, item in zip(labels, inputs, strict=True):
        if item.kind != "adapter" or item.owner is None:
            continue
        trained = [record for record in item.owner.manifest.inputs if record.kind in MODELS]
        if trained and all(record.digest != digest for record in trained):
            problems.add(
                f"the adapter was trained on {trained[0].path} ({trained[0].digest[:12]}...), "
                f"the base is {digest[:12]}...",
                where=label,
                hint="name that model with --base",
            )
    problems.raise_if_any()


def _warn_of_other_base(merge: MergePlan, base: Input | None) -> None:
    """An adapter that names another base may be meant for a renamed copy: say so and go on."""
    if base is None:
        return
    for source in merge.sources:
        named = source.adapter.base_name.rstrip("/") if source.adapter else ""
        if named and Path(named).name != Path(base.given.rstrip("/")).name and named != base.given:
            logger.warning(f"{source.label} names '{named}' as its base, not '{base.given}'; the shapes fit")


def _facts(settings: MergeAdaptersSettings, merge: MergePlan) -> list[tuple[str, str]]:
    """What ``--check`` prints."""
    options = {"weight": list(settings.weight), **merge.parameters}
    if "density" in merge.method.parameters:
        options["density"] = list(merge.density)
    text = ", ".join(f"{name.rstrip('_')} {value}" for name, value in options.items() if value is not None)
    facts = [("method", "compare only" if settings.analyse else f"{settings.method} ({text})")]
    if merge.reference:
        kept = _types(merge.stored_dtype(name) for name in merge.reference)
        count = sum(info.count for info in merge.reference.values())
        facts.append(("tensors", f"{len(merge.reference)}, {count:,} values, stored as {kept}"))
        facts.append(("names and companions", f"of {merge.folder}"))
    for source in merge.sources:
        parts: list[str] = []
        if source.loras:
            ranks = sorted({lora.rank for lora in source.loras.values()})
            parts.append(f"LoRA of rank {'/'.join(map(str, ranks))} in {len(source.loras)} modules")
        if source.full:
            types = _types(info.dtype for info in source.full.values())
            parts.append(f"{len(source.full)} whole tensors of type {types}")
        facts.append((source.label, ", ".join(parts)))
    for label, names in merge.ignored.items():
        facts.append((label, f"left out, tied to the embeddings: {', '.join(names)}"))
    return facts


def _types(dtypes: Iterable[str]) -> str:
    return "/".join(sorted(set(dtypes)))


def _device(settings: MergeAdaptersSettings, merge: MergePlan) -> Device:
    """numpy on the CPU, unless a GPU is asked for, or is there and the method has entries to select."""
    from priorkit.merging.deltas import Device

    worthwhile = merge.method.select is not None and Path("/proc/driver/nvidia/version").exists()
    if settings.device == "cuda" or (settings.device == "auto" and worthwhile):
        device = runtime.start(settings.seed, settings.device).device
        if device.type == "cuda":
            return Device(device)
    return Device()


def execute(settings: MergeAdaptersSettings, work: Work) -> None:
    """Merge tensor by tensor into the artifact's folder."""
    if settings.method == "mixture":
        _execute_mixture(work)
        return
    import numpy as np

    from priorkit.merging.adapters import write_merged
    from priorkit.merging.analyse import analyse, write_analysis
    from priorkit.merging.deltas import Changes
    from priorkit.merging.execute import copy_companions, open_inputs, set_dtype, summary, write_model
    from priorkit.merging.tensors import Reader

    merge: MergePlan = work.plan.payload
    precision = np.float64 if settings.precision == "fp64" else np.float32
    base = work.inputs.get("base")
    inputs = [source.folder for source in merge.sources]
    with Reader() as reader:
        open_inputs(merge, reader)
        changes = Changes(merge, reader, precision, settings.seed, _device(settings, merge))
        if settings.analyse:
            analysis = analyse(merge, changes, settings.workers)
            work.metrics.update(write_analysis(analysis, work.path))
            return
        if merge.to_adapter:
            report = write_merged(
                merge, changes, reader, work.path, settings.workers, str(base.path) if base else ""
            )
            copy_companions(inputs, work.path, with_config=False)
        else:
            report = summary(write_model(merge, changes, reader, work.path, settings.workers))
            copy_companions([merge.folder or inputs[0], *inputs], work.path, with_config=True)
            if settings.dtype:
                set_dtype(work.path, settings.dtype)
    report = {"method": settings.method, "weights": list(settings.weight), **report}
    (work.path / "merge.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    work.metrics.update({name: value for name, value in report.items() if isinstance(value, int | float)})
    _tell(report)


def _tell(report: Mapping[str, Any]) -> None:
    logger.info(
        f"  change {report['change_norm']:.4g}" + _share(report.get("relative_change"), " of the base")
    )
    if "relative_error" in report:
        logger.info(f"  rank {report['rank']}, truncation error" + _share(report["relative_error"], ""))
    if left_out := report.get("left_out"):
        logger.warning(
            f"{len(left_out)} tensors changed that a LoRA cannot change, such as {next(iter(left_out))}; "
            "merge.json lists them"
        )


def _share(value: float | None, of: str) -> str:
    return "" if value is None else f" {value:.3%}{of}"


STEP = Step(MergeAdaptersSettings, plan, execute)
run = STEP.run
