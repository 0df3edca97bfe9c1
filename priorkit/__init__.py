"""priorkit: how much can a multimodal model see because of what it already knows?

``import priorkit as pk`` costs no torch; names load on first use.

- ``pk.rank_e``: Rank_e of features at hand.
- ``pk.load_encoder``: features of images and texts.
- ``pk.evaluate``, ``pk.diagnose``, ``pk.merge``: models on benchmarks, what holds them back, models merged.
- ``pk.steps.NAME``: every step as a function; ``pk.check`` returns a step's plan.
- ``pk.Error`` and its subclasses: what a caller can handle.

Messages are logged by the logger ``priorkit``.
"""

import logging
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from priorkit.api import steps as steps
    from priorkit.api.encoders import load_encoder
    from priorkit.api.models import diagnose, evaluate, merge
    from priorkit.api.rank_e import rank_e
    from priorkit.api.steps import check
    from priorkit.core.errors import (
        GuardError,
        InputError,
        Interrupted,
        ResourceError,
        UsageError,
    )
    from priorkit.core.errors import PriorkitError as Error

__all__ = [
    "Error",
    "GuardError",
    "InputError",
    "Interrupted",
    "ResourceError",
    "UsageError",
    "check",
    "diagnose",
    "evaluate",
    "load_encoder",
    "merge",
    "rank_e",
    "steps",
]

_MODULES = {
    "check": "priorkit.api.steps",
    "diagnose": "priorkit.api.models",
    "evaluate": "priorkit.api.models",
    "load_encoder": "priorkit.api.encoders",
    "merge": "priorkit.api.models",
    "rank_e": "priorkit.api.rank_e",
}

logging.getLogger(__name__).addHandler(logging.NullHandler())


class _FrontDoor(ModuleType):
    """This module. ``priorkit.steps`` are functions here, though a package of that name holds the steps' modules."""

    @property
    def steps(self) -> ModuleType:
        return import_module("priorkit.api.steps")

    @steps.setter
    def steps(self, package: ModuleType) -> None:
        """The import system sets the package here; ``from priorkit.steps import mix`` finds it all the same."""

    def __getattr__(self, name: str) -> Any:
        if name in _MODULES:
            return getattr(import_module(_MODULES[name]), name)
        if name in __all__:
            return getattr(import_module("priorkit.core.errors"), {"Error": "PriorkitError"}.get(name, name))
        raise AttributeError(f"module 'priorkit' has no attribute '{name}'")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _FrontDoor
