"""Options of ``tune`` that LLaVA reads: those of all architectures."""

from __future__ import annotations

from priorkit.architectures.base import TuneOptions
from priorkit.training.finetuning.settings import (
    ExportEncoderSettings,
    FinetuningSettings,
    LoraSettings,
    TrainablePartsSettings,
)


class LlavaTuneSettings(ExportEncoderSettings, LoraSettings, TrainablePartsSettings, FinetuningSettings):
    """What tuning a LLaVA model reads of the settings of ``tune``."""


OPTIONS = TuneOptions()
