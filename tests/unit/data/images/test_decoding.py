from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from priorkit.data.images import decoding
from priorkit.data.images.decoding import (
    BrokenImageError,
    ImageRef,
    Spool,
    decode,
    decode_with_kinds,
    image_reference,
    upright_size,
)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> ImageRef:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return ImageRef("test", content=stream.getvalue())


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (4, 2), "white")
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(image, "JPEG", exif=exif)).size == (2, 4)


def test_cmyk_becomes_rgb() -> None:
    found = decode(encoded(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "JPEG"))
    assert found.mode == "RGB"
    red, green, blue = found.getpixel((0, 0))  # type: ignore[misc]
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (200, 0), (32896, 128), (65535, 255)])
def test_sixteen_bits_are_scaled_by_their_range_however_dark(value: int, expected: int) -> None:
    image = Image.fromarray(np.full((2, 2), value, dtype=np.uint16))
    assert decode(encoded(image)).getpixel((0, 0)) == (expected,) * 3


@pytest.mark.parametrize(("value", "expected"), [(0.5, 127), (1.0, 255), (128.0, 128)])
def test_floating_grey_is_scaled(value: float, expected: int) -> None:
    image = Image.fromarray(np.full((2, 2), value, dtype=np.float32))
    assert decode(encoded(image, "TIFF")).getpixel((0, 0)) == (expected,) * 3


def test_transparency_is_put_on_white() -> None:
    assert decode(encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 0)))).getpixel((0, 0)) == (255, 255, 255)
    assert decode(encoded(Image.new("LA", (2, 2), (0, 0)))).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    assert decode(encoded(palette, "GIF", transparency=0)).getpixel((0, 0)) == (255, 255, 255)
    keyed = Image.new("RGB", (2, 2), (1, 2, 3))
    assert decode(encoded(keyed, transparency=(1, 2, 3))).getpixel((0, 0)) == (255, 255, 255)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    found = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert found.getpixel((0, 0)) == (255, 0, 0)


def rotated(kind: str) -> ImageRef:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.new("RGB", (4, 2)), kind, exif=exif)


@pytest.mark.parametrize(
    ("ref", "kinds"),
    [
        (encoded(Image.new("RGB", (2, 2))), ()),
        (encoded(Image.new("P", (2, 2)), "GIF"), ()),
        (encoded(Image.new("CMYK", (2, 2)), "JPEG"), ("cmyk",)),
        (encoded(Image.fromarray(np.full((2, 2), 9, dtype=np.uint16))), ("sixteen_bit",)),
        (rotated("JPEG"), ("rotated",)),
        (rotated("PNG"), ("rotated",)),
        *(
            (
                encoded(
                    Image.new("RGB", (4, 4), "red"),
                    kind,
                    save_all=True,
                    append_images=[Image.new("RGB", (4, 4), "blue")],
                ),
                ("animated",),
            )
            for kind in ("GIF", "WEBP", "PNG", "TIFF")
        ),
    ],
)
def test_unusual_images_are_reported(ref: ImageRef, kinds: tuple[str, ...]) -> None:
    found, reported = decode_with_kinds(ref)
    assert reported == kinds
    assert found.tobytes() == decode(ref).tobytes()


def test_sixteen_bit_color_is_reported_though_it_is_loaded_as_eight() -> None:
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    parts = [
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(b"\0" + b"\x80\0" * 3)),
        chunk(b"IEND", b""),
    ]
    found, reported = decode_with_kinds(ImageRef("x", content=b"\x89PNG\r\n\x1a\n" + b"".join(parts)))
    assert (found.getpixel((0, 0)), reported) == ((128, 128, 128), ("sixteen_bit",))


def test_spooled_images_are_the_same_without_their_bytes_in_memory(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    refs = [encoded(Image.new("RGB", (3, 3), color)) for color in ("red", "blue")]
    kept = [ref.spooled(spool) for ref in refs]
    spool.flush()
    assert list(tmp_path.iterdir()) == []
    assert [ref.content for ref in kept] == [None, None]
    assert [ref.read() for ref in kept[::-1]] == [ref.content for ref in refs[::-1]]
    assert decode(kept[1]).getpixel((0, 0)) == (0, 0, 255)
    file = ImageRef("a", tmp_path / "a.png")
    assert file.spooled(spool) is file


def test_the_reason_is_the_same_in_every_run() -> None:
    with pytest.raises(BrokenImageError) as caught:
        decode(ImageRef("x", content=b"no image"))
    assert str(caught.value) == "cannot identify image file"


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 99)
    with pytest.raises(BrokenImageError, match="10 x 10 pixels exceed the limit"):
        decode(encoded(Image.new("RGB", (10, 10))))


KINDS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
SOURCE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (16, 16, 3), dtype=np.uint8))
EXIF = Image.Exif()
EXIF[0x0112] = 3
CONTENT = {
    kind: encoded(SOURCE, kind, **({"exif": EXIF} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {})).content
    or b""
    for kind in KINDS
}


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    cut=st.integers(0, 400),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_images_are_broken_images_and_nothing_else(
    kind: str, cut: int, flips: list[tuple[int, int]]
) -> None:
    content = bytearray(CONTENT[kind])
    for place, value in flips:
        content[place % len(content)] = value
    with contextlib.suppress(BrokenImageError):
        assert decode(ImageRef("test", content=bytes(content[: len(content) - cut]))).mode == "RGB"


