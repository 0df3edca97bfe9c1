"""Models of transformers that ``evaluate`` loads and ``tune`` does not train: any image-text-to-text family."""

from __future__ import annotations

from pathlib import Path

from priorkit.inference.model_info import ADAPTER_CONFIG, ModelInfo
from priorkit.models.folder import read_config


class ImageTextFormat:
    """What ``AutoModelForImageTextToText`` and ``AutoProcessor`` load."""

    def recognizes(self, folder: Path) -> bool:
        """By the model type; models that bring their own code are recognized, and refused by :meth:`check`."""
        from priorkit.models.multimodal.image_text import is_image_text

        return (
            not (folder / ADAPTER_CONFIG).is_file()
            and (folder / "config.json").is_file()
            and is_image_text(read_config(folder))
        )

    def check(self, folder: Path) -> ModelInfo:
        """Check configuration, weights and that the processor takes images."""
        from priorkit.models.multimodal.image_text import (
            check_image_text,
            check_image_tokens,
            load_image_text_processor,
        )

        check_image_text(folder)
        processor, image_token = load_image_text_processor(folder)
        check_image_tokens(processor, image_token, folder)
        return ModelInfo("mllm", folder, native=False)


FORMAT = ImageTextFormat()
"""Models that only transformers' ``generate`` runs."""
