"""Images from files and from bytes: bounded before they are decoded, upright, always RGB."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from priorkit.data.spool import Spool

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")

MAX_PIXELS = 128_000_000
"""Images larger than this (about 11,000 x 11,000) are refused before they are decoded."""

LARGE_PIXELS = 25_000_000
"""Images larger than this (5,000 x 5,000) are reduced while they are decoded."""

REDUCED_PIXELS = 9_000_000
"""What large images are reduced to at most: 3,000 x 3,000, beyond what encoders read."""

_STRIP_PIXELS = 1 << 20
"""Pixels of a large image that are converted to RGB at a time."""

_LARGE_IMAGE = threading.Lock()
"""Held while a large image is decoded, so that threads decode one at a time."""


class BrokenImageError(Exception):
    """An image that cannot be used; the message is the reason."""


KINDS = ("cmyk", "sixteen_bit", "animated", "rotated")
"""What makes an image unusual; all become upright 8-bit RGB, an animation its first frame."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where an image's bytes are.

    Attributes:
        name: its name in tables and messages.
        path: the file, or None where the bytes are in memory.
        content: the encoded bytes, or None where they are in the file.
        span: where the image is a part of a file (a member of a tar shard): offset and length in bytes.
        spool: the unnamed file that the span is in; None where it is in ``path``.
    """

    name: str
    path: Path | None = None
    content: bytes | None = None
    span: tuple[int, int] | None = None
    spool: Spool | None = None

    def read(self) -> bytes | None:
        """The bytes in memory or of the span; None where the file is the image."""
        if self.span is not None and self.spool is not None:
            return self.spool.read(self.span)
        if self.content is not None or self.span is None or self.path is None:
            return self.content
        with self.path.open("rb") as stream:
            stream.seek(self.span[0])
            return stream.read(self.span[1])

    def spooled(self, spool: Spool) -> ImageRef:
        """The same image with its bytes moved from memory into the spool."""
        if self.content is None:
            return self
        return ImageRef(self.name, span=spool.add(self.content), spool=spool)


def decode(ref: ImageRef) -> Image.Image:
    """Decode an image to upright RGB.

    EXIF rotation is applied, the first frame of an animation is taken, transparency is put on white,
    16-bit and floating-point gray is scaled to 8 bit. An image of more than :data:`LARGE_PIXELS` is reduced by a
    whole factor to at most :data:`REDUCED_PIXELS` (means of squares of pixels, in JPEG partly by the decoder);
    :func:`upright_size` gives the full size.

    Raises:
        BrokenImageError: missing, not an image, truncated, or larger than :data:`MAX_PIXELS`.
    """
    return _decoded(ref, with_kinds=False)[0]


def decode_with_kinds(ref: ImageRef) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode an image as :func:`decode` does, and list which of :data:`KINDS` it is by its header."""
    return _decoded(ref, with_kinds=True)


def _decoded(ref: ImageRef, with_kinds: bool) -> tuple[Image.Image, tuple[str, ...]]:
    from PIL import ImageOps

    with _opened(ref) as image:
        # Pillow forgets the stored mode once the pixels are loaded.
        layout = f"{image.mode} {getattr(image, 'tile', '')}"
        if image.width * image.height > LARGE_PIXELS:
            with _LARGE_IMAGE:
                converted, kinds = _reduced(image), _kinds(image, layout) if with_kinds else ()
                image.close()  # the next one needs its memory
                return converted, kinds
        image.load()
        converted = _rgb(ImageOps.exif_transpose(image))
        # Last, as looking for a second frame may unload the first.
        return converted, _kinds(image, layout) if with_kinds else ()


def _reduction(image: Image.Image) -> int:
    """The smallest whole factor by which both sides are divided for at most :data:`REDUCED_PIXELS`."""
    return math.ceil(math.sqrt(image.width * image.height / REDUCED_PIXELS))


