"""The asker of a checked model: by priorkit's own loops where they run it, otherwise by transformers' ``generate``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from priorkit.core.process.runtime import Runtime
from priorkit.inference.backends.generate import GenerateBackend
from priorkit.inference.backends.loading import BackendOptions, load_backend
from priorkit.inference.diagnosis.foreign import BackendAsker
from priorkit.inference.diagnosis.foreign_states import head_of
from priorkit.inference.diagnosis.native import NativeAsker
from priorkit.inference.loading import load_model_adapter
from priorkit.inference.model_info import ModelInfo

if TYPE_CHECKING:
    from priorkit.inference.diagnosis.asking import Asker

logger = logging.getLogger(__name__)


def load_asker(info: ModelInfo, started: Runtime, folder: Path, batch_size: int, workers: int) -> Asker:
    """Load a multimodal model to ask about entities.

    Args:
        info: as checked.
        started: device and precision.
        folder: where answers are kept while the run lasts.
        batch_size: prompts per forward pass.
        workers: threads that decode images.

    Raises:
        InputError: it cannot be loaded, or its states cannot be read.
    """
    if info.native:
        return NativeAsker(load_model_adapter(info, started.device, workers=workers), folder, batch_size)
    options = BackendOptions(workers=workers, batch_size=batch_size)
    backend = load_backend("transformers", info, started, options)
    assert isinstance(backend, GenerateBackend)
    head_of(backend)
    if not backend.tokenizer.chat_template:
        logger.info("  the model has no chat template and is asked in plain text")
    return BackendAsker(backend, folder, batch_size)
