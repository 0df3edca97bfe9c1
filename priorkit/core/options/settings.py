"""One declaration per option: a step's settings are one frozen pydantic model.

The field is the option: its name is the recipe key and, with hyphens, the command-line option; its
description is the help text; its default is the only default; its type is the check. The command line,
the recipe check, the JSON schema and the documentation are all derived from here. Groups of options
that several steps share are base classes (:class:`RuntimeSettings`, ``TrainingSettings`` ...), whose
``group`` is the heading in the help and the sub-table in a recipe.
"""

from __future__ import annotations

import typing
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.fields import FieldInfo

from priorkit.core.options.value_kinds import CheckedValues

if TYPE_CHECKING:
    from pathlib import Path

    from priorkit.core.inputs import HubSubset, Input

_EXTRA = "x-priorkit"


def argument(
    help: str, *, accepts: Sequence[str] = (), default: Any = ..., metavar: str = "", hub: str = ""
) -> Any:
    """Declare a positional argument.

    Args:
        help: one sentence.
        accepts: the kinds of artifact it may be; not empty means that it names an input.
        default: for an argument that may be left out.
        metavar: how the help shows it; derived from the field name where empty.
        hub: ``"model"``, ``"weights"`` or ``"dataset"`` where a Hugging Face hub id is accepted too.
    """
    extra: dict[str, Any] = {"positional": True, "accepts": list(accepts), "metavar": metavar, "hub": hub}
    return Field(default, description=help, json_schema_extra={_EXTRA: extra})


def option(
    default: Any,
    help: str,
    *,
    accepts: Sequence[str] = (),
    metavar: str = "",
    hub: str = "",
    flag: str = "",
    changes_result: bool = True,
    advanced: bool = False,
    **checks: Any,
) -> Any:
    """Declare an option.

    Args:
        default: its default, ``...`` for a required one.
        help: one sentence with the unit.
        accepts: the kinds of artifact it may be; not empty means that it names an input.
        metavar: how the help shows the value; derived from the type where empty.
        hub: ``"model"``, ``"weights"`` or ``"dataset"`` where a hub id is accepted too.
        flag: its spelling on the command line (and, without dashes, in a recipe) where the field's
            name is a Python keyword.
        changes_result: False for options that do not change the artifact's bytes (progress, workers).
        advanced: shown by ``--help-all`` only.
        **checks: pydantic constraints (``ge``, ``gt``, ``le`` ...).
    """
    extra: dict[str, Any] = {
        "accepts": list(accepts),
        "metavar": metavar,
        "hub": hub,
        "flag": flag,
        "changes_result": changes_result,
        "advanced": advanced,
        "checks": checks,
    }
    return _field(default, help, extra, checks)


def _field(default: Any, help: str, extra: dict[str, Any], checks: dict[str, Any]) -> Any:
    return Field(default, description=help, json_schema_extra=typing.cast("Any", {_EXTRA: extra}), **checks)


def extra_of(field: FieldInfo) -> dict[str, Any]:
    """What :func:`argument` and :func:`option` noted about a field in addition to what pydantic knows."""
    extra = typing.cast("dict[str, Any]", field.json_schema_extra or {})
    return extra.get(_EXTRA, {})


def redefault(model: type[Settings], name: str, default: Any, *, advanced: bool | None = None) -> Any:
    """A shared option with another default for one step; help and checks stay declared once.

    Args:
        model: the group that declares the option.
        name: the field.
        default: the step's default.
        advanced: whether only ``--help-all`` shows it; as declared where not given.
    """
    field = model.model_fields[name]
    extra = dict(extra_of(field))
    if advanced is not None:
        extra["advanced"] = advanced
    return _field(default, field.description or "", extra, extra.get("checks", {}))


def reject_limit_option(noun: str) -> Any:
    """Declare how many of the things a step reads may be broken before it stops."""
    return option(0.01, f"Share of broken {noun} tolerated, 0 to 1.", advanced=True, ge=0, le=1)


def resamples_option(noun: str) -> Any:
    """Declare how often the things that an interval is over are drawn for it, with replacement."""
    return option(1000, f"Bootstrap resamples of the {noun} behind each interval.", advanced=True, ge=100)


class Settings(CheckedValues):
    """Base of every group of options."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    group: ClassVar[str] = "what to do"


class OutputSettings(Settings):
    """Options of every step."""

    group: ClassVar[str] = "output"

    out: str | None = option(None, "Directory to make; it appears complete or not at all.", metavar="DIR")
    force: bool = option(
        False, "Replace a finished or half-finished artifact made with other settings.", changes_result=False
    )
    check: bool = option(
        False, "Plan only: validate recipe, inputs, shapes, memory and disk, then stop.", changes_result=False
    )
    json_output: bool = option(
        False,
        "Print the manifest as one JSON object instead of the path.",
        flag="--json",
        changes_result=False,
        advanced=True,
    )
    quiet: bool = option(
        False,
        "Print only warnings and errors on standard error.",
        changes_result=False,
        advanced=True,
    )


class RuntimeSettings(Settings):
    """Options of every step that computes."""

    group: ClassVar[str] = "runtime"

    seed: int = option(42, "Seed of everything random; the same seed gives the same bytes.", ge=0, lt=1 << 32)
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", "Where to compute; auto takes a GPU if there is one."
    )
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "Compute dtype (autocast); auto takes bf16 where the processor is fast at it."
    )
    workers: int = option(0, "Number of data-loading workers.", ge=0, changes_result=False)


class StepSettings(OutputSettings):
    """Base of a step's settings.

    Class attributes:
        step: the command's name.
        kind: the kind of artifact it makes.
        examples: two command lines that work as written, after those of the previous step.
    """

    group: ClassVar[str] = "what to do"
    step: ClassVar[str]
    kind: ClassVar[str]
    examples: ClassVar[tuple[str, str]]

    def expand_input(self, name: str, given: str) -> Mapping[str, str]:
        """The inputs that a value names: itself, or several with a label each.

        Args:
            name: the field.
            given: the value as the user wrote it.

        Returns:
            Paths or hub ids by what follows on the input's label: ``{"": given}`` as a rule.
        """
        return {"": given}

    def hub_subset(self, label: str) -> HubSubset | None:
        """Which part of an input is fetched where it is a hub dataset; None for all of it, as a rule.

        Args:
            label: of the input, such as ``sources.web``.
        """
        return None

    def named_files(self, inputs: Mapping[str, Input]) -> Mapping[str, tuple[Path, Collection[str]]]:
        """The user's files that rows of inputs name, such as images next to a table: they too decide the result.

        Args:
            inputs: all inputs by label.

        Returns:
            By what they are called (``images of LABEL`` for those of one input), their folder and their
            names below it; none as a rule. What is wrong with an input is left to ``plan``.
        """
        return {}
