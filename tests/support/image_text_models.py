"""Tiny random models of the image-text-to-text families of transformers, each with its own processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from priorkit.models.language.tokenizer import train_bpe
from tests.support.evaluation_models import TEXTS

SPECIAL = (
    "<image>", "<video>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<IMG_CONTEXT>",
    "<img>", "</img>", "<start_of_image>", "<image_soft_token>", "<end_of_image>", "<fake_token_around_image>",
    "<end_of_utterance>", "<global-img>", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<|START_OF_IMG|>", "<|END_OF_IMG|>",
    "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE_GLOBAL", "TILE_1", "TILE_2", "<|image|>", "<|video|>",
    "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image_start|>",
    "<|image_end|>", "<|img_thumbnail|>", "<|python_tag|>", "<|im_end|>",
)  # fmt: skip
"""Tokens of all families: one tokenizer serves them all."""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

LLAMA: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 2048, "initializer_range": 0.3,
    "tie_word_embeddings": False,
}  # fmt: skip
TOWER: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}


@dataclass(frozen=True)
class Family:
    """How a tiny model of a family is built.

    Attributes:
        model: name of the model class in transformers.
        config: arguments of its configuration, of the tokenizer's vocabulary.
        processor: the processor, of the tokenizer.
        image: what its chat template writes for an image; empty for a family without one.
        names: special tokens that the tokenizer has as attributes.
    """

    model: str
    config: Callable[[dict[str, int]], dict[str, Any]]
    processor: Callable[[Any], Any]
    image: str = "<image>"
    names: tuple[tuple[str, str], ...] = ()


def _text(kind: str, vocabulary: dict[str, int], **more: Any) -> dict[str, Any]:
    ends = {
        "bos_token_id": vocabulary["<s>"],
        "eos_token_id": vocabulary["</s>"],
        "pad_token_id": vocabulary["<pad>"],
    }
    return {"model_type": kind, **LLAMA, "vocab_size": len(vocabulary), **ends, **more}


def _of(name: str, **options: Any) -> Any:
    return getattr(transformers, name)(**options)


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _clip(**more: Any) -> dict[str, Any]:
    return {"model_type": "clip_vision_model", **TOWER, **more}


def _siglip(**more: Any) -> dict[str, Any]:
    return {"model_type": "siglip_vision_model", **TOWER, "vision_use_head": False, **more}


def _qwen_ids(vocabulary: dict[str, int]) -> dict[str, int]:
    return {
        "image_token_id": vocabulary["<|image_pad|>"], "video_token_id": vocabulary["<|video_pad|>"],
        "vision_start_token_id": vocabulary["<|vision_start|>"], "vision_end_token_id": vocabulary["<|vision_end|>"],
    }  # fmt: skip


def _qwen_processor(name: str, patch: int = 14) -> Callable[[Any], Any]:
    def build(tokenizer: Any) -> Any:
        bounds = {"shortest_edge": (2 * patch) ** 2, "longest_edge": (6 * patch) ** 2}
        images = _of("Qwen2VLImageProcessor", patch_size=patch, size=bounds)
        videos = _of(
            "Qwen3VLVideoProcessor" if "Qwen3" in name else "Qwen2VLVideoProcessor", patch_size=patch
        )
        return _of(name, image_processor=images, tokenizer=tokenizer, video_processor=videos)

    return build


FAMILIES: dict[str, Family] = {
    "llava_next": Family(
        "LlavaNextForConditionalGeneration",
        lambda v: {
            "text_config": _text("llama", v), "vision_config": _clip(), "image_token_index": v["<image>"],
            "image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]],
        },
        lambda t: _of(
            "LlavaNextProcessor",
            image_processor=_of("LlavaNextImageProcessor", size={"shortest_edge": 28}, crop_size=_square(28),
                                image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]]),
            tokenizer=t, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        ),
    ),
    "llava_onevision": Family(
        "LlavaOnevisionForConditionalGeneration",
        lambda v: {
            "text_config": _text("qwen2", v), "vision_config": _siglip(), "image_token_index": v["<image>"],
            "video_token_index": v["<video>"], "image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]],
        },
        lambda t: _of(
            "LlavaOnevisionProcessor",
            image_processor=_of("LlavaOnevisionImageProcessor", size=_square(28),
                                image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]]),
            tokenizer=t, video_processor=_of("LlavaOnevisionVideoProcessor"), num_image_tokens=4,
            vision_feature_select_strategy="full",
        ),
    ),
    "vipllava": Family(
        "VipLlavaForConditionalGeneration",
        lambda v: {
            "text_config": _text("llama", v), "vision_config": _clip(), "image_token_index": v["<image>"],
            "vision_feature_layers": [-1, -2],
        },
        lambda t: _of(
            "LlavaProcessor",
            image_processor=_of("CLIPImageProcessor", size={"shortest_edge": 28}, crop_size=_square(28)),
            tokenizer=t, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        ),
    ),
    "qwen2_vl": Family(
        "Qwen2VLForConditionalGeneration",
        lambda v: {
            "text_config": _text("qwen2_vl_text", v, rope_parameters=MROPE), **_qwen_ids(v),
            "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
        },
        _qwen_processor("Qwen2VLProcessor"),
        "<|vision_start|><|image_pad|><|vision_end|>",
    ),
    "qwen2_5_vl": Family(
        "Qwen2_5_VLForConditionalGeneration",
        lambda v: {
            "text_config": _text("qwen2_5_vl_text", v, rope_parameters=MROPE), **_qwen_ids(v),
            "vision_config": {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2,
                              "intermediate_size": 64, "fullatt_block_indexes": [1], "window_size": 56},
        },
        _qwen_processor("Qwen2_5_VLProcessor"),
        "<|vision_start|><|image_pad|><|vision_end|>",
    ),
    "qwen3_vl": Family(
        "Qwen3VLForConditionalGeneration",
        lambda v: {
            "text_config": _text("qwen3_vl_text", v, rope_parameters={**MROPE, "mrope_interleaved": True}),
            **_qwen_ids(v),
            "vision_config": {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2,
                              "intermediate_size": 64, "deepstack_visual_indexes": [0, 1],
                              "num_position_embeddings": 16},
        },
        _qwen_processor("Qwen3VLProcessor", 16),
        "<|vision_start|><|image_pad|><|vision_end|>",
    ),
    "internvl": Family(
        "InternVLForConditionalGeneration",
        lambda v: {
            "text_config": _text("qwen2", v), "image_token_id": v["<IMG_CONTEXT>"], "image_seq_length": 1,
            "vision_config": {**TOWER, "image_size": [28, 28], "patch_size": [14, 14], "model_type": "internvl_vision"},
        },
        lambda t: _of(
            "InternVLProcessor",
            image_processor=_of("GotOcr2ImageProcessor", size=_square(28), max_patches=4, crop_to_patches=True),
            tokenizer=t, video_processor=_of("InternVLVideoProcessor"), image_seq_length=1,
        ),
        "<IMG_CONTEXT>\n",
        (("start_image_token", "<img>"), ("end_image_token", "</img>"), ("context_image_token", "<IMG_CONTEXT>"),
         ("video_token", "<video>")),
    ),
    "gemma3": Family(
        "Gemma3ForConditionalGeneration",
        lambda v: {
            "text_config": _text("gemma3_text", v, sliding_window=16, query_pre_attn_scalar=8,
                                 layer_types=["sliding_attention", "full_attention"]),
            "vision_config": _siglip(image_size=56), "mm_tokens_per_image": 4,
            "boi_token_index": v["<start_of_image>"], "eoi_token_index": v["<end_of_image>"],
            "image_token_index": v["<image_soft_token>"],
        },
        lambda t: _of(
            "Gemma3Processor", image_processor=_of("Gemma3ImageProcessor", size=_square(56)), tokenizer=t,
            image_seq_length=4,
        ),
        "<start_of_image>",
        (("boi_token", "<start_of_image>"), ("eoi_token", "<end_of_image>"), ("image_token", "<image_soft_token>")),
    ),
    "paligemma": Family(
        "PaliGemmaForConditionalGeneration",
        lambda v: {
            "text_config": _text("gemma", v), "vision_config": _siglip(projection_dim=32), "projection_dim": 32,
            "image_token_index": v["<image>"], "vocab_size": len(v), "tie_word_embeddings": False,
        },
        lambda t: _of(
            "PaliGemmaProcessor",
            image_processor=_with(_of("SiglipImageProcessor", size=_square(28)), image_seq_length=4), tokenizer=t,
        ),
        "",
    ),
    "idefics2": Family(
        "Idefics2ForConditionalGeneration",
        lambda v: {
            "text_config": _text("mistral", v), "image_token_id": v["<image>"],
            "vision_config": {**TOWER, "image_size": 56, "model_type": "idefics2_vision"},
            "perceiver_config": {"hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 1,
                                 "resampler_n_heads": 2, "resampler_head_dim": 8, "num_key_value_heads": 1},
        },
        lambda t: _of(
            "Idefics2Processor",
            image_processor=_of("Idefics2ImageProcessor", size={"shortest_edge": 28, "longest_edge": 56}),
            tokenizer=t, image_seq_len=4,
        ),
    ),
    "idefics3": Family(
        "Idefics3ForConditionalGeneration",
        lambda v: {
            "text_config": _text("llama", v), "image_token_id": v["<image>"],
            "vision_config": {**TOWER, "image_size": 56, "model_type": "idefics3_vision"}, "scale_factor": 2,
        },
        lambda t: _idefics3(t),
    ),
    "smolvlm": Family(
        "SmolVLMForConditionalGeneration",
        lambda v: {
            "text_config": _text("llama", v), "image_token_id": v["<image>"],
            "vision_config": {**TOWER, "image_size": 56, "model_type": "smolvlm_vision"}, "scale_factor": 2,
        },
        lambda t: _idefics3(t),
    ),
    "mistral3": Family(
        "Mistral3ForConditionalGeneration",
        lambda v: {
            "text_config": _text("mistral", v), "image_token_index": v["[IMG]"],
            "vision_config": {**TOWER, "image_size": 56, "model_type": "pixtral", "head_dim": 16},
        },
        lambda t: _of(
            "PixtralProcessor",
            image_processor=_of("PixtralImageProcessor", size={"longest_edge": 56}, patch_size=14),
            tokenizer=t, patch_size=14, spatial_merge_size=2,
        ),
        "[IMG]",
    ),
    "aya_vision": Family(
        "AyaVisionForConditionalGeneration",
        lambda v: {
            "text_config": _text("cohere2", v, sliding_window=512), "vision_config": _siglip(),
            "image_token_index": v["<|IMG_PATCH|>"], "downsample_factor": 2, "tie_word_embeddings": False,
        },
        lambda t: _of(
            "AyaVisionProcessor",
            image_processor=_of("GotOcr2ImageProcessor", size=_square(28), max_patches=2, crop_to_patches=True),
            tokenizer=t, patch_size=14, img_size=28, downsample_factor=2,
        ),
    ),
    "glm4v": Family(
        "Glm4vForConditionalGeneration",
        lambda v: {
            "text_config": _text("glm4v_text", v, rope_parameters=MROPE), "image_token_id": v["<|image|>"],
            "video_token_id": v["<|video|>"], "image_start_token_id": v["<|begin_of_image|>"],
            "image_end_token_id": v["<|end_of_image|>"], "video_start_token_id": v["<|begin_of_video|>"],
            "video_end_token_id": v["<|end_of_video|>"],
            "vision_config": {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2,
                              "intermediate_size": 64, "image_size": 56},
        },
        lambda t: _of(
            "Glm4vProcessor",
            image_processor=_of("Glm4vImageProcessor", size={"shortest_edge": 2 * 28**2, "longest_edge": 2 * 56**2}),
            tokenizer=t, video_processor=_of("Glm4vVideoProcessor"),
        ),
        "<|begin_of_image|><|image|><|end_of_image|>",
    ),
    "lfm2_vl": Family(
        "Lfm2VlForConditionalGeneration",
        lambda v: {
            "text_config": _text("lfm2", v, layer_types=["conv", "full_attention"]), "image_token_id": v["<image>"],
            "vision_config": {**TOWER, "model_type": "siglip2_vision_model", "patch_size": 14, "num_patches": 16,
                              "vision_use_head": False}, "projector_hidden_size": 32,
        },
        lambda t: _of(
            "Lfm2VlProcessor",
            image_processor=_of("Lfm2VlImageProcessor", encoder_patch_size=14, tile_size=56, min_image_tokens=1,
                                max_image_tokens=4, max_num_patches=16),
            tokenizer=t,
        ),
    ),
    "mllama": Family(
        "MllamaForConditionalGeneration",
        lambda v: {
            "text_config": _text("mllama_text_model", v, cross_attention_layers=[1], rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
            "image_token_index": v["<|image|>"],
            "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_global_layers": 1,
                              "attention_heads": 2, "image_size": 28, "patch_size": 14, "vision_output_dim": 64,
                              "intermediate_layers_indices": [0], "max_num_tiles": 2,
                              "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]]},
        },
        lambda t: _of(
            "MllamaProcessor",
            image_processor=_of("MllamaImageProcessor", size=_square(28), max_image_tiles=2), tokenizer=t,
        ),
        "<|image|>",
    ),
}  # fmt: skip
"""By model type."""


def _idefics3(tokenizer: Any) -> Any:
    images = _of("Idefics3ImageProcessor", size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    return _of("Idefics3Processor", image_processor=images, tokenizer=tokenizer, image_seq_len=4)


def _with(processor: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(processor, name, value)
    return processor


def build_tokenizer(names: tuple[tuple[str, str], ...] = ()) -> Any:
    """A byte-level tokenizer with the special tokens of all families."""
    inner = train_bpe(TEXTS * 3, 340)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        extra_special_tokens=dict(names), model_max_length=1 << 20, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    tokens = [
        AddedToken(token, special=True, normalized=False) for token in (*SPECIAL, "<|im_start|>", *rows)
    ]
    wrapped.add_special_tokens({"additional_special_tokens": tokens})
    return wrapped


def save_image_text_model(name: str, folder: Path, seed: int = 0) -> None:
    """Save a random model of a family with its processor."""
    family = FAMILIES[name]
    tokenizer = build_tokenizer(family.names)
    processor = family.processor(tokenizer)
    if family.image:
        processor.chat_template = CHATML.replace("IMAGE", family.image)
    vocabulary = dict(processor.tokenizer.get_vocab())
    model_class = getattr(transformers, family.model)
    torch.manual_seed(seed)
    model = model_class(model_class.config_class(**family.config(vocabulary)))
    with torch.no_grad():  # large enough that answers depend on image and question
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5 if parameter.shape[-1] > 4 else 0.3)
    model.generation_config.eos_token_id = vocabulary["</s>"]
    model.generation_config.pad_token_id = vocabulary["<pad>"]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
