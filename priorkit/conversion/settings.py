"""Options of ``convert``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from priorkit.core.inputs import Input
from priorkit.core.options.settings import StepSettings, argument, option
from priorkit.models.language.conversation_formats import ChatTemplateSettings

WeightFormat = Literal["auto", "transformers", "gguf", "open-clip", "llava"]


class ConvertSettings(ChatTemplateSettings, StepSettings):
    """Options of ``priorkit convert``."""

    step: ClassVar[str] = "convert"
    kind: ClassVar[str] = "llm"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit convert lmsys/vicuna-7b-v1.5 --dtype bfloat16 --out vicuna",
        "priorkit convert laion/CLIP-ViT-B-32-laion2B-s34B-b79K --format open-clip --out clip",
    )

    weights: str = argument(
        "PyTorch weights (.bin, .pt, .pth, .ckpt, in shards too), a GGUF file, an open_clip checkpoint or an original "
        "LLaVA checkpoint: a file, a folder or a hub id.",
        accepts=("weights",),
        hub="weights",
    )
    format: WeightFormat = option("auto", "Format of the weights; auto recognizes it by the files.")
    part: Literal["all", "vision"] = option(
        "all",
        "What of a multimodal model of transformers to write: all of it, or its image tower as an encoder, such as "
        "BLIP-2's EVA-ViT-g. The tower may be in safetensors.",
    )
    config: str | None = option(
        None,
        "Model whose configuration, tokenizer and image processor belong to bare weights: a folder in Hugging Face's "
        "layout or a hub id; or a model configuration of open_clip (JSON).",
        accepts=("llm", "encoder", "mllm"),
        hub="model",
        metavar="MODEL",
    )
    encoder: str | None = option(
        None,
        "Encoder of a LLaVA checkpoint that does not hold its own.",
        accepts=("encoder",),
        hub="model",
        metavar="ENCODER",
    )
    tokenizer: str | None = option(
        None,
        "Model or tokenizer folder to take the tokenizer from, where the weights come with none; for open_clip also "
        "its bpe_simple_vocab_16e6.txt.gz.",
        accepts=("tokenizer", "llm", "encoder", "mllm"),
        hub="model",
        metavar="TOKENIZER",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", "Type of the converted weights; auto keeps theirs, and takes float32 for quantized ones."
    )

    def named_files(self, inputs: Mapping[str, Input]) -> Mapping[str, tuple[Path, Collection[str]]]:
        """The file of a chat template."""
        return self.template_files()
