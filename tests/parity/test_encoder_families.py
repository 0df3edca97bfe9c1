"""Every family of encoders: features and hidden states are those of transformers' and timm's own forward."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from priorkit.core.errors import InputError
from priorkit.models.vision.encoder import Encoder
from priorkit.models.vision.loading import check_encoder, load_config, load_encoder
from priorkit.models.vision.towers import depth

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
IMAGE = {"image_size": 32, "patch_size": 8}
TEXT = {**TOWER, "vocab_size": 40, "max_position_embeddings": 20}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZE = {"height": 32, "width": 32}


def dual(name: str, text: dict[str, Any], vision: dict[str, Any], **other: Any) -> Callable[[], Any]:
    def build() -> Any:
        config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision, **other)
        return getattr(transformers, f"{name}Model")(config)

    return build


def single(name: str, **fields: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**fields))


VISION = {**TOWER, **IMAGE}
SMALL_CONV = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
DUAL: dict[str, tuple[Callable[[], Any], str, dict[str, Any]]] = {
    "clip": (dual("CLIP", {**TEXT, **IDS}, VISION, projection_dim=12), "CLIP", {"crop_size": 32}),
    "metaclip-2": (dual("MetaClip2", {**TEXT, **IDS}, VISION, projection_dim=12), "CLIP", {"crop_size": 32}),
    "altclip": (
        dual("AltCLIP", {**TEXT, "project_dim": 16, "max_position_embeddings": 24}, VISION, projection_dim=12),
        "CLIP",
        {"crop_size": 32},
    ),
    "chinese-clip": (dual("ChineseCLIP", TEXT, VISION, projection_dim=12), "ChineseCLIP", {"crop_size": 32}),
    "siglip": (dual("Siglip", {**TEXT, "projection_size": 16}, VISION), "Siglip", {}),
    "siglip2": (
        dual("Siglip2", {**TEXT, "projection_size": 16}, {**TOWER, "patch_size": 8, "num_patches": 16}),
        "Siglip2",
        {"patch_size": 8, "max_num_patches": 16},
    ),
    "align": (
        dual(
            "Align",
            TEXT,
            {
                "image_size": 32, "kernel_sizes": [3, 3, 5], "in_channels": [32, 16, 24], "out_channels": [16, 24, 30],
                "hidden_dim": 64, "strides": [1, 1, 2], "num_block_repeats": [1, 1, 2], "expand_ratios": [1, 6, 6],
            },
            projection_dim=64,
        ),
        "EfficientNet",
        {"rescale_offset": True, "rescale_factor": 1 / 127.5, "do_normalize": False, "include_top": False},
    ),
    "blip": (
        dual("Blip", {**TEXT, "projection_dim": 12, **IDS}, {**VISION, "projection_dim": 12}, projection_dim=12),
        "Blip",
        {},
    ),
}  # fmt: skip
IMAGE_ONLY: dict[str, tuple[Callable[[], Any], str, int, int]] = {
    # family: model, image processor, tokens before the patches, hidden states
    "vit": (single("ViT", **VISION), "ViT", 1, 4),
    "deit": (single("DeiT", **VISION), "DeiT", 2, 4),
    "beit": (single("Beit", **VISION), "Beit", 1, 4),
    "msn": (single("ViTMSN", **VISION), "ViT", 1, 4),
    "mae": (single("ViTMAE", **VISION, mask_ratio=0.75), "ViT", 1, 4),
    "dinov2": (single("Dinov2", **{**VISION, "image_size": 64}), "ViT", 1, 4),
    "dinov2-registers": (single("Dinov2WithRegisters", **VISION, num_register_tokens=4), "ViT", 5, 4),
    "dinov3": (single("DINOv3ViT", **VISION, num_register_tokens=2), "ViT", 3, 4),
    "clip-vision": (single("CLIPVision", **VISION), "CLIP", 1, 4),
    "siglip-vision": (single("SiglipVision", **VISION), "Siglip", 0, 4),
    "resnet": (single("ResNet", **SMALL_CONV), "ConvNext", 0, 3),
    "convnext": (single("ConvNextV2", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2), "ConvNext", 0, 3),
    "swin": (
        single("Swin", image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4),
        "ViT",
        0,
        3,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    noise = [Image.effect_noise(size, 90).convert("RGB") for size in ((50, 50), (61, 40), (37, 80))]
    return [*noise, Image.linear_gradient("L").convert("RGB")]


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    vocabulary |= {
        word: 4 + number
        for number, word in enumerate(["a", "photo", "of", "the", "heron", "egret", "ibis", "bird"])
    }
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    from tokenizers import processors

    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        model_max_length=20,
    )  # fmt: skip


def processor_of(name: str, **options: Any) -> Any:
    if name == "Siglip2":
        return transformers.Siglip2ImageProcessor(**options)
    size = {"shortest_edge": 32} if name in ("CLIP", "ConvNext") else SIZE
    return getattr(transformers, f"{name}ImageProcessor")(size=size, **options)


def saved(folder: Path, model: Any, processor: Any, tokenizer: Any = None) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def forward(encoder: Encoder, images: list[Image.Image], hidden: bool = False) -> Any:
    with torch.no_grad():
        return encoder.forward_vision(encoder.batch([encoder.prepare(image) for image in images]), hidden)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", DUAL)
def test_both_towers_equal_transformers(family: str, images, words, tmp_path: Path) -> None:
    build, kind, options = DUAL[family]
    torch.manual_seed(0)
    folder = saved(tmp_path, build(), processor_of(kind, **options), words)
    ours = load_encoder(folder)
    theirs, processor = AutoModel.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images=images, return_tensors="pt")
    texts = ["a photo of the heron", "bird", "a egret of the ibis a bird of the photo"]
    with torch.no_grad():
        expected = theirs.get_image_features(**inputs, output_hidden_states=True)
        found = forward(ours, images, hidden=True)
        close(found.features, expected.pooler_output)
        assert len(found.hidden_states) == len(expected.hidden_states)
        for one, other in zip(found.hidden_states, expected.hidden_states, strict=True):
            close(one, other.flatten(2).transpose(1, 2) if other.ndim == 4 else other)
        padding = "max_length" if family.startswith("siglip") else True
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokens = tokenizer(texts, padding=padding, truncation=True, max_length=20, return_tensors="pt")
        names = ["input_ids"] if family.startswith("siglip") else ["input_ids", "attention_mask"]
        text = theirs.get_text_features(**{name: tokens[name] for name in names}).pooler_output
        close(torch.cat(list(ours.encode_texts(texts, 2))), torch.nn.functional.normalize(text, dim=-1))
    assert ours.has_text
    assert found.features.shape[1] == text.shape[1] == ours.shape.dim
    config = load_config(folder)
    if family == "align":
        # The number that older versions of transformers give.
        config.vision_config.num_hidden_layers = 4 * sum(config.vision_config.num_block_repeats)
    assert len(found.hidden_states) == depth(config) + 1


@pytest.mark.parametrize("family", IMAGE_ONLY)
def test_image_towers_equal_transformers(family: str, images, tmp_path: Path) -> None:
    build, kind, prefix, states = IMAGE_ONLY[family]
    torch.manual_seed(0)
    options = (
        {"crop_size": SIZE} if kind in ("CLIP", "DeiT") else {"crop_pct": 1.0} if kind == "ConvNext" else {}
    )
    folder = saved(tmp_path, build(), processor_of(kind, **options))
    with pytest.raises(InputError, match="no text tower"):
        load_encoder(folder)
    ours = load_encoder(folder, text=False)
    theirs, processor = AutoModel.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images=images, return_tensors="pt")
    if family == "mae":
        theirs.config.mask_ratio = 0.0
        inputs["noise"] = torch.arange(16.0).expand(len(images), 16)
    with torch.no_grad():
        expected = theirs(**inputs, output_hidden_states=True)
        found = forward(ours, images, hidden=True)
        plain = forward(ours, images)
    assert torch.equal(plain.features, found.features)
    feature = expected.last_hidden_state[:, 0] if family in ("mae", "msn") else expected.pooler_output
    close(found.features, feature.flatten(1))
    assert (found.prefix, len(found.hidden_states)) == (prefix, states)
    for one, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        close(one, other.flatten(2).transpose(1, 2) if other.ndim == 4 else other)
    assert found.layer(-2).shape[1:] == (ours.shape.patches[-2], ours.shape.widths[-2])
    close(found.pooled(-2, "mean"), found.layer(-2).mean(1))
    if prefix:
        close(found.pooled(-2, "auto"), found.hidden_states[-2][:, 0])
    else:
        with pytest.raises(ValueError, match="no class token"):
            found.pooled(-2, "class")
    assert not ours.has_text
    with pytest.raises(InputError, match="no text tower; names and captions"):
        ours.tokenize(["a heron"])


@pytest.mark.parametrize(
    ("name", "prefix", "options"),
    [
        ("vit_tiny_patch16_224", 1, {"depth": 2, "embed_dim": 24, "num_heads": 2}),
        ("vit_small_patch14_reg4_dinov2", 5, {"depth": 2, "embed_dim": 24, "num_heads": 2}),
        ("resnet18", 0, {"channels": (8, 8, 8, 8)}),
        ("swin_tiny_patch4_window7_224", 0, {"depths": (1, 1), "embed_dim": 8, "num_heads": (1, 2)}),
    ],
)
def test_folders_in_timms_layout(
    name: str, prefix: int, options: dict[str, Any], images, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    size = {} if name == "resnet18" else {"img_size": 56}
    theirs = timm.create_model(name, num_classes=3, **options, **size).eval()
    cfg = {"input_size": [3, 56, 56], "interpolation": "bicubic", "crop_pct": 0.9, "mean": [0.4, 0.5, 0.6],
           "std": [0.2, 0.25, 0.3]}  # fmt: skip
    config = {
        "architecture": name,
        "num_classes": 3,
        "model_args": {**options, **size},
        "pretrained_cfg": cfg,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert check_encoder(tmp_path, text=False)["model_type"] == "timm_wrapper"
    ours = load_encoder(tmp_path, text=False)
    transform = timm.data.create_transform(**timm.data.resolve_data_config(cfg))
    pixels = torch.stack([transform(image) for image in images])
    with torch.no_grad():
        torch.testing.assert_close(
            ours.normalize(ours.batch([ours.prepare(image) for image in images])), pixels, rtol=0, atol=2e-6
        )
        features = theirs.forward_features(pixels)
        found = forward(ours, images, hidden=True)
        close(found.features, theirs.forward_head(features, pre_logits=True))
        states = theirs.forward_intermediates(pixels, intermediates_only=True)
    assert found.prefix == prefix
    assert len(found.hidden_states) == len(states)
    for number, state in enumerate(states):
        close(found.layer(number), state.flatten(2).transpose(1, 2))
    assert ours.shape.resolution == (56, 56)


def test_a_folder_of_transformers_timm_wrapper(images, tmp_path: Path) -> None:
    config = transformers.TimmWrapperConfig.from_dict(
        {
            "architecture": "vit_tiny_patch16_224", "model_args": {"depth": 2, "embed_dim": 24, "num_heads": 2},
            "pretrained_cfg": {"input_size": [3, 224, 224]}, "num_classes": 2, "label_names": ["a", "b"],
        }
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.TimmWrapperModel(config).save_pretrained(tmp_path)
    ours = load_encoder(tmp_path, text=False)
    theirs, processor = (
        AutoModel.from_pretrained(tmp_path).eval(),
        AutoImageProcessor.from_pretrained(tmp_path),
    )
    with torch.no_grad():
        close(forward(ours, images).features, theirs(**processor(images)).pooler_output)


def test_a_vit_without_pooler_weights_gives_the_class_token(images, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.ViTConfig(**VISION)
    folder = saved(tmp_path, transformers.ViTModel(config, add_pooling_layer=False), processor_of("ViT"))
    ours = load_encoder(folder, text=False)
    found = forward(ours, images)
    assert torch.equal(found.features, found.last_hidden_state[:, 0])


def test_naflex_images_differ_in_shape_and_padding_is_masked(images, words, tmp_path: Path) -> None:
    build, kind, options = DUAL["siglip2"]
    torch.manual_seed(0)
    ours = load_encoder(saved(tmp_path, build(), processor_of(kind, **options), words))
    prepared = [ours.prepare(image) for image in images]
    assert len({image.shape for image in prepared}) > 1
    together = forward(ours, images, hidden=True)
    for number, image in enumerate(images):
        close(forward(ours, [image]).features[0], together.features[number])
    rows = together.mask.sum(1).tolist()
    assert rows == [image.shape[1] * image.shape[2] // 64 for image in prepared]
    close(together.pooled(1, "mean")[1], together.hidden_states[1][1, : rows[1]].mean(0))


def test_other_models_are_refused(artifacts, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected an image encoder, got 'llama'"):
        check_encoder(artifacts.llm, text=False)
    with pytest.raises(InputError, match="multimodal"):
        check_encoder(artifacts.mllm, text=False)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_size": 16}))
    with pytest.raises(InputError, match="no image preprocessing"):
        check_encoder(tmp_path, text=False)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    with pytest.raises(InputError, match="its configuration cannot be read"):
        check_encoder(tmp_path, text=False)
