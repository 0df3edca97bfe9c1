"""open_clip checkpoints with vision towers of timm: SigLIP and CLIP, against timm and a text tower in plain torch."""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import GELUTanh, LayerNorm
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tests.support.small_artifacts import run_in_process as cli

CLIP = Path(__file__).parents[1] / "golden" / "tiny-clip"
LETTERS = string.ascii_lowercase + string.digits
VOCABULARY = 4 + len(LETTERS) + 3


def vision_transformer(**settings) -> VisionTransformer:
    return VisionTransformer(img_size=16, patch_size=4, depth=2, num_heads=2, num_classes=0, **settings)


def _siglip(**settings) -> VisionTransformer:
    return vision_transformer(embed_dim=24, global_pool="map", class_token=False, **settings)


# What timm's own models of a family differ in, but tiny: ``timm_model_name`` is looked up in timm's registry.
@register_model
def vit_mini_patch4_siglip_16(**_) -> VisionTransformer:
    return _siglip(mlp_ratio=3.7362)


@register_model
def vit_mini_patch4_siglip_tanh_16(**_) -> VisionTransformer:
    return _siglip(act_layer=GELUTanh)


@register_model
def vit_mini_patch4_siglip_layerscale_16(**_) -> VisionTransformer:
    return _siglip(init_values=1e-2)


@register_model
def vit_mini_patch4_clip_16(**_) -> VisionTransformer:
    return vision_transformer(embed_dim=24, pre_norm=True, norm_layer=lambda n, **_: LayerNorm(n, eps=1e-5))


class Block(nn.Module):
    """A layer of open_clip's transformers, by its names."""

    def __init__(self, width: int, heads: int, eps: float, activation: nn.Module) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})
        self.activation = activation

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        read = self.ln_1(tokens)
        tokens = tokens + self.attn(read, read, read, need_weights=False, attn_mask=mask)[0]
        return tokens + self.mlp["c_proj"](self.activation(self.mlp["c_fc"](self.ln_2(tokens))))


class Text(nn.Module):
    """A text tower as open_clip computes it: CLIP's, or SigLIP's without a mask and read at the last position."""

    def __init__(self, siglip: bool, tanh: bool, out: int, width: int = 32, length: int = 10) -> None:
        super().__init__()
        eps = 1e-6 if siglip else 1e-5
        activation = nn.GELU(approximate="tanh" if tanh else "none")
        self.siglip = siglip
        self.token_embedding = nn.Embedding(VOCABULARY, width)
        self.positional_embedding = nn.Parameter(torch.randn(length, width))
        self.transformer = nn.ModuleDict(
            {"resblocks": nn.ModuleList([Block(width, 4, eps, activation) for _ in range(2)])}
        )
        self.ln_final = nn.LayerNorm(width, eps=eps)
        self.text_projection = nn.Linear(width, out) if siglip else nn.Parameter(torch.randn(width, out))

    def forward(self, ids: Tensor) -> Tensor:
        tokens = self.token_embedding(ids) + self.positional_embedding
        mask = None if self.siglip else torch.full((len(tokens[0]),) * 2, float("-inf")).triu(1)
        for block in self.transformer["resblocks"]:
            tokens = block(tokens, mask)
        tokens = self.ln_final(tokens)
        if self.siglip:
            return self.text_projection(tokens[:, -1])
        return tokens[torch.arange(len(ids)), ids.argmax(-1)] @ self.text_projection


class Model(nn.Module):
    """A model of open_clip with a vision tower of timm."""

    def __init__(self, name: str, tanh: bool = False, projected: int | None = None) -> None:
        super().__init__()
        trunk = timm.create_model(name)
        self.visual = nn.ModuleDict({"trunk": trunk, "head": nn.Sequential()})
        if projected is not None:
            self.visual["head"].add_module("proj", nn.Linear(trunk.embed_dim, projected, bias=False))
        self.text = Text(projected is None, tanh, projected or trunk.embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(1.5))
        if projected is None:
            self.logit_bias = nn.Parameter(torch.tensor(-3.0))
        for number, parameter in enumerate(self.parameters()):
            generator = torch.Generator().manual_seed(number)
            with torch.no_grad():
                parameter += torch.randn(parameter.shape, generator=generator) / 8
        self.eval()

    def images(self, pixels: Tensor) -> Tensor:
        return self.visual["head"](self.visual["trunk"](pixels))


