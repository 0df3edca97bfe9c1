"""Images as an encoder's own image processor prepares them, cut into two halves: pixels, then normalisation.

Prepared pixels are uint8: an eighth of the memory of a float tensor with its copy, and what can be moved,
cached and sent. The second half is affine in every image processor, so it runs per batch on the device.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.models.folder import read_json

if TYPE_CHECKING:
    from PIL import Image

_PROBE = 64
"""Side of the plain images that show a processor's normalisation; it resizes them as it likes."""


Resize = Literal["crop", "squash", "pad"]
"""How an image of any shape becomes a square; see :func:`resized`."""


def resized(processor: Any, how: Resize, height: int, width: int) -> Any:
    """An image processor of transformers that makes squares in another way, and is alike in all else.

    ``crop`` scales the shorter side to the square's and cuts out the middle; ``squash`` scales both sides,
    so that normalised coordinates stay valid; ``pad`` puts the image in the middle of a square of the mean
    colour, then scales that (LLaVA 1.5's ``expand2square``).

    Args:
        processor: the encoder's own; one that crops already stays as it is for ``crop``, with its margin.
        how: the way.
        height: pixels of what it makes.
        width: likewise.

    Raises:
        InputError: it does not tell how it scales and normalises.
    """
    from transformers import CLIPImageProcessor, LlavaImageProcessor

    names = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample")
    if not all(hasattr(processor, name) for name in names):
        raise InputError(
            f"{type(processor).__name__} does not tell how it normalises, so its resizing cannot be changed",
            where="--resize",
            hint="leave it out",
        )
    if how == "crop" and processor.do_center_crop and processor.size.get("shortest_edge"):
        return processor
    same = {name: getattr(processor, name) for name in names}
    square = {"height": height, "width": width}
    if how == "squash":
        return CLIPImageProcessor(size=square, do_center_crop=False, **same)
    if how == "pad":
        return LlavaImageProcessor(do_pad=True, size=square, do_center_crop=False, **same)
    return CLIPImageProcessor(size={"shortest_edge": max(height, width)}, crop_size=square, **same)


def prepared_side(folder: Path) -> int:
    """The shorter side in pixels of the images that a model's processor makes of square ones, from its file.

    Many processors crop to less than the configuration's ``image_size``: DINOv2's says 518, its processor 224.

    Returns:
        0 where the folder has no such file, or it names no size.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            found = read_json(folder / name)
            found = found.get("image_processor") or found
            if found.get("do_center_crop") is not False and (side := _shorter(found.get("crop_size"))):
                return side
            return _shorter(found.get("size")) if found.get("do_resize") is not False else 0
    return 0


def _shorter(size: Any) -> int:
    """The shorter side of a size, which files give as a number or by its parts."""
    if isinstance(size, dict):
        sides = [side for name in ("height", "width") if isinstance(side := size.get(name), int)]
        size = min(sides) if len(sides) == 2 else size.get("shortest_edge")
    return size if isinstance(size, int) else 0


class Preprocessing:
    """The two halves of an image processor of transformers (those of timm models among them).

    Args:
        processor: the image processor.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        # Others rescale to -1..1 (ALIGN) or normalise twice (EfficientNet), or tell nothing (timm).
        known = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
        odd = ("rescale_offset", "include_top")
        self._standard = all(hasattr(processor, name) for name in known) and not any(
            getattr(processor, name, False) for name in odd
        )
        self.patchified = hasattr(processor, "max_num_patches")
        """Whether the images keep their shape and become sequences of patches (SigLIP 2 NaFlex)."""

    def prepare(self, image: Image.Image) -> Tensor:
        """Resize and crop an RGB image: uint8 ``[3, height, width]``, not yet normalised.

        Height and width are the model's own; where it keeps the images' shapes (SigLIP 2 NaFlex) they
        differ from image to image and are whole patches.
        """
        if self.patchified:
            return self._unpatchified(image)
        if self._standard:
            values = self._processor(images=image, do_rescale=False, do_normalize=False, return_tensors="pt")[
                "pixel_values"
            ][0]
        else:
            offset, scale = self._affine
            values = (self._values(image) - offset.view(-1, 1, 1)) / scale.view(-1, 1, 1)
        return values.round().clamp(0, 255).to(torch.uint8)

    def _unpatchified(self, image: Image.Image) -> Tensor:
        """The resized image, put together again from the patches that the processor made of it."""
        made = self._processor(images=image, do_rescale=False, do_normalize=False, return_tensors="pt")
        rows, columns = made["spatial_shapes"][0].tolist()
        side = int(self._processor.patch_size)
        patches = made["pixel_values"][0][: rows * columns].view(rows, columns, side, side, 3)
        pixels = patches.permute(4, 0, 2, 1, 3).reshape(3, rows * side, columns * side)
        return pixels.round().clamp(0, 255).to(torch.uint8)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Scale and normalise prepared pixels.

        Args:
            pixels: uint8 ``[..., 3, height, width]`` on any device.

        Returns:
            fp32 of the same shape on the same device.
        """
        processor, values = self._processor, pixels.float()

        def per_channel(numbers: Any) -> Tensor:
            return torch.as_tensor(numbers, dtype=torch.float32, device=values.device).view(-1, 1, 1)

        if not self._standard:
            offset, scale = self._affine
            return values * per_channel(scale) + per_channel(offset)
        if processor.do_rescale:
            values = values * float(processor.rescale_factor)
        if processor.do_normalize:
            values = (values - per_channel(processor.image_mean)) / per_channel(processor.image_std)
        return values

    def _values(self, image: Image.Image) -> Tensor:
        """What the processor itself makes of an image: fp32 ``[3, height, width]``."""
        return self._processor(images=image, return_tensors="pt")["pixel_values"][0].float()

    @cached_property
    def _affine(self) -> tuple[Tensor, Tensor]:
        """Offset and scale per channel, ``value = pixel * scale + offset``, read off black and white images."""
        from PIL import Image

        black, white = (
            self._values(Image.new("RGB", (_PROBE, _PROBE), (level, level, level))).double().mean((1, 2))
            for level in (0, 255)
        )
        return black.float(), ((white - black) / 255).float()
