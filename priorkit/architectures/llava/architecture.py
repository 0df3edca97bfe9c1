"""LLaVA as an architecture: a projector between an image encoder and a language model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from priorkit.architectures.base import Architecture
from priorkit.architectures.llava.settings import LlavaTuneSettings
from priorkit.core.process.runtime import Runtime
from priorkit.core.work import Inputs, Plan, Work
from priorkit.inference.model_info import ADAPTER_CONFIG, ModelInfo
from priorkit.models.folder import read_config
from priorkit.models.multimodal.base import MultimodalModel
from priorkit.training.finetuning.finetune import FinetuningRun


class Llava(Architecture[LlavaTuneSettings]):
    """LLaVA models as transformers stores them, with PEFT adapters."""

    def plan(self, settings: LlavaTuneSettings, inputs: Inputs) -> Plan[None]:
        """See :func:`priorkit.architectures.llava.plan.plan`."""
        from priorkit.architectures.llava.plan import plan

        return plan(settings, inputs)

    def prepare(self, settings: LlavaTuneSettings, work: Work[None], runtime: Runtime) -> FinetuningRun:
        """See :func:`priorkit.architectures.llava.training.prepare`."""
        from priorkit.architectures.llava.training import prepare

        return prepare(settings, work, runtime)

    def recognizes(self, folder: Path) -> bool:
        """By the model type; PEFT adapters are not recognized here, nor towers whose images differ in positions."""
        if (folder / ADAPTER_CONFIG).is_file() or not (folder / "config.json").is_file():
            return False
        config = read_config(folder)
        tower = config.get("vision_config")
        pixtral = isinstance(tower, dict) and tower.get("model_type") == "pixtral"
        return config["model_type"] == "llava" and not pixtral

    def check(self, folder: Path) -> ModelInfo:
        """Check the model type and that there are weights."""
        from priorkit.models.multimodal.llava import check_llava

        check_llava(folder)
        return ModelInfo("mllm", folder, format=self)

    def load_for_inference(self, info: ModelInfo) -> MultimodalModel:
        """Load the model and fold a PEFT adapter into it."""
        from priorkit.inference.loading import fold_adapter
        from priorkit.models.multimodal.llava import load_llava

        multimodal = load_llava(info.folder)
        return replace(multimodal, model=fold_adapter(multimodal.model, info))


ARCHITECTURE = Llava()
