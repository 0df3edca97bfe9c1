"""Settings of ``priorkit merge-adapters``; the methods and their parameters come from the table of methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import create_model

from priorkit.core.options.settings import Settings, StepSettings, argument, option
from priorkit.core.options.values import Named, Numbers
from priorkit.merging.methods.registry import METHODS, PARAMETERS, help_of

MODELS = ("llm", "mllm", "encoder")

MIXTURE = "mixture"
"""LION's two stages in one adapter; no method of tensors, see ``architectures.lion.mixture``."""


def _parameter_settings() -> type[Settings]:
    """The group of options of single methods, one for each declared parameter; None is a method's default."""
    fields: dict[str, Any] = {
        parameter.name: (
            parameter.type | None,
            option(
                None,
                help_of(parameter),
                flag=parameter.flag,
                metavar="X" if parameter.type is float else "",
                advanced=parameter.advanced,
                **cast("dict[str, Any]", parameter.checks),
            ),
        )
        for parameter in PARAMETERS.values()
    }
    return create_model("MethodSettings", __base__=_MethodGroup, __module__=__name__, **fields)


class _MethodGroup(Settings):
    """Parameters of single methods; a method refuses those it does not have."""

    group: ClassVar[str] = "parameters"


if TYPE_CHECKING:
    MethodName = str
    MethodSettings = _MethodGroup
else:
    MethodName = Literal[(*METHODS, MIXTURE)]
    MethodSettings = _parameter_settings()
    MethodSettings.group = _MethodGroup.group


class AdapterSettings(Settings):
    """The size of a merged adapter."""

    group: ClassVar[str] = "adapter"

    extract: bool = option(
        False, "Write the delta to --base as an adapter; from full models this extracts a LoRA."
    )
    rank: int | None = option(
        None, "Maximum rank of the merged adapter (default: the sum of the ranks, which is exact).", ge=1
    )
    energy: float | None = option(
        None,
        "Minimum share of the squared singular values that the merged adapter keeps, 0 to 1.",
        gt=0,
        le=1,
        advanced=True,
    )


class MergeRuntimeSettings(Settings):
    """How to compute a merge."""

    group: ClassVar[str] = "runtime"

    seed: int = option(42, "Seed of the random masks of dare_* and della*.", ge=0)
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto",
        "Device that selects entries; auto uses a GPU if there is one. Sums are computed on the CPU.",
    )
    precision: Literal["auto", "fp32", "fp64"] = option(
        "auto", "Compute dtype; auto is fp32. The result is cast once, to the dtype of the base."
    )
    dtype: Literal["float32", "bfloat16", "float16"] | None = option(
        None, "Dtype to store (default: that of the base, float32 for an adapter)."
    )
    workers: int = option(
        0, "Tensors merged at the same time, 0 for one per processor.", ge=0, changes_result=False
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
    method: MethodName = option("linear", "Merge method, by mergekit's name.", metavar="NAME")
    weight: Numbers = option((1.0,), "Weight, once or once per input, in order.", metavar="W")
    density: Numbers = option(
        (), "Share of entries to keep, above 0 to 1, once or once per input, in order.", metavar="X"
    )
    weight_rule: Named = option(
        {},
        "Weights of parts, as [INPUT:]PATTERN=W: PATTERN is a part of a tensor's name, a shell pattern or "
        "layers.A-B; several values W1,W2,... are interpolated over the depth. The last matching rule applies.",
        metavar="RULE",
        advanced=True,
    )
    analyse: bool = option(
        False,
        "Compare the inputs' deltas (cosine, signs, norms, ranks) instead of merging them.",
        advanced=True,
    )

    @property
    def method_parameters(self) -> dict[str, Any]:
        """The parameters of the method that were given."""
        values = {name: getattr(self, name) for name in PARAMETERS}
        return {name: value for name, value in values.items() if value is not None}
