"""Where a run's metrics are shown while it lasts: TensorBoard, Weights & Biases, trackio, each where it is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from priorkit.core.errors import ResourceError
from priorkit.core.process.runtime import rank
from priorkit.training.engine.settings import TRACKERS, TrainingSettings


class Tracker(Protocol):
    """An open run."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Show the values of a step, counted from 1."""
        ...

    def close(self) -> None:
        """End the run."""
        ...


class _TensorBoard:
    def __init__(self, library: Any, folder: str, name: str, settings: Mapping[str, Any]) -> None:
        self._writer = library.SummaryWriter(folder)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Run:
    """wandb and trackio: a run of a project, with the settings as its configuration."""

    def __init__(self, library: Any, project: str, name: str, settings: Mapping[str, Any]) -> None:
        self._library = library
        library.init(project=project, name=name, config=dict(settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._library.log(dict(values), step=step)

    def close(self) -> None:
        self._library.finish()


_OPEN: dict[str, tuple[str, Callable[[Any, str, str, Mapping[str, Any]], Tracker]]] = {
    "tensorboard": ("torch.utils.tensorboard", _TensorBoard),
    "wandb": ("wandb", _Run),
    "trackio": ("trackio", _Run),
}
assert set(_OPEN) == set(TRACKERS)


def open_trackers(settings: TrainingSettings, title: str) -> list[Tracker]:
    """Open all trackers that the settings name, in the first process; none in the others.

    Args:
        settings: the step's; trackers get them as the run's configuration.
        title: of the run, where the settings name no artifact.

    Raises:
        ResourceError: a package is not installed, or refuses.
    """
    if rank() != 0:
        return []
    wanted = {**({"tensorboard": settings.tensorboard} if settings.tensorboard else {}), **settings.log}
    name = str(getattr(settings, "out", None) or title)
    return [
        _open(tracker, where, name, settings.model_dump(mode="json")) for tracker, where in wanted.items()
    ]


def _open(tracker: str, where: str, name: str, settings: Mapping[str, Any]) -> Tracker:
    module, made = _OPEN[tracker]
    try:
        library = importlib.import_module(module)
    except ImportError:
        raise ResourceError(
            f"the package {tracker} is not installed",
            where=f"--log {tracker}={where}",
            hint=f"pip install {tracker}, or leave it out; metrics.jsonl has all figures",
        ) from None
    try:
        return made(library, where, name, settings)
    except (OSError, ValueError, RuntimeError) as error:
        raise ResourceError(
            f"{tracker} cannot open a run: {' '.join(str(error).split())[:200]}",
            where=f"--log {tracker}={where}",
        ) from None