def test_cells_of_every_kind(tmp_path: Path) -> None:
    content = CONTENT["PNG"]
    (tmp_path / "a.png").write_bytes(content)
    assert image_reference("a.png", tmp_path, "n") == ImageRef("a.png", tmp_path / "a.png")
    assert image_reference({"bytes": content, "path": None}, tmp_path, "n") == ImageRef("n", content=content)
    assert image_reference({"bytes": None, "path": "a.png"}, tmp_path, "n").path == tmp_path / "a.png"
    assert image_reference(content, tmp_path, "n").content == content
    for nothing in (None, "", {}, {"bytes": b""}, 3, b""):
        with pytest.raises(BrokenImageError, match="no image given"):
            image_reference(nothing, tmp_path, "n")
    with pytest.raises(BrokenImageError, match=r"no such image: b\.png"):
        image_reference("b.png", tmp_path, "n")


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "x/../../a.png"])
def test_paths_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.png").write_bytes(CONTENT["PNG"])
    with pytest.raises(BrokenImageError, match="leaves its folder"):
        image_reference(name, tmp_path / "in", "n")


def test_links_are_followed_as_image_folders_and_the_hubs_cache_consist_of_them(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "blobs" / "1").write_bytes(CONTENT["PNG"])
    (tmp_path / "snapshot" / "a.png").symlink_to("../blobs/1")
    assert decode(image_reference("a.png", tmp_path / "snapshot", "n")).size == (16, 16)


def large_images() -> dict[str, ImageRef]:
    """Images of every mode, of sides that no factor divides."""
    values = np.random.default_rng(1).integers(0, 256, (91, 123), dtype=np.uint8)
    smooth = np.add.outer(np.arange(91), np.arange(123)).astype(np.uint8)
    grey = Image.fromarray(values)
    color = Image.merge("RGB", (grey, grey.transpose(Image.Transpose.ROTATE_180), Image.fromarray(smooth)))
    soft = Image.merge("RGB", (Image.fromarray(smooth),) * 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    keyed = color.quantize(16)
    return {
        "1": encoded(grey.convert("1")),
        "L": encoded(grey),
        "LA": encoded(Image.merge("LA", (grey, Image.fromarray(smooth)))),
        "P": encoded(color.quantize(64)),
        "P with transparency": encoded(keyed, "GIF", transparency=3),
        "RGB": encoded(color),
        "rotated": encoded(color, exif=exif),
        "RGBA": encoded(Image.merge("RGBA", (*color.split(), Image.fromarray(smooth)))),
        "I;16": encoded(Image.fromarray(values.astype(np.uint16) * 200)),
        "F": encoded(Image.fromarray(values.astype(np.float32) / 255), "TIFF"),
        "I": encoded(Image.fromarray(values.astype(np.int32) * 200), "TIFF"),
        "jpeg": encoded(soft, "JPEG", quality=98),
        "CMYK jpeg": encoded(soft.convert("CMYK"), "JPEG", quality=98),
    }


@pytest.mark.parametrize("kind", list(large_images()))
def test_large_images_are_the_means_of_their_pixels(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = large_images()[kind]
    full, kinds = decode_with_kinds(ref)
    monkeypatch.setattr(decoding, "LARGE_PIXELS", full.width * full.height)
    assert decode(ref).tobytes() == full.tobytes()
    monkeypatch.setattr(decoding, "LARGE_PIXELS", full.width * full.height - 1)
    monkeypatch.setattr(decoding, "REDUCED_PIXELS", 1000)
    monkeypatch.setattr(decoding, "_STRIP_PIXELS", 1300)
    found, found_kinds = decode_with_kinds(ref)
    turn = Image.Transpose
    # Reduced as stored, so that the incomplete squares are at the same borders.
    expected = (
        full.transpose(turn.ROTATE_90).reduce(4).transpose(turn.ROTATE_270)
        if kind == "rotated"
        else full.reduce(4)
    )
    assert (found.mode, found.size, found_kinds) == ("RGB", expected.size, kinds)
    assert upright_size(ref) == full.size
    difference = np.abs(np.asarray(found, dtype=int) - np.asarray(expected, dtype=int))
    # A JPEG decoder reduces in blocks of 8; floating-point gray is rounded before the mean.
    assert difference.max() <= (12 if "jpeg" in kind else 1)


def test_a_large_image_needs_little_memory(tmp_path: Path) -> None:
    """One bit per pixel in the file, four bytes per pixel in RGB: 400 MB that need not exist."""
    Image.new("1", (10_000, 10_000), 1).save(tmp_path / "a.png")
    program = (
        "import resource, sys, warnings; from pathlib import Path; import PIL.Image, PIL.ImageOps, numpy\n"
        "from priorkit.data.images.decoding import ImageRef, decode\n"
        "warnings.simplefilter('ignore'); peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); size = decode(ImageRef('a', Path(sys.argv[1]))).size\n"
        "print(size[0], (peak() - before) >> 10)\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "a.png")]
    side, megabytes = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert (int(side), int(megabytes) < 250) == (2500, True)