def _reduced(image: Image.Image) -> Image.Image:
    """A large image as upright RGB of about :data:`REDUCED_PIXELS` or fewer.

    Beyond what the decoder itself takes, up to 4 bytes per pixel, memory holds the result and a strip.
    """
    from PIL import Image, ImageOps

    factor = _reduction(image)
    image.draft(None, (image.width // factor, image.height // factor))  # JPEG decodes at 1/2, 1/4 or 1/8
    image.load()
    factor = _reduction(image)
    largest = float(cast("tuple[float, float]", image.getextrema())[1]) if image.mode[0] in "IF" else 0.0
    result = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    rows = factor * max(1, _STRIP_PIXELS // (image.width * factor))
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        result.paste(_rgb(strip, largest).reduce(factor), (0, top // factor))
    result.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    ImageOps.exif_transpose(result, in_place=True)
    return result


@contextmanager
def _opened(ref: ImageRef) -> Generator[Image.Image]:
    """Open an image, reading only its header, and check its size.

    Raises:
        BrokenImageError: as :func:`decode`, also for what goes wrong while it is open.
    """
    from PIL import Image

    try:
        content = ref.read()
        source = ref.path if content is None else io.BytesIO(content)
        if source is None:
            raise BrokenImageError("no image")
        with Image.open(source) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BrokenImageError(
                    f"{width} x {height} pixels exceed the limit of {MAX_PIXELS:,}; scale it down"
                )
            yield image
    except (BrokenImageError, MemoryError):
        raise
    except Exception as error:
        # Decoders meet damaged bytes with errors of many kinds, TypeError and struct.error among them.
        reason = str(error).strip().splitlines()
        # Some name an object in memory, whose address differs from run to run.
        reason_text = (
            re.sub(r" <\S+ object at 0x[0-9a-f]+>", "", reason[0]) if reason else type(error).__name__
        )
        raise BrokenImageError(reason_text) from None


def _kinds(image: Image.Image, layout: str) -> tuple[str, ...]:
    mode = layout.split(" ", 1)[0]
    try:
        # Cameras write a preview next to the image (MPO); that is no animation.
        animated = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
        rotated = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # what is damaged behind the first frame does not matter
        animated = rotated = False
    flags = (mode == "CMYK", mode[0] in "IF" or ";16" in layout, animated, rotated)
    return tuple(name for name, is_it in zip(KINDS, flags, strict=True) if is_it)


_ORIENTATION = 0x0112
"""EXIF's tag."""


def upright_size(ref: ImageRef) -> tuple[int, int]:
    """Width and height of an image as :func:`decode` gives it, from its header where that suffices.

    Raises:
        BrokenImageError: missing, not an image, or larger than :data:`MAX_PIXELS`.
    """
    with _opened(ref) as image:
        width, height = image.size
        # Orientations 5 to 8 are rotated by 90 degrees.
        sideways = image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
        return (height, width) if sideways else (width, height)


def _rgb(image: Image.Image, largest: float | None = None) -> Image.Image:
    """An image in RGB.

    Args:
        image: loaded.
        largest: the largest value of the full image, where this is a strip of it.
    """
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        import numpy as np

        values = np.asarray(image, dtype=np.float64)
        peak = _white(image.mode, float(values.max(initial=0)) if largest is None else largest)
        grey = np.clip(values * (255.0 / peak), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _white(mode: str, largest: float) -> float:
    """The value that is white: known for 16-bit modes, inferred from the range for others."""
    if mode.startswith("I;16") or largest > 255:
        return 65535.0
    return 1.0 if mode == "F" and largest <= 1 else 255.0


def image_reference(value: Any, folder: Path, name: str) -> ImageRef:
    """Read an ``image`` cell: a path below the folder, Hugging Face's ``{bytes, path}``, or a ``data:image/`` URI.

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
    if value.startswith("data:image/"):
        return ImageRef(name, content=_from_data_uri(value))
    path = path_within(folder, value)
    if path.is_file():
        return ImageRef(value, path)
    if path.is_symlink() and not path.exists():
        raise BrokenImageError(f"the link leads nowhere: {value}")
    raise BrokenImageError(f"no such image: {value}")


def _from_data_uri(value: str) -> bytes:
    _, separator, content = value.partition(";base64,")
    try:
        return base64.b64decode(content if separator else "", validate=True)
    except ValueError as error:
        raise BrokenImageError(f"not an image in base64: {error}") from None


def is_no_image(cell: Any) -> bool:
    """Whether an ``image`` cell holds none: null, an empty text, or the pair of nulls that some writers make of it."""
    return (
        cell is None or cell == "" or (isinstance(cell, dict) and not any(map(cell.get, ("bytes", "path"))))
    )


def path_within(folder: Path, name: str) -> Path:
    """A path inside a folder.

    Raises:
        BrokenImageError: the path leaves the folder.
    """
    # Links are not followed: those of image folders and of the hub's cache lead elsewhere by design.
    # As texts: making paths of each part would take most of the time of reading millions of rows.
    root = os.path.normpath(folder.absolute())
    path = os.path.normpath(name if name.startswith("/") else f"{root}/{name}")
    if path != root and not path.startswith(f"{root.rstrip('/')}/"):
        raise BrokenImageError(f"the path leaves its folder: {name}")
    return Path(path)


def image_digest(image: ImageRef) -> bytes:
    """16 bytes that distinguish an image from others: of its file and the place in it, or of its bytes."""
    if image.content is not None:
        return hashlib.blake2b(image.content, digest_size=16, person=b"content").digest()
    return hashlib.blake2b(f"{image.path}\0{image.span}".encode(), digest_size=16, person=b"place").digest()


def image_key(image: ImageRef) -> str:
    """What distinguishes an image from others: its file, or the digest of its bytes."""
    if image.content is not None:
        return hashlib.blake2b(image.content, digest_size=16).hexdigest()
    return str(image.path)
