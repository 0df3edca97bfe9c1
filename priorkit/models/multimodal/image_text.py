"""Image-text-to-text models of any family of transformers, from headers: what can be run, and the processor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError, ResourceError, library_reads
from priorkit.models.folder import read_config, tensor_files
from priorkit.models.language.content_parts import accept_parts
from priorkit.models.pretrained import load_preprocessor
from priorkit.models.vision.processor_settings import check_processor


def is_image_text(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is that of a model of images, sound or video and text, or one that brings its own code.

    Args:
        config: a model's ``config.json``.
    """
    from transformers.models.auto import configuration_auto, modeling_auto

    kind = config["model_type"]
    if kind in modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES:
        return True
    return kind not in configuration_auto.CONFIG_MAPPING_NAMES and "auto_map" in config


def check_image_text(folder: Path) -> dict[str, Any]:
    """Check that transformers has a model's class, and that it takes images and text.

    Returns:
        Its ``config.json``.

    Raises:
        InputError: the model needs code of its own, takes no images, is an encoder-decoder or has no weights; all
            found by headers.
    """
    from transformers.models.auto import configuration_auto, modeling_auto

    config = read_config(folder)
    kind, where = config["model_type"], str(folder)
    if kind not in configuration_auto.CONFIG_MAPPING_NAMES:
        raise InputError(
            f"a model of type '{kind}' needs its own code (auto_map in config.json), which is never run",
            where=where,
            hint="use a copy that transformers has a class for, or score its answers with --predictions",
        )
    if kind not in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        parts: Any = getattr(configuration_auto.CONFIG_MAPPING[kind], "sub_configs", {})
        if not {"vision_config", "thinker_config"} & set(parts):
            raise InputError(f"a model of type '{kind}' takes sound or video, not images", where=where)
        raise InputError(
            f"transformers does not load a model of type '{kind}' as an image-text-to-text model "
            "(AutoModelForImageTextToText), although it takes images",
            where=where,
            hint="score its answers with --predictions",
        )
    if _is_encoder_decoder(folder, config):
        raise InputError(
            f"a model of type '{kind}' is an encoder-decoder: its answer does not continue the question, so that "
            "prompts, likelihoods and lengths mean something else",
            where=where,
            hint="score its answers with --predictions",
        )
    check_processor(folder)
    tensor_files(folder)
    return config


def _is_encoder_decoder(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the model, or the language model inside it (BLIP-2 with T5), is an encoder-decoder.

    Raises:
        InputError: the configuration cannot be read.
    """
    from transformers import AutoConfig
    from transformers.models.auto import configuration_auto

    # By the type's own default first: its other settings need not be readable then.
    config_class: Any = configuration_auto.CONFIG_MAPPING[config["model_type"]]
    if config.get("is_encoder_decoder", getattr(config_class(), "is_encoder_decoder", False)):
        return True
    with library_reads("its configuration cannot be read", str(folder / "config.json")):
        read = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return bool(getattr(getattr(read, "text_config", None), "is_encoder_decoder", False))


def load_image_text_processor(folder: Path) -> tuple[Any, str]:
    """Load a model's processor.

    Its tokenizer gets the processor's chat template, or keeps its own; templates of strings take lists of parts.

    Returns:
        The processor and the placeholder of an image in a prompt.

    Raises:
        InputError: it cannot be loaded, or takes no images or no placeholders of images.
        ResourceError: it needs a package that is not installed.
    """
    from transformers import AutoProcessor

    try:
        processor = load_preprocessor(AutoProcessor, folder)
    except InputError as error:
        if isinstance(error.__cause__, ImportError):
            raise ResourceError(error.what, where=str(folder), hint="install it") from None
        raise
    tokenizer: Any = getattr(processor, "tokenizer", None)
    if tokenizer is None or getattr(processor, "image_processor", None) is None:
        parts = [
            name for name in ("tokenizer", "video_processor", "feature_extractor") if hasattr(processor, name)
        ]
        raise InputError(
            f"its processor takes no images and text: it has {', '.join(parts) or 'no parts'}",
            where=str(folder),
        )
    token = getattr(processor, "image_token", None)
    if not token:
        raise InputError("its processor has no token for an image", where=str(folder))
    template = getattr(processor, "chat_template", None) or tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    tokenizer.chat_template = template
    if template:
        accept_parts(tokenizer, token)
    return processor, str(token)


def check_image_tokens(processor: Any, image_token: str, folder: Path) -> None:
    """Check on one picture that a processor turns a placeholder into positions of an image.

    Raises:
        InputError: it does not, or cannot prepare the picture.
    """
    from PIL import Image

    picture = Image.linear_gradient("L").convert("RGB").resize((64, 64))
    try:
        encoded = processor(text=[f"{image_token}a"], images=[[picture]], add_special_tokens=False)
        ids: list[int] = list(encoded["input_ids"][0])
    except Exception as error:  # processors raise errors of many kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"its processor cannot prepare a picture: {reason}", where=str(folder)) from None
    known = [token for token in getattr(processor, "image_token_ids", ()) if token is not None]
    if not any(token in known for token in ids):
        raise InputError(
            f"the tokenizer has no token for images: '{image_token}' becomes none", where=str(folder)
        )
