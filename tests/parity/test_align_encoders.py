"""Image towers of every family inside transformers' LLaVA: the hidden states that the encoder itself gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    AutoModel,
    AutoProcessor,
    CLIPImageProcessor,
    LlavaForConditionalGeneration,
    ViTImageProcessor,
)

from priorkit.core.errors import InputError, UsageError
from priorkit.models.language.causal_lm import build_config, build_llm, preset_fields
from priorkit.models.language.tokenizer import load_tokenizer, save_tokenizer, train_bpe
from priorkit.models.multimodal.llava import load_llava
from priorkit.models.multimodal.llava_assembly import assemble_llava
from priorkit.models.vision.encoder import Encoder
from priorkit.models.vision.image_tower import extract_image_tower, replace_image_tower
from priorkit.models.vision.towers import register_tower

SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
SQUARE = {"height": 32, "width": 32}


def clip_processor() -> Any:
    return CLIPImageProcessor(size={"shortest_edge": 36}, crop_size=SQUARE)


def vit_processor() -> Any:
    return ViTImageProcessor(size=SQUARE)


register_tower("blip_2_vision_model")


def single(name: str, processor: Any, **fields: Any) -> Encoder:
    import transformers

    torch.manual_seed(5)
    model = AutoModel.from_config(getattr(transformers, f"{name}Config")(**{**SHAPE, **fields}))
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "position" in key or "cls" in key or "register" in key:
                value.normal_(std=0.5)
    return Encoder(model.eval(), processor)


def timm_vit(**options: Any) -> Encoder:
    import timm
    from transformers import TimmWrapperConfig, TimmWrapperModel
    from transformers.models.timm_wrapper import TimmWrapperImageProcessor

    torch.manual_seed(5)
    name = options.pop("name", "vit_tiny_patch16_224")
    arguments = {"img_size": 32, "depth": 3, **options}
    config = TimmWrapperConfig(architecture=name, model_args=arguments, num_labels=0)
    model = TimmWrapperModel(config).eval()
    data = {**timm.get_pretrained_cfg(name).to_dict(), "input_size": (3, 32, 32), "crop_pct": 0.8}
    return Encoder(model, TimmWrapperImageProcessor(data, architecture=name))


TOWERS = {
    "clip": (lambda: single("CLIPVision", clip_processor()), 1),
    "siglip": (lambda: single("SiglipVision", vit_processor()), 0),
    "vit": (lambda: single("ViT", vit_processor()), 1),
    "deit": (lambda: single("DeiT", vit_processor()), 2),
    "dinov2": (lambda: single("Dinov2", clip_processor(), image_size=64), 1),
    "registers": (lambda: single("Dinov2WithRegisters", clip_processor(), num_register_tokens=4), 5),
    "mae": (lambda: single("ViTMAE", vit_processor(), mask_ratio=0.75), 1),
    "blip-2": (lambda: single("Blip2Vision", vit_processor()), 1),
    "timm": (timm_vit, 1),
    "timm-eva": (lambda: timm_vit(name="eva_giant_patch14_224", patch_size=16, embed_dim=64, num_heads=4), 1),
    "timm-eva02": (lambda: timm_vit(name="eva02_tiny_patch14_224", patch_size=16), 1),
    "timm-registers": (lambda: timm_vit(name="vit_small_patch14_reg4_dinov2", patch_size=16), 5),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_bpe(["a heron stands in the water"] * 3, 300), folder)
    return load_tokenizer(folder)


@pytest.mark.parametrize("family", sorted(TOWERS))
@pytest.mark.parametrize("class_token", [False, True])
def test_llava_reads_the_encoders_hidden_states(
    family: str, class_token: bool, tokenizer: Any, tmp_path: Path
) -> None:
    make, prefix = TOWERS[family]
    encoder = make()
    image = Image.radial_gradient("L").convert("RGB").resize((50, 40))
    llm = build_llm(build_config(preset_fields("pocket-tiny"), tokenizer), 3)
    made = assemble_llava(llm, tokenizer, encoder, -2, class_token, seed=4)
    made.save(tmp_path)
    loaded = load_llava(tmp_path)
    pixels = loaded.prepare(image)[None]
    # timm resizes with Pillow, transformers with torchvision: pixel values differ by at most one level.
    distance = (encoder.prepare(image).float() - pixels[0].float()).abs()
    assert float(distance.max()) <= (3 if family.startswith("timm") else 0)
    with torch.no_grad():
        seen = encoder.forward_vision(pixels, hidden_states=True)
    assert seen.hidden_states is not None
    assert seen.prefix == prefix
    # timm's call leaves out the embeddings, so the second to last state is -2 in both.
    expected = seen.layer(-2, prefix=True)[:, int(prefix > 0 and not class_token) :]
    assert loaded.image_tokens == expected.shape[1]
    with torch.no_grad():
        torch.testing.assert_close(loaded.patch_features(pixels), expected, rtol=1e-4, atol=1e-4)
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path).eval()
    processor = AutoProcessor.from_pretrained(tmp_path)
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what"}]}],
        add_generation_prompt=True,
    )
    batch = processor(text=text, images=image, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        theirs = model(**batch).logits
        ids = batch["input_ids"]
        features = loaded.patch_features(pixels)
        ours = loaded.model.lm_head(loaded.hidden(ids, torch.ones_like(ids), features).last_hidden_state)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def other_pixels(encoder: Encoder, first: Encoder, pixels: Any, side: int) -> Any:
    """The input of a further tower: the first one's pixels, resized and normalized by its processor."""
    plain = first.normalize(pixels) * torch.tensor(first.image_processor.image_std).view(3, 1, 1)
    plain = plain + torch.tensor(first.image_processor.image_mean).view(3, 1, 1)
    if side != plain.shape[-1]:
        plain = torch.nn.functional.interpolate(plain, (side, side), mode="bicubic", antialias=True).clamp(
            0, 1
        )
    processor = encoder.image_processor
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    return (plain - mean) / std


