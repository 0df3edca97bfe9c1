"""Images from files and from bytes: bounded before they are decoded, upright, always RGB."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")

MAX_PIXELS = 128_000_000
"""Images larger than this (about 11,000 x 11,000) are refused before they are decoded."""


class BrokenImageError(Exception):
    """An image that cannot be used; the message is the reason."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where an image's bytes are.

    Attributes:
        name: how to call it in tables and messages.
        path: the file, or None where the bytes are at hand.
        content: the encoded bytes, or None where they are in the file.
        span: where the image is a part of the file (a member of a tar shard): offset and length in bytes.
    """

    name: str
    path: Path | None = None
    content: bytes | None = None
    span: tuple[int, int] | None = None

    def read(self) -> bytes | None:
        """The bytes at hand or of the span; None where the whole file is the image."""
        if self.content is not None or self.span is None or self.path is None:
            return self.content
        with self.path.open("rb") as stream:
            stream.seek(self.span[0])
            return stream.read(self.span[1])


def decode(ref: ImageRef) -> Image.Image:
    """Decode an image to upright RGB.

    EXIF rotation is applied, the first frame of an animation is taken, transparency is put on white,
    16-bit and floating grey is scaled to 8 bit.

    Raises:
        BrokenImageError: missing, not an image, truncated, or larger than :data:`MAX_PIXELS`.
    """
    from PIL import Image, ImageOps

    try:
        content = ref.read()
        source = ref.path if content is None else io.BytesIO(content)
        if source is None:
            raise BrokenImageError("no image")
        with Image.open(source) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BrokenImageError(f"{width} x {height} pixels exceed the limit of {MAX_PIXELS:,}")
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except (BrokenImageError, MemoryError):
        raise
    except Exception as error:
        # Decoders meet damaged bytes with errors of many kinds, TypeError and struct.error among them.
        reason = str(error).strip().splitlines()
        raise BrokenImageError(reason[0] if reason else type(error).__name__) from None


def upright_size(ref: ImageRef) -> tuple[int, int]:
    """Width and height of an image as :func:`decode` gives it, from its header where that suffices.

    Raises:
        BrokenImageError: missing, not an image, or larger than :data:`MAX_PIXELS`.
    """
    from PIL import ExifTags, Image

    try:
        content = ref.read()
        source = ref.path if content is None else io.BytesIO(content)
        if source is None:
            raise BrokenImageError("no image")
        with Image.open(source) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BrokenImageError(f"{width} x {height} pixels exceed the limit of {MAX_PIXELS:,}")
            # Orientations 5 to 8 lie on their side.
            lying = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            return (height, width) if lying else (width, height)
    except (BrokenImageError, MemoryError):
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise BrokenImageError(reason[0] if reason else type(error).__name__) from None


def _rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        import numpy as np

        values = np.asarray(image, dtype=np.float64)
        peak = _white(image.mode, float(values.max(initial=0)))
        grey = np.clip(values * (255.0 / peak), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _white(mode: str, largest: float) -> float:
    """The value that is white: 16 bits say it themselves, whole and floating numbers by their range."""
    if mode.startswith("I;16") or largest > 255:
        return 65535.0
    return 1.0 if mode == "F" and largest <= 1 else 255.0


def image_of(value: Any, folder: Path, name: str) -> ImageRef:
    """Read an ``image`` cell: a path below the folder, or Hugging Face's ``{bytes, path}``.

    Raises:
        BrokenImageError: nothing there, or a path that leaves its folder.
    """
    if isinstance(value, dict):
        content = value.get("bytes")
        if content:
            return ImageRef(str(value.get("path") or name), content=content)
        value = value.get("path")
    if isinstance(value, bytes) and value:
        return ImageRef(name, content=value)
    if not isinstance(value, str) or not value:
        raise BrokenImageError("no image given")
    path = below(folder, value)
    if not path.is_file():
        raise BrokenImageError(f"no such image: {value}")
    return ImageRef(value, path)


def below(folder: Path, name: str) -> Path:
    """A path inside a folder.

    Raises:
        BrokenImageError: the path leaves the folder.
    """
    # Links are not followed: those of image folders and of the hub's cache lead elsewhere by design.
    root = folder.absolute()
    path = Path(os.path.normpath(root / name))
    if not path.is_relative_to(os.path.normpath(root)):
        raise BrokenImageError(f"the path leaves its folder: {name}")
    return path
