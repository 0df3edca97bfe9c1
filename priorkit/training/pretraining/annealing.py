"""Training the annealed exports of a run, each on a branch from the step where its decay begins."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from priorkit.core.process import distributed
from priorkit.core.process.runtime import Runtime, rank
from priorkit.core.work import Work
from priorkit.training.engine.checkpoint import require_checkpoint
from priorkit.training.engine.loop import train
from priorkit.training.objectives.base import Objective
from priorkit.training.pretraining.compatibility import PretrainPlan
from priorkit.training.pretraining.exports import DONE, Export
from priorkit.training.pretraining.language_model import LanguageModel
from priorkit.training.pretraining.settings import PretrainSettings


def anneal_exports(
    settings: PretrainSettings,
    work: Work[PretrainPlan],
    started: Runtime,
    llm: LanguageModel,
    objective: Objective,
    exports: Sequence[Export],
    total: int,
) -> None:
    """Train and write the annealed exports that are not written yet; the weights of the run are replaced.

    Args:
        settings: of the run.
        work: its state holds a checkpoint of each branch, see :func:`priorkit.training.engine.loop.train`.
        started: device and precision.
        llm: the model.
        objective: of the run.
        exports: those with a decay.
        total: steps of the run.

    Raises:
        InputError: the checkpoint of a branch is missing or damaged.
        Interrupted: as in training; the branch resumes where it was.
    """
    for export in exports:
        state = export.state(work.state)
        if (state / DONE).is_file():
            continue
        require_checkpoint(state)
        folder = work.scratch / export.name
        folder.mkdir(exist_ok=True)

        def rate_at(step: int, export: Export = export) -> float:
            return export.learning_rate_at(settings, step, total)

        title = f"{settings.step} {export.name}"
        train(objective, settings, started, folder, state, export.step, title, learning_rate_at=rate_at)
        llm.export(settings, work, export.name, export.metrics(llm.parameters))
        distributed.barrier()
        if rank() == 0:
            (state / DONE).touch()
            for checkpoint in state.glob("step-*"):
                shutil.rmtree(checkpoint)
        distributed.barrier()
