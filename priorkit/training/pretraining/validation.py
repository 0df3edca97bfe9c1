"""Held-out text whose loss is measured during pretraining."""

from __future__ import annotations

from typing import Any

from priorkit.core.work import Inputs
from priorkit.data.io.rejects import Rejects
from priorkit.data.text.documents import read_documents
from priorkit.training.engine.validation_loss import ValidationText
from priorkit.training.pretraining.compatibility import validation_text_path
from priorkit.training.pretraining.settings import PretrainSettings


def read_validation_texts(
    settings: PretrainSettings, inputs: Inputs, tokenizer: Any, context_length: int
) -> list[tuple[str, ValidationText]]:
    """The first tokens of every ``--eval`` source, by its name."""
    batch_size = settings.micro_batch_size or settings.batch_size
    return [
        (
            name,
            ValidationText(
                read_documents(validation_text_path(source), Rejects(0.0)),
                tokenizer,
                context_length,
                batch_size,
                settings.document_mask,
            ),
        )
        for name, source in inputs.named("eval_sources").items()
    ]
