"""Inputs of shipped recipes with the shapes of the real ones: models on the meta device, saved as headers without weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    CLIPImageProcessor,
)

from priorkit.core.boxes import BoxWriter
from priorkit.models.language import causal_lm
from priorkit.models.language.tokenizer import add_location_tokens, load_tokenizer
from priorkit.models.multimodal.llava_assembly import assemble_llava
from priorkit.models.vision.building import preset_shape
from priorkit.models.vision.encoder import Encoder
from priorkit.models.vision.towers import register_tower

VOCABULARY = 32000


def _clip(width: int, patch: int, layers: int, side: int, text: int = 512, heads: int = 8) -> dict[str, Any]:
    return {
        "model_type": "clip",
        "projection_dim": text,
        "vision_config": {
            "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
            "num_attention_heads": width // 64, "image_size": side, "patch_size": patch, "projection_dim": text,
        },
        "text_config": {
            "hidden_size": text, "intermediate_size": 4 * text, "num_hidden_layers": 12, "num_attention_heads": heads,
            "projection_dim": text,
        },
    }  # fmt: skip


ENCODERS: dict[str, dict[str, Any]] = {
    "facebook/metaclip-b16-fullcc2.5b": _clip(768, 16, 12, 224),
    "openai/clip-vit-large-patch14-336": _clip(1024, 14, 24, 336, 768, 12),
    "facebook/dinov2-giant": {
        "model_type": "dinov2", "hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24,
        "image_size": 518, "patch_size": 14, "use_swiglu_ffn": True,
    },
    "facebook/vit-mae-huge": {
        "model_type": "vit_mae", "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
        "num_attention_heads": 16, "image_size": 224, "patch_size": 14,
    },
    "eva-vit-g": {
        "model_type": "blip_2_vision_model", "hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39,
        "num_attention_heads": 16, "image_size": 224, "patch_size": 14,
    },
}  # fmt: skip
"""Published configurations of the encoders that recipes name, without what transformers has as defaults."""

QWEN3_32B = {
    "model_type": "qwen3", "hidden_size": 5120, "intermediate_size": 25600, "num_hidden_layers": 64,
    "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
    "vocab_size": 151936, "tie_word_embeddings": False,
}  # fmt: skip


def save_header(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Write a safetensors file with the header of these tensors, and a hole where its weights would be."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in tensors.items():
        size = 4 * value.numel()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)


@dataclass
class StandIns:
    """Models without weights, made when they are first asked for.

    Attributes:
        root: the folder they are saved in.
        tokenizer: the folder of a small tokenizer, which language models carry; their vocabulary is as large as
            their configuration says.
        captions: the folder of one that ends texts as CLIP's does, which encoders carry.
    """

    root: Path
    tokenizer: Path
    captions: Path
    _made: dict[str, Path] = field(default_factory=dict[str, Path])

    def _once(self, name: str, save: Callable[[Path], None]) -> Path:
        if name not in self._made:
            folder = self.root / name.replace("/", "-").replace(" ", "-")
            folder.mkdir(parents=True)
            save(folder)
            self._made[name] = folder
        return self._made[name]

    def llm(
        self, preset: str, fields: Mapping[str, Any] | None = None, boxes: Mapping[str, Any] | None = None
    ) -> Path:
        """A language model of a preset's shape, or of the fields of its configuration.

        Args:
            preset: its name.
            fields: of its configuration, where it has no preset.
            boxes: a recipe's table, whose location tokens the tokenizer has.
        """
        located = _write_locations(boxes or {})

        def save(folder: Path) -> None:
            model, tokenizer = self._llm(preset, fields or {})
            if located:
                add_location_tokens(tokenizer, located)
            model.config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            save_header(model.state_dict(), folder / "model.safetensors")

        return self._once(f"llm {preset} {located.bins if located else ''}", save)

    def _llm(self, preset: str, fields: Mapping[str, Any]) -> tuple[Any, Any]:
        tokenizer = load_tokenizer(self.tokenizer)
        values = dict(fields) or {**causal_lm.preset_fields(preset), "vocab_size": VOCABULARY}
        config = causal_lm.build_config(values, tokenizer)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config), tokenizer

    def encoder(self, name: str) -> Path:
        """An encoder: one of :data:`ENCODERS`, or one of a preset's shape."""

        def save(folder: Path) -> None:
            encoder = self._encoder(name)
            encoder.model.config.save_pretrained(folder)
            encoder.image_processor.save_pretrained(folder)
            encoder.tokenizer.save_pretrained(folder)
            save_header(encoder.model.state_dict(), folder / "model.safetensors")

        return self._once(f"encoder {name}", save)

    def _encoder(self, name: str) -> Encoder:
        tokenizer = load_tokenizer(self.captions)
        fields = ENCODERS.get(name) or _from_preset(name)
        if "text_config" in fields:
            text = {**fields["text_config"], "eos_token_id": tokenizer.eos_token_id}
            fields = {**fields, "text_config": text}
        values = {key: value for key, value in fields.items() if key != "model_type"}
        register_tower(fields["model_type"])
        config = AutoConfig.for_model(fields["model_type"], **values)
        side = fields.get("vision_config", fields)["image_size"]
        side = 224 if name == "facebook/dinov2-giant" else side
        processor = CLIPImageProcessor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
        with torch.device("meta"):
            return Encoder(AutoModel.from_config(config), processor, tokenizer)

    def llava(self, preset: str, encoder: str, align: Mapping[str, Any]) -> Path:
        """What ``align`` makes of them with a recipe's table."""

        def save(folder: Path) -> None:
            llm, tokenizer = self._llm(preset, {})
            if located := _write_locations(align):
                add_location_tokens(tokenizer, located)
            with torch.device("meta"):
                joined = assemble_llava(
                    llm, tokenizer, self._encoder(encoder), align.get("feature_layer", -2),
                    align.get("class_token", False), seed=0, image_tokens=align.get("image_tokens"),
                    resize=align.get("resize"), resample=align.get("resample", "positions"),
                )  # fmt: skip
            joined.model.config.save_pretrained(folder)
            joined.processor.save_pretrained(folder)
            save_header(joined.model.state_dict(), folder / "model.safetensors")

        chosen = {
            key: align[key]
            for key in ("box_format", "box_bins", "feature_layer", "class_token", "image_tokens", "resize", "resample")
            if key in align
        }  # fmt: skip
        return self._once(f"llava {preset} {encoder} {sorted(chosen.items())}", save)


def _write_locations(table: Mapping[str, Any]) -> BoxWriter | None:
    if table.get("box_format") != "location-tokens":
        return None
    return BoxWriter("location-tokens", bins=table["box_bins"])


def _from_preset(name: str) -> dict[str, Any]:
    shape = preset_shape(name)
    return {
        "model_type": "clip",
        "projection_dim": shape["projection_dim"],
        "vision_config": shape["vision"],
        "text_config": shape["text"],
    }