def siglip_config(name: str, **text) -> dict:
    return {
        "model_cfg": {
            "embed_dim": 24,
            "init_logit_bias": -10,
            "custom_text": True,
            "vision_cfg": {
                "image_size": 16,
                "timm_model_name": name,
                "timm_model_pretrained": False,
                "timm_pool": "map",
                "timm_proj": "none",
            },
            "text_cfg": {
                "context_length": 10,
                "vocab_size": VOCABULARY,
                "hf_tokenizer_name": "owner/tokenizer",
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "width": 32,
                "heads": 4,
                "layers": 2,
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
                "norm_kwargs": {"eps": 1e-6},
                **text,
            },
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def save_tokenizer(folder: Path, letters: str = LETTERS) -> None:
    """A tokenizer like T5's: pieces of a unigram model, the end token as padding, sentinels behind the pieces."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(letter, -3.0) for letter in letters] + [
        ("\u2581red", -1.0),
        ("\u2581cat", -1.0),
        ("<eot>", -9.0),
    ]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="</s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<extra_id_0>", "<extra_id_1>"],
    ).save_pretrained(folder)


def checkpoint(
    folder: Path, model: nn.Module, config: dict, file: str = "open_clip_model.safetensors"
) -> Path:
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    (torch.save if file.endswith(".bin") else save_file)(tensors, folder / file)
    return folder


def changed(config: dict, **changes) -> dict:
    """A configuration with settings ``part__name`` changed; None drops one."""
    config = json.loads(json.dumps(config))
    for key, value in changes.items():
        part, _, name = key.rpartition("__")
        place = config["model_cfg"] if part != "preprocess_cfg" else config
        place = place[part] if part else place
        place.pop(name, None)
        if value is not None:
            place[name] = value
    return config


@pytest.mark.parametrize(
    ("name", "text", "file"),
    [
        ("vit_mini_patch4_siglip_16", {}, "open_clip_pytorch_model.bin"),
        (
            "vit_mini_patch4_siglip_tanh_16",
            {"act_kwargs": {"approximate": "tanh"}},
            "open_clip_model.safetensors",
        ),
    ],
    ids=["siglip", "siglip2"],
)
def test_siglip_gives_the_features_of_timm_and_open_clip(tmp_path, name, text, file):
    from transformers import SiglipModel

    model = Model(name, tanh=bool(text))
    folder = checkpoint(tmp_path / "old", model, siglip_config(name, **text), file)
    save_tokenizer(folder)
    result = cli("convert", folder, "--out", tmp_path / "new")
    assert result.code == 0, result.err
    new = SiglipModel.from_pretrained(tmp_path / "new").eval()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(3, 3, 16, 16, generator=generator)
    ids = torch.randint(0, VOCABULARY, (5, 10), generator=generator)
    with torch.no_grad():
        output, images, texts = new(input_ids=ids, pixel_values=pixels), model.images(pixels), model.text(ids)
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(output.vision_model_output.pooler_output, images, **close)
    torch.testing.assert_close(output.text_model_output.pooler_output, texts, **close)
    normalized = nn.functional.normalize(images, dim=-1) @ nn.functional.normalize(texts, dim=-1).T
    logits = normalized * model.logit_scale.exp() + model.logit_bias
    torch.testing.assert_close(output.logits_per_image, logits, **close)
    with torch.no_grad():
        patches = model.visual["trunk"].forward_features(pixels)
    torch.testing.assert_close(output.vision_model_output.last_hidden_state, patches, **close)


def test_siglip_is_an_encoder_whose_tokenizer_cleans_text_as_open_clip_does(tmp_path):
    from transformers import AutoImageProcessor, AutoTokenizer

    from priorkit.api.encoders import load_encoder

    name = "vit_mini_patch4_siglip_16"
    folder = checkpoint(tmp_path / "old", Model(name), siglip_config(name))
    save_tokenizer(folder)
    assert cli("convert", folder, "--out", tmp_path / "new").code == 0
    encoder = load_encoder(tmp_path / "new")
    assert encoder is not None
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new")
    ids = tokenizer("  A_Red,\t CAT!! ", padding="max_length").input_ids
    assert ids == tokenizer("a red cat", padding="max_length").input_ids
    pieces = tokenizer.convert_ids_to_tokens(ids)
    assert pieces == ["\u2581", "a", "\u2581red", "\u2581cat", *["</s>"] * 6]
    stored = json.loads((tmp_path / "new" / "config.json").read_text())
    assert (stored["text_config"]["pad_token_id"], stored["text_config"]["eos_token_id"]) == (1, 1)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "new")
    pixels = processor(torch.full((3, 40, 20), 255, dtype=torch.uint8), return_tensors="pt").pixel_values
    torch.testing.assert_close(pixels, torch.ones(1, 3, 16, 16))


def test_clip_with_timms_clip_tower_gives_the_same_features(tmp_path):
    from transformers import CLIPModel

    config = changed(
        siglip_config("vit_mini_patch4_clip_16"),
        embed_dim=20,
        vision_cfg__timm_pool="token",
        vision_cfg__timm_proj="linear",
        **{f"text_cfg__{key}": None for key in ("no_causal_mask", "proj_bias", "pool_type", "norm_kwargs")},
    )
    model = Model("vit_mini_patch4_clip_16", projected=20)
    folder = checkpoint(tmp_path / "old", model, config)
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(VOCABULARY)}, unk_token="w0"))
    end = f"w{VOCABULARY - 1}"
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token=end, pad_token=end).save_pretrained(folder)
    result = cli("convert", folder, "--out", tmp_path / "new")
    assert result.code == 0, result.err
    new = CLIPModel.from_pretrained(tmp_path / "new").eval()
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[3, 9, 14, VOCABULARY - 1, 0, 0, 0, 0, 0, 0], [7] * 9 + [VOCABULARY - 1]])
    with torch.no_grad():
        images, texts = new.get_image_features(pixels), new.get_text_features(ids)
        expected = model.images(pixels), model.text(ids)
    for output, features in zip((images, texts), expected, strict=True):
        features_of_clip = getattr(output, "pooler_output", output)
        torch.testing.assert_close(features_of_clip, features, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vision_cfg__timm_model_name": "vit_mini_patch4_siglip_layerscale_16"},
            "equals no vision tower of transformers' CLIP or SigLIP",
        ),
        ({"vision_cfg__timm_model_name": "vit_medium_patch16_gap_256"}, "equals no vision tower"),
        ({"vision_cfg__timm_model_name": "convnext_tiny"}, "equals no vision tower"),
        ({"vision_cfg__timm_model_name": "hf-hub:owner/model"}, "does not know"),
        ({"vision_cfg__timm_pool": None}, "with pooling 'avg' instead of 'map'"),
        ({"vision_cfg__timm_proj": "linear"}, "SigLIP does not have vision_cfg.timm_proj = 'linear'"),
        ({"text_cfg__pool_type": None}, "SigLIP does not have text_cfg.pool_type = 'argmax'"),
        ({"text_cfg__no_causal_mask": None}, "SigLIP does not have text_cfg.no_causal_mask = False"),
        ({"text_cfg__hf_model_name": "xlm-roberta"}, "SigLIP does not have text_cfg.hf_model_name"),
        ({"embed_dim": 30}, "embed_dim is 30"),
        ({"preprocess_cfg__resize_mode": "longest"}, "resize_mode is 'longest'"),
        (
            {"text_cfg__tokenizer_kwargs": {"clean": "stem"}},
            "clean is 'stem', not one of canonicalize, lower",
        ),
        ({"text_cfg__layers": 3}, "missing or of another shape"),
        ({"text_cfg__layers": 1}, "tensors have no place in Siglip"),
    ],
)
def test_models_that_transformers_has_no_class_for_are_refused(tmp_path, changes, message):
    name = "vit_mini_patch4_siglip_16"
    folder = checkpoint(tmp_path / "old", Model(name), changed(siglip_config(name), **changes))
    save_tokenizer(folder)
    result = cli("convert", folder, "--out", tmp_path / "new")
    assert (result.code, (tmp_path / "new").exists()) == (3, False)
    assert message in result.err
    if "equals no" in message or "does not have" in message:
        assert "vit_*_siglip_*" in result.err


def test_siglip_needs_its_own_tokenizer(tmp_path):
    name = "vit_mini_patch4_siglip_16"
    folder = checkpoint(tmp_path / "old", Model(name), siglip_config(name))
    result = cli("convert", folder, "--out", tmp_path / "new")
    assert result.code == 3
    assert "name its tokenizer with --tokenizer, a folder or a hub id: owner/tokenizer" in result.err
    result = cli("convert", folder, "--tokenizer", CLIP, "--out", tmp_path / "new")
    assert result.code == 3
    assert f"tokens for {VOCABULARY} embeddings" in result.err
    save_tokenizer(tmp_path / "tokenizer")
    result = cli("convert", folder, "--tokenizer", tmp_path / "tokenizer", "--out", tmp_path / "new")
    assert result.code == 0, result.err
    shutil.rmtree(tmp_path / "new")
    save_tokenizer(folder, LETTERS + string.ascii_uppercase)
    result = cli("convert", folder, "--out", tmp_path / "new")
    assert (result.code, f"for {VOCABULARY} embeddings" in result.err) == (3, True)
