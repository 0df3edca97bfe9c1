"""LION as an architecture: a Q-Former, a vision aggregator and a mixture of adapters on a frozen LLaVA model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from priorkit.architectures.base import Architecture
from priorkit.architectures.lion.artifact import base_of, is_lion_adapter
from priorkit.architectures.lion.settings import LionTuneSettings
from priorkit.core.inputs import Input
from priorkit.core.process.runtime import Runtime
from priorkit.core.work import Plan, Work
from priorkit.inference.model_info import ModelInfo
from priorkit.models.folder import read_config, tensor_files
from priorkit.models.multimodal.base import MultimodalModel
from priorkit.models.vision.processor_settings import check_processor
from priorkit.training.finetuning.finetune import FinetuningRun


class Lion(Architecture[LionTuneSettings]):
    """Full LION models, and LION adapters on LLaVA models."""

    def plan(self, settings: LionTuneSettings, inputs: Mapping[str, Input]) -> Plan:
        """See :func:`priorkit.architectures.lion.plan.plan`."""
        from priorkit.architectures.lion.plan import plan

        return plan(settings, inputs)

    def prepare(self, settings: LionTuneSettings, work: Work, runtime: Runtime) -> FinetuningRun:
        """See :func:`priorkit.architectures.lion.training.prepare`."""
        from priorkit.architectures.lion.training import prepare

        return prepare(settings, work, runtime)

    def recognizes(self, folder: Path) -> bool:
        """By the model type of a full model, or the type of adapter."""
        if is_lion_adapter(folder):
            return True
        return (folder / "config.json").is_file() and read_config(folder)["model_type"] == "lion"

    def check(self, folder: Path) -> ModelInfo:
        """Check that weights are there, and the base model of an adapter."""
        if not is_lion_adapter(folder):
            check_processor(folder)
            tensor_files(folder)
            return ModelInfo("mllm", folder, format=self, portable=False)
        from priorkit.models.multimodal.llava import check_llava

        base = base_of(folder)
        check_llava(base.path)
        return ModelInfo("mllm", base.path, folder, base, self, portable=False)

    def load_for_inference(self, info: ModelInfo) -> MultimodalModel:
        """Load a full model, or an adapter on its base."""
        from priorkit.architectures.lion.loading import load_lion, load_on_base

        return load_on_base(info.folder, info.adapter) if info.adapter else load_lion(info.folder)


ARCHITECTURE = Lion()
