"""The image encoder inside an image-text-to-text model of transformers, of any family, used by itself.

Families prepare images in many forms: one picture, tiles with a thumbnail, sequences of patches at native resolution.
Their image processors know which, and their ``get_image_features`` takes what these give. So an image is one
prepared input, encoded by itself, and its feature is the mean over the positions of the encoder's last hidden state.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from priorkit.core.errors import InputError, library_reads
from priorkit.models.folder import read_json
from priorkit.models.multimodal.image_text import check_image_text, load_image_text_processor
from priorkit.models.pretrained import load_pretrained, refuse_missing_tensors

if TYPE_CHECKING:
    from PIL import Image

_CROSS_ATTENTION = "mllama"
"""The family whose language model reads the encoder's states by cross-attention; it has no ``get_image_features``."""

_DUAL_ENCODERS = ("blip",)
"""Types that are listed as image-text-to-text models and whose ``AutoModel`` has image and text towers."""

_OF_THE_TEXT = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels")
"""What a processor gives for a prompt's text."""

Prepared = Mapping[str, Tensor]
"""An image as the model's processor prepares it: pixels, and what says how they are laid out."""


def has_image_part(folder: Path) -> bool:
    """Whether a folder holds an image-text-to-text model of transformers, by its configuration."""
    from transformers.models.auto import modeling_auto

    if not (folder / "config.json").is_file():
        return False
    kind = read_json(folder / "config.json").get("model_type")
    return kind in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and kind not in _DUAL_ENCODERS


def check_image_part(folder: Path) -> dict[str, Any]:
    """Check from headers that an image-text-to-text model has an image encoder that can be used by itself.

    Returns:
        Its ``config.json``.

    Raises:
        InputError: it has none, or cannot be loaded; see :func:`check_image_text`.
    """
    config = check_image_text(folder)
    _refuse_without_encoder(_model_class(folder), config["model_type"], str(folder))
    load_image_text_processor(folder)
    return config


def _model_class(folder: Path) -> Any:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    with library_reads("its configuration cannot be read", str(folder / "config.json")):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]


@dataclass(frozen=True)
class EncodedImage:
    """What the encoder and the projector make of one image.

    Attributes:
        states: the encoder's last hidden state without padding, ``[positions, width]``.
        read: what the projector reads, ``[positions, width]``: in LLaVA's families often of an earlier layer, or of
            several; the last hidden state in families whose projector is part of the encoder.
        embedded: what the language model gets, ``[image tokens, hidden]``.
    """

    states: Tensor
    read: Tensor
    embedded: Tensor


