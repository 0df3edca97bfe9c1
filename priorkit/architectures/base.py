"""The protocol that every architecture of ``tune`` fulfils."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from priorkit.core.errors import Problems, UsageError
from priorkit.core.options.settings import Settings
from priorkit.core.options.specs import changed, flag_of
from priorkit.training.finetuning.settings import FinetuningSettings

if TYPE_CHECKING:
    from priorkit.core.process.runtime import Runtime
    from priorkit.core.work import Inputs, Plan, Work
    from priorkit.inference.model_info import ModelInfo
    from priorkit.models.multimodal.base import MultimodalModel
    from priorkit.training.finetuning.finetune import FinetuningRun


@dataclass(frozen=True)
class TuneOptions:
    """Which options of ``tune`` an architecture takes; what it allows in inference is in its model's ``Capabilities``.

    Attributes:
        groups: groups of options in addition to those of all architectures.
        unsupported: options of all architectures that it does not support, by field, with the reason.
    """

    groups: tuple[type[Settings], ...] = ()
    unsupported: Mapping[str, str] = field(default_factory=dict[str, str])


S = TypeVar("S", bound=FinetuningSettings, contravariant=True)


class Architecture(ABC, Generic[S]):
    """How images enter a language model: trained by ``tune``, loaded by ``evaluate``.

    A folder of this package fulfils it with two modules: ``settings`` holds ``OPTIONS``, a
    :class:`TuneOptions`, and imports no torch; ``architecture`` holds ``ARCHITECTURE``, an instance of a
    subclass. A line in :mod:`priorkit.architectures.registry` registers it. ``S`` is what it reads of the
    settings of ``tune``: those groups with :class:`FinetuningSettings`.
    """

    @abstractmethod
    def plan(self, settings: S, inputs: Inputs) -> Plan[Any]:
        """Check model, data and options from headers.

        Raises:
            PriorkitError: naming all problems found.
        """

    @abstractmethod
    def prepare(self, settings: S, work: Work[Any], runtime: Runtime) -> FinetuningRun:
        """Load the model, set its trainable parameters, read the data and build the objective."""

    @abstractmethod
    def recognizes(self, folder: Path) -> bool:
        """Whether a directory holds a model of this architecture, or an adapter in a format that only it reads."""

    @abstractmethod
    def check(self, folder: Path) -> ModelInfo:
        """Check a recognized directory from headers.

        Raises:
            InputError: files are missing or broken.
        """

    @abstractmethod
    def load_for_inference(self, info: ModelInfo) -> MultimodalModel:
        """Load a checked model with its adapter.

        Raises:
            InputError: it cannot be loaded.
        """


def check_options(settings: Settings, name: str, options: Mapping[str, TuneOptions]) -> None:
    """Refuse options that the chosen architecture does not take.

    Args:
        settings: those of ``tune``.
        name: the chosen architecture.
        options: of all architectures, by name.

    Raises:
        UsageError: naming every such option that is not at its default.
    """
    problems = Problems(UsageError)
    fields_of = {
        owner: {field for group in taken.groups for field in group.model_fields}
        for owner, taken in options.items()
    }
    for field_name in changed(settings, type(settings).model_fields):
        owners = [owner for owner, fields in fields_of.items() if field_name in fields]
        if owners and name not in owners:
            names = " or ".join(f"--architecture {owner}" for owner in owners)
            problems.add(f"only {names} takes this", where=flag_of(type(settings), field_name))
        elif field_name in options[name].unsupported:
            problems.add(options[name].unsupported[field_name], where=flag_of(type(settings), field_name))
    problems.raise_if_any()