def other_sizes() -> Encoder:
    """A DINOv2 that reads 48 pixels in 4 x 4 patches and has another depth and width than the others."""
    processor = CLIPImageProcessor(
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}, image_mean=[0.4, 0.5, 0.6],
        image_std=[0.2, 0.3, 0.25],
    )  # fmt: skip
    fields = {
        "image_size": 96,
        "patch_size": 12,
        "hidden_size": 24,
        "num_hidden_layers": 5,
        "num_register_tokens": 2,
    }
    return single("Dinov2WithRegisters", processor, **fields)


@pytest.mark.parametrize(
    ("make", "side", "grid"),
    [(TOWERS["dinov2"][0], 32, 4), (other_sizes, 48, 4), (lambda: single("SiglipVision", ViTImageProcessor(
        size={"height": 24, "width": 24}), image_size=24), 24, 3)],
    ids=["same size", "other size", "other grid"],
)  # fmt: skip
@pytest.mark.parametrize("layer", [-2, [-2, -1]])
def test_a_tower_concat_gives_the_towers_concatenated_features(
    make: Any, side: int, grid: int, layer: Any, tokenizer: Any, tmp_path: Path
) -> None:
    first, other = TOWERS["clip"][0](), make()
    llm = build_llm(build_config(preset_fields("pocket-tiny"), tokenizer), 3)
    made = assemble_llava(llm, tokenizer, first, layer, False, seed=4, further_encoders=[other])
    made.save(tmp_path)
    loaded = load_llava(tmp_path)
    before, after = made.model.state_dict(), loaded.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert str(tmp_path) not in (tmp_path / "config.json").read_text()
    image = Image.radial_gradient("L").convert("RGB").resize((50, 40))
    pixels = torch.stack([loaded.prepare(image), loaded.prepare(image.rotate(90))])
    assert torch.equal(pixels[0], first.prepare(image))
    expected: list[Any] = []
    with torch.no_grad():
        seen = first.forward_vision(pixels, hidden_states=True)
        states = other.model(
            pixel_values=other_pixels(other, first, pixels, side), output_hidden_states=True
        ).hidden_states
        for number in [layer] if isinstance(layer, int) else layer:
            patches = states[number][:, states[number].shape[1] - grid * grid :]
            if grid != 4:
                square = patches.transpose(1, 2).reshape(2, -1, grid, grid)
                square = torch.nn.functional.interpolate(square, (4, 4), mode="bilinear", align_corners=False)
                patches = square.flatten(2).transpose(1, 2)
            expected += [seen.layer(number), patches]
        features = loaded.patch_features(pixels)
    assert loaded.image_tokens == features.shape[1] == 16
    torch.testing.assert_close(features, torch.cat(expected, dim=-1), rtol=1e-4, atol=1e-4)
    # LLaVA's code gives the same, for single layers and for all.
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path).eval()
    processor = AutoProcessor.from_pretrained(tmp_path)
    batch = processor(text="<image> what", images=image, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**batch).logits
        ids = batch["input_ids"]
        ours = loaded.hidden(ids, torch.ones_like(ids), loaded.patch_features(pixels[:1])).last_hidden_state
    torch.testing.assert_close(loaded.model.lm_head(ours), theirs, rtol=1e-4, atol=1e-4)