@dataclass
class ImagePart:
    """The image encoder of a multimodal model, with its preprocessing; it has no text tower.

    Attributes:
        model: the model that it is part of.
        processor: the model's.
        image_token: its placeholder of an image.
    """

    model: Any
    processor: Any
    image_token: str
    tokenizer: None = None

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    @property
    def has_text(self) -> bool:
        """Whether it has a text tower."""
        return False

    @property
    def projects_to_embeddings(self) -> bool:
        """Whether projected tokens take the place of token embeddings; cross-attention reads them otherwise."""
        return self.model.config.model_type != _CROSS_ATTENTION

    @cached_property
    def _arguments(self) -> frozenset[str]:
        inner = getattr(self.model, "model", self.model)
        call = getattr(inner, "get_image_features", None) or self.model.get_image_features
        return frozenset(inspect.signature(call).parameters)

    def prepare(self, image: Image.Image) -> Prepared:
        """An image as the model's processor prepares it."""
        # Processors tell their image processors more than these know (Pixtral's: the size of merged patches).
        text = f"{self.image_token}a"
        encoded = self.processor(text=[text], images=[[image]], return_tensors="pt", add_special_tokens=False)
        return {
            name: value
            for name, value in encoded.items()
            if isinstance(value, Tensor) and name not in _OF_THE_TEXT
        }

    def batch(self, prepared: Sequence[Prepared]) -> Sequence[Prepared]:
        """Images stay apart: they differ in tiles and resolution."""
        return prepared

    def encode(self, prepared: Prepared) -> EncodedImage:
        """What the encoder and the projector make of an image."""
        dtype = next(self.model.parameters()).dtype
        given = {
            name: value.to(self.device, dtype if value.is_floating_point() else None)
            for name, value in prepared.items()
        }
        if self.model.config.model_type == _CROSS_ATTENTION:
            return self._encode_tiles(given)
        known = {name: value for name, value in given.items() if name in self._arguments}
        with _inputs_of(self._projector) as read:
            output = self.model.get_image_features(**known)
        state, projected = output.last_hidden_state, output.pooler_output
        if state is None:
            raise InputError(f"{type(self.model).__name__} gives no states of its image encoder")
        mask = given.get("pixel_attention_mask")
        if mask is not None and mask.shape == state.shape[:-1]:
            state = state[mask.bool()]
        embedded = projected if isinstance(projected, Tensor) else torch.cat([*projected])
        return EncodedImage(_positions(state), torch.cat(read or [_positions(state)]), _positions(embedded))

    @property
    def _projector(self) -> nn.Module | None:
        """The module between encoder and language model, where the family has one by the usual name."""
        return getattr(getattr(self.model, "model", self.model), "multi_modal_projector", None)

    def _encode_tiles(self, given: Prepared) -> EncodedImage:
        """Llama 3.2 Vision: states of all tiles, ``[images, media, tiles, positions, width]``."""
        inner = self.model.model
        known = inspect.signature(inner.vision_model.forward).parameters
        output = inner.vision_model(**{name: value for name, value in given.items() if name in known})
        state = _positions(output.last_hidden_state[given["aspect_ratio_mask"].bool()])
        return EncodedImage(state, state, inner.multi_modal_projector(state))

    @torch.no_grad()
    def encode_images(self, prepared: Sequence[Prepared]) -> Tensor:
        """L2-normalized fp32 features ``[batch, width]`` on the CPU, each the mean over an image's positions."""
        features = torch.stack([self.encode(image).states.float().mean(0) for image in prepared])
        return torch.nn.functional.normalize(features, dim=-1).cpu()


def load_image_part(folder: Path) -> ImagePart:
    """Load the image encoder of an image-text-to-text model in fp32; of its language model one layer only.

    Raises:
        InputError: it cannot be loaded, or has no image encoder that can be used by itself.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    check_image_part(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    _shorten(config.get_text_config())
    model, report = load_pretrained(AutoModelForImageTextToText, folder, config=config, dtype=torch.float32)
    refuse_missing_tensors(report, folder)
    return image_part_of(model.eval(), *load_image_text_processor(folder), str(folder))


def image_part_of(model: Any, processor: Any, image_token: str, where: str) -> ImagePart:
    """The image encoder of a loaded model, tried on one picture.

    Args:
        model: an image-text-to-text model of transformers.
        processor: the model's.
        image_token: its placeholder of an image.
        where: what messages name.

    Raises:
        InputError: it has no image encoder that can be used by itself.
    """
    from PIL import Image

    _refuse_without_encoder(model, str(model.config.model_type), where)
    part = ImagePart(model, processor, image_token)
    picture = Image.linear_gradient("L").convert("RGB").resize((64, 64))
    with library_reads("its image processor and image encoder do not work together", where):
        part.encode_images([part.prepare(picture)])
    return part


def _positions(states: Tensor) -> Tensor:
    return states.reshape(-1, states.shape[-1])


@contextmanager
def _inputs_of(module: nn.Module | None) -> Iterator[list[Tensor]]:
    """The first argument of every call of a module, ``[positions, width]``."""
    seen: list[Tensor] = []
    if module is None:
        yield seen
        return
    hook = module.register_forward_pre_hook(lambda _, given: seen.append(_positions(given[0])))
    try:
        yield seen
    finally:
        hook.remove()


def _refuse_without_encoder(model: Any, kind: str, where: str) -> None:
    """Refuse a model, or a class of models, without an image encoder that can be used by itself."""
    if not hasattr(model, "get_image_features") and kind != _CROSS_ATTENTION:
        raise InputError(
            f"a model of type '{kind}' has no image encoder that can be used by itself", where=where
        )


def _shorten(text: Any) -> None:
    """Cut a language model's configuration to its first layer; the weights of the others are then not read."""
    text.num_hidden_layers = 1
    for name in ("layer_types", "mlp_layer_types"):
        if isinstance(getattr(text, name, None), list):
            setattr(text, name, getattr(text, name)[:1])
    if hasattr(text, "cross_attention_layers"):
        text.cross_attention_layers = [layer for layer in text.cross_attention_layers if layer < 1]
