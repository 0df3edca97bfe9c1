"""The encoder as the kit uses it: pixels or texts in, features and hidden states out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.models.vision.preprocessing import Preprocessing
from priorkit.models.vision.towers import ImageOutput, look

if TYPE_CHECKING:
    from PIL import Image


@dataclass
class Encoder:
    """An image tower, its preprocessing, and a text tower with its tokenizer where there is one.

    Attributes:
        model: a dual encoder of transformers (CLIP, SigLIP, ALIGN ...) or an image tower alone (DINOv2,
            ViT, MAE, a timm model ...), as ``AutoModel`` loads it.
        image_processor: resizes, crops and normalises as the model was trained.
        tokenizer: the text tower's own; None for an image tower alone.
    """

    model: Any
    image_processor: Any
    tokenizer: Any = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def has_text(self) -> bool:
        """Whether it embeds texts beside images."""
        return self.tokenizer is not None and hasattr(self.model, "get_text_features")

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """The two halves of the image processor."""
        return Preprocessing(self.image_processor)

    @cached_property
    def shape(self) -> TowerShape:
        """Resolution, width, depth and tokens of the image tower, found by looking at a plain image."""
        from PIL import Image

        pixels = self.prepare(Image.new("RGB", (64, 64)))[None].to(self.device)
        with torch.no_grad():
            output = self.look(pixels, hidden=True)
        states = output.hidden or ()
        return TowerShape(
            resolution=(int(pixels.shape[2]), int(pixels.shape[3])),
            dim=output.features.shape[1],
            widths=tuple(int(state.shape[2]) for state in states),
            patches=tuple(int(state.shape[1]) - output.prefix for state in states),
            prefix=output.prefix,
        )

    def prepare(self, image: Image.Image) -> Tensor:
        """Resize and crop as the model was trained: uint8 ``[3, height, width]``, not yet normalised."""
        return self.preprocessing.prepare(image)

    def batch(self, prepared: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Prepared images as one batch: a tensor, or a list where their shapes differ (SigLIP 2 NaFlex)."""
        if len({image.shape for image in prepared}) > 1:
            return list(prepared)
        return torch.stack(list(prepared))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Scale and normalise prepared uint8 pixels ``[batch, 3, height, width]`` to fp32, on their device."""
        return self.preprocessing.normalise(pixels)

    def look(self, pixels: Tensor | Sequence[Tensor], hidden: bool = False) -> ImageOutput:
        """The image tower's features of prepared uint8 pixels and, if asked for, all its hidden states.

        Args:
            pixels: what :meth:`batch` makes, on the encoder's device.
            hidden: whether to return the hidden states.
        """
        values = (
            self.normalise(pixels)
            if isinstance(pixels, Tensor)
            else [self.normalise(image.to(self.device)) for image in pixels]
        )
        return look(self.model, values, hidden, int(getattr(self.image_processor, "max_num_patches", 0)))

    def image_features(self, pixels: Tensor | Sequence[Tensor]) -> Tensor:
        """Image features ``[batch, dim]`` (projected where there is a projection, not normalised)."""
        return self.look(pixels).features

    def tokenise(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and mask ``[batch, time]``, padded as the model was trained.

        Raises:
            InputError: there is no text tower.
        """
        self._need_text()
        config = getattr(self.model.config, "text_config", self.model.config)
        # SigLIP was trained on texts padded to their full length and without a mask.
        fixed = self.model.config.model_type.startswith("siglip")
        longest = min(int(config.max_position_embeddings), int(self.tokenizer.model_max_length))
        encoded = self.tokenizer(
            list(texts),
            padding="max_length" if fixed else True,
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        )
        names = ("input_ids",) if fixed else ("input_ids", "attention_mask")
        return {name: encoded[name] for name in names if name in encoded}

    def text_features(self, tokens: dict[str, Tensor]) -> Tensor:
        """Projected text features ``[batch, dim]`` (not normalised).

        Raises:
            InputError: there is no text tower.
        """
        self._need_text()
        features = pooled(self.model.get_text_features(**tokens))
        # FLAVA projects every token; its feature is the projected class token.
        return features[:, 0] if features.ndim == 3 else features

    def _need_text(self) -> None:
        if not self.has_text:
            raise InputError(
                f"{type(self.model).__name__} has no text tower; names and captions cannot be embedded",
                hint="use an encoder such as CLIP or SigLIP",
            )

    @torch.no_grad()
    def embed_images(self, batches: Iterable[Tensor | Sequence[Tensor]]) -> Tensor:
        """L2-normalised fp32 features of batches of prepared pixels, ``[images, dim]`` in main memory."""
        return torch.cat(
            [
                unit(
                    self.image_features(pixels.to(self.device) if isinstance(pixels, Tensor) else pixels)
                ).cpu()
                for pixels in batches
            ]
        )

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 256) -> Iterator[Tensor]:
        """Yield L2-normalised fp32 features of the texts, a batch at a time, in main memory."""
        for start in range(0, len(texts), batch_size):
            tokens = self.tokenise(texts[start : start + batch_size])
            yield unit(self.text_features({k: v.to(self.device) for k, v in tokens.items()})).cpu()

    def save(self, folder: Path) -> None:
        """Save model, image processor and tokenizer, so that ``AutoProcessor`` finds them."""
        self.model.save_pretrained(folder)
        if self.tokenizer is None:
            self.image_processor.save_pretrained(folder)
            return
        # The last call's padding and truncation would be saved, and whether there was one here depends on
        # workers and on where a run was resumed.
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
    """What an image tower makes of an image.

    Attributes:
        resolution: height and width in pixels after preparation; where the model keeps the images' shapes,
            those of a square one.
        dim: width of the feature.
        widths: width of each hidden state; all are equal but in hierarchical and convolutional nets.
        patches: number of patches in each hidden state, likewise.
        prefix: class token and registers in front of them.
    """

    resolution: tuple[int, int]
    dim: int
    widths: tuple[int, ...]
    patches: tuple[int, ...]
    prefix: int


def pooled(output: Any) -> Tensor:
    """The projected feature: a tensor in older transformers, the pooled output of an object in newer."""
    return output if isinstance(output, Tensor) else output.pooler_output


def unit(features: Tensor) -> Tensor:
    """fp32 features of length one."""
    return torch.nn.functional.normalize(features.float(), dim=-1)
