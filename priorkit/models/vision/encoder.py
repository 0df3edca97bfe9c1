"""An encoder: images or texts in, features and hidden states out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.models.pretrained import model_name
from priorkit.models.vision.preprocessing import Preprocessing
from priorkit.models.vision.towers import ImageOutput, forward_vision

if TYPE_CHECKING:
    from PIL import Image


@dataclass
class Encoder:
    """An image tower, its preprocessing, and a text tower with its tokenizer where there is one.

    Attributes:
        model: a dual encoder of transformers (CLIP, SigLIP, ALIGN ...) or only an image tower (DINOv2, ViT,
            MAE, a timm model ...), as ``AutoModel`` loads it.
        image_processor: resizes, crops and normalizes as in the model's training.
        tokenizer: the text tower's; None without a text tower.
    """

    model: Any
    image_processor: Any
    tokenizer: Any = None

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    @property
    def has_text(self) -> bool:
        """Whether it has a text tower."""
        return self.tokenizer is not None and hasattr(self.model, "get_text_features")

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """The image processor, split into resizing and normalization."""
        return Preprocessing(self.image_processor)

    @cached_property
    def shape(self) -> TowerShape:
        """Resolution, width, depth and tokens of the image tower, measured on a plain image."""
        from PIL import Image

        pixels = self.prepare(Image.new("RGB", (64, 64)))[None].to(self.device)
        with torch.no_grad():
            output = self.forward_vision(pixels, hidden_states=True)
        states = output.hidden_states or ()
        return TowerShape(
            resolution=(int(pixels.shape[2]), int(pixels.shape[3])),
            dim=output.features.shape[1],
            widths=tuple(int(state.shape[2]) for state in states),
            patches=tuple(int(state.shape[1]) - output.prefix for state in states),
            prefix=output.prefix,
        )

    def prepare(self, image: Image.Image) -> Tensor:
        """Resize and crop as in the model's training: uint8 ``[3, height, width]``, not yet normalized."""
        return self.preprocessing.prepare(image)

    def prepared_size(self) -> tuple[int, int]:
        """Height and width in pixels of prepared images, measured on one."""
        from PIL import Image

        pixels = self.prepare(Image.new("RGB", (64, 64)))
        return int(pixels.shape[-2]), int(pixels.shape[-1])

    def batch(self, prepared: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Stack prepared images: a tensor, or a list where their shapes differ (SigLIP 2 NaFlex)."""
        if len({image.shape for image in prepared}) > 1:
            return list(prepared)
        return torch.stack(list(prepared))

    def normalize(self, pixels: Tensor) -> Tensor:
        """Scale and normalize prepared uint8 pixels ``[batch, 3, height, width]`` to fp32, on their device."""
        return self.preprocessing.normalize(pixels)

    def forward_vision(self, pixels: Tensor | Sequence[Tensor], hidden_states: bool = False) -> ImageOutput:
        """The image tower's output for prepared uint8 pixels.

        Args:
            pixels: from :meth:`batch`; a tensor must be on the encoder's device.
            hidden_states: whether to return the hidden states of all layers.
        """
        values = (
            self.normalize(pixels)
            if isinstance(pixels, Tensor)
            else [self.normalize(image.to(self.device)) for image in pixels]
        )
        max_patches = int(getattr(self.image_processor, "max_num_patches", 0))
        return forward_vision(self.model, values, hidden_states, max_patches)

    def image_features(self, pixels: Tensor | Sequence[Tensor]) -> Tensor:
        """Image features ``[batch, dim]``, projected if the model has a projection, not normalized."""
        return self.forward_vision(pixels).features

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and mask ``[batch, time]``, padded as in the model's training.

        Raises:
            InputError: there is no text tower.
        """
        self._require_text_tower()
        config = getattr(self.model.config, "text_config", self.model.config)
        # SigLIP was trained on texts padded to their full length and without a mask.
        full_length = self.model.config.model_type.startswith("siglip")
        max_length = min(int(config.max_position_embeddings), int(self.tokenizer.model_max_length))
        encoded = self.tokenizer(
            list(texts),
            padding="max_length" if full_length else True,
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        )
        names = ("input_ids",) if full_length else ("input_ids", "attention_mask")
        return {name: encoded[name] for name in names if name in encoded}

    def text_features(self, tokens: dict[str, Tensor]) -> Tensor:
        """Projected text features ``[batch, dim]``, not normalized.

        Raises:
            InputError: there is no text tower.
        """
        self._require_text_tower()
        features = _pooled(self.model.get_text_features(**tokens))
        # FLAVA projects every token; its feature is the projected class token.
        return features[:, 0] if features.ndim == 3 else features

    def _require_text_tower(self) -> None:
        if not self.has_text:
            raise InputError(
                f"{type(self.model).__name__} has no text tower; names and captions cannot be encoded",
                hint="use an encoder such as CLIP or SigLIP",
            )

    def on_device(self, pixels: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """A batch on the encoder's device; a list stays, as :meth:`forward_vision` moves it."""
        return pixels.to(self.device) if isinstance(pixels, Tensor) else pixels

    @torch.no_grad()
    def encode_images(self, pixels: Tensor | list[Tensor]) -> Tensor:
        """L2-normalized fp32 features ``[batch, dim]`` of a batch of prepared pixels, on the CPU."""
        return l2_normalize(self.image_features(self.on_device(pixels))).cpu()

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> Iterator[Tensor]:
        """Yield L2-normalized fp32 features of the texts, ``[batch, dim]`` on the CPU.

        Raises:
            InputError: the features of a text are not finite.
        """
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            tokens = {name: value.to(self.device) for name, value in self.tokenize(batch).items()}
            features = l2_normalize(self.text_features(tokens)).cpu()
            finite = features.isfinite().all(1)
            if not bool(finite.all()):
                text = batch[int((~finite).nonzero()[0])]
                raise InputError(
                    f"its features of the text {text!r} are not finite", where=model_name(self.model)
                )
            yield features

    def save(self, folder: Path) -> None:
        """Save model, image processor and tokenizer, so that ``AutoProcessor`` finds them."""
        self.model.save_pretrained(folder)
        if self.tokenizer is None:
            self.image_processor.save_pretrained(folder)
            return
        # A tokenizer saves the padding and truncation of its last call; whether this process made one
        # depends on the workers and on where a run was resumed.
        self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.backend_tokenizer.no_truncation()
        if self.model.config.model_type == "clip":
            from transformers import CLIPProcessor

            CLIPProcessor(image_processor=self.image_processor, tokenizer=self.tokenizer).save_pretrained(
                folder
            )
        else:
            self.image_processor.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class TowerShape:
    """Sizes of an image tower.

    Attributes:
        resolution: height and width in pixels after preparation; of a square image where the model keeps
            aspect ratios.
        dim: width of the pooled feature.
        widths: width of each hidden state; they differ in hierarchical and convolutional nets only.
        patches: number of patches in each hidden state; likewise.
        prefix: number of tokens before the patches: class token and registers.
    """

    resolution: tuple[int, int]
    dim: int
    widths: tuple[int, ...]
    patches: tuple[int, ...]
    prefix: int


def _pooled(output: Any) -> Tensor:
    """The projected feature: older versions of transformers return a tensor, newer ones an output object."""
    return output if isinstance(output, Tensor) else output.pooler_output


def l2_normalize(features: Tensor) -> Tensor:
    """Features of length one along the last dimension, in fp32."""
    return torch.nn.functional.normalize(features.float(), dim=-1)


def zero_shot_head(encoder: Encoder, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """CLIP's zero-shot head: the mean over prompt templates of the names' text features.

    Each template's features are L2-normalized, and so is the mean (Radford et al. 2021, section 3.1.4).

    Args:
        encoder: one with a text tower.
        names: the classes.
        templates: prompt templates; ``{}`` is replaced by the name.

    Returns:
        fp32 ``[names, dim]`` on the CPU.
    """
    total: Tensor | None = None
    for template in templates:
        texts = [template.replace("{}", name) for name in names]
        features = torch.cat(list(encoder.encode_texts(texts)))
        total = features if total is None else total + features
    if total is None:
        raise ValueError("at least one template is needed")
    return l2_normalize(total)