def test_a_tower_concat_keeps_narrow_weights_and_attention(tokenizer: Any, tmp_path: Path) -> None:
    from priorkit.models.kernels.attention import choose_attention

    llm = build_llm(build_config(preset_fields("pocket-tiny"), tokenizer), 3)
    made = assemble_llava(
        llm, tokenizer, TOWERS["clip"][0](), -2, False, seed=4, further_encoders=[TOWERS["dinov2"][0]()]
    )
    made.save(tmp_path)
    choose_attention(made.model, "cpu")
    tower = made.model.model.vision_tower
    assert [part.config._attn_implementation for part in tower.towers] == ["eager", "eager"]
    narrow = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {value.dtype for value in narrow.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        output = narrow.model.vision_tower(
            torch.zeros(1, 3, 32, 32, dtype=torch.bfloat16), output_hidden_states=True
        )
    assert {state.dtype for state in output.hidden_states} == {torch.bfloat16}
    assert (len(output.hidden_states), output.last_hidden_state.shape) == (4, (1, 16, 64))
    tower.gradient_checkpointing_enable()
    made.model.train()
    tower(torch.zeros(1, 3, 32, 32), output_hidden_states=True).hidden_states[-2].sum().backward()
    assert all(any(value.grad is not None for value in part.parameters()) for part in tower.towers)


def test_without_priorkit_the_model_type_is_unknown(tokenizer: Any, tmp_path: Path) -> None:
    import subprocess
    import sys

    llm = build_llm(build_config(preset_fields("pocket-tiny"), tokenizer), 3)
    assemble_llava(
        llm, tokenizer, TOWERS["clip"][0](), -2, False, seed=4, further_encoders=[TOWERS["vit"][0]()]
    ).save(tmp_path)
    words = f"from transformers import AutoConfig; AutoConfig.from_pretrained({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "priorkit_several_towers" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("family", ["clip", "siglip", "vit", "dinov2", "mae"])
def test_more_image_tokens_by_a_finer_grid(family: str, tokenizer: Any, tmp_path: Path) -> None:
    encoder = TOWERS[family][0]()
    tower = extract_image_tower(encoder, 36)
    assert tower.patches == 36
    image = Image.linear_gradient("L").convert("RGB")
    resized = Encoder(tower.model.eval(), tower.image_processor)
    pixels = resized.prepare(image)[None]
    assert pixels.shape[-2:] == (48, 48)
    with torch.no_grad():
        states = tower.model(pixel_values=resized.normalize(pixels), output_hidden_states=True).hidden_states
    assert states[-2].shape == (1, 36 + tower.prefix, 32)


@pytest.mark.parametrize("family", ["clip", "mae", "registers"])
def test_more_image_tokens_by_interpolated_features(family: str, tokenizer: Any, tmp_path: Path) -> None:
    """The encoder sees its own resolution; its patch features are interpolated, which LLaVA's own code does too."""
    encoder = TOWERS[family][0]()
    own = extract_image_tower(encoder)
    llm = build_llm(build_config(preset_fields("pocket-tiny"), tokenizer), 3)
    made = assemble_llava(llm, tokenizer, encoder, -2, False, seed=4, image_tokens=36, resample="features")
    made.save(tmp_path)
    loaded = load_llava(tmp_path)
    image = Image.radial_gradient("L").convert("RGB").resize((50, 40))
    pixels = loaded.prepare(image)[None]
    assert pixels.shape[-2:] == (32, 32), "the encoder's own resolution"
    with torch.no_grad():
        inputs = Encoder(own.model.eval(), own.image_processor).normalize(pixels)
        patches = own.model(pixel_values=inputs, output_hidden_states=True).hidden_states[-2][:, own.prefix :]
        square = patches.transpose(1, 2).unflatten(2, (4, 4))
        square = torch.nn.functional.interpolate(square, (6, 6), mode="bilinear", align_corners=False)
        features = loaded.patch_features(pixels)
    assert loaded.image_tokens == features.shape[1] == 36
    torch.testing.assert_close(features, square.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path).eval()
    batch = AutoProcessor.from_pretrained(tmp_path)(text="<image> what", images=image, return_tensors="pt")
    assert int((batch["input_ids"] == model.config.image_token_id).sum()) == 36
    with torch.no_grad():
        theirs = model(**batch).logits
        ids = batch["input_ids"]
        ours = loaded.hidden(ids, torch.ones_like(ids), features).last_hidden_state
    torch.testing.assert_close(loaded.model.lm_head(ours), theirs, rtol=1e-4, atol=1e-4)


def test_a_grid_that_no_processor_counts_is_refused(tokenizer: Any) -> None:
    llm = build_llm(build_config(preset_fields("pocket-tiny"), tokenizer), 3)
    for tokens in (15, 400, 35 * 35):
        with pytest.raises(UsageError, match=f"cannot be counted as {tokens} features"):
            assemble_llava(
                llm,
                tokenizer,
                TOWERS["clip"][0](),
                -2,
                False,
                seed=4,
                image_tokens=tokens,
                resample="features",
            )


@pytest.mark.parametrize("family", ["clip", "siglip", "vit", "dinov2", "registers"])
def test_a_tuned_tower_replaces_the_encoders(family: str) -> None:
    encoder, tuned = TOWERS[family][0](), TOWERS[family][0]()
    with torch.no_grad():
        for value in tuned.model.parameters():
            value.add_(0.1)
    replace_image_tower(encoder, tuned.model.state_dict(), tuned.model.config, tuned.image_processor)
    for name, value in encoder.model.state_dict().items():
        assert torch.equal(value, tuned.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: timm_vit(name="resnet18", img_size=None, depth=None), "LLaVA cannot use timm's ResNet"),
        (
            lambda: single(
                "Swin",
                vit_processor(),
                embed_dim=8,
                depths=[1, 1],
                num_heads=[1, 2],
                window_size=4,
                patch_size=4,
            ),
            "LLaVA cannot read SwinModel",
        ),
    ],
)
def test_towers_that_llava_cannot_use_are_refused(make: Any, message: str) -> None:
    try:
        encoder = make()
    except TypeError:
        pytest.skip("this timm does not build the model so")
    with pytest.raises(InputError, match=message):
        extract_image_tower(encoder)
