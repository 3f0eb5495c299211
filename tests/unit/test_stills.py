"""Still images: whole, upright and at the geometry asked for, or refused."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from fovcache.decode.stills import MAX_PIXELS, decode_still
from fovcache.errors import SampleError


def noise(height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_very_pixels(kind: str) -> None:
    pixels = noise()
    assert np.array_equal(decode_still(encoded(Image.fromarray(pixels), kind)), pixels)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_other_formats_give_what_pillow_gives(kind: str) -> None:
    data = encoded(Image.fromarray(noise()), kind)
    assert np.array_equal(decode_still(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize(
    ("orientation", "turns", "mirrored"), [(1, 0, False), (2, 0, True), (3, 2, False), (6, 3, False)]
)
def test_the_orientation_of_a_camera_is_applied(orientation: int, turns: int, mirrored: bool) -> None:
    pixels = noise()
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)
    assert np.array_equal(decode_still(encoded(Image.fromarray(pixels), "PNG", exif=exif)), upright)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_eight_bit_mode_becomes_rgb(mode: str) -> None:
    image = Image.fromarray(noise()).convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert np.array_equal(decode_still(encoded(image, kind)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_file_cut_anywhere_is_refused_or_exact(kind: str) -> None:
    data = encoded(Image.fromarray(noise(16, 16)), kind)
    whole = decode_still(data)
    failures = []
    for length in range(len(data)):
        try:
            assert np.array_equal(decode_still(data[:length]), whole)
        except SampleError as error:
            failures.append((error.stage, error.permanent))
    assert set(failures) == {("decode", True)}
    assert len(failures) > 0.9 * len(data)


def test_sixteen_bits_are_refused_rather_than_clipped() -> None:
    data = encoded(Image.fromarray(np.full((4, 4), 40000, np.uint16)), "PNG")
    with pytest.raises(SampleError, match="8 bits"):
        decode_still(data)


def png_of_16_bits(kind: int, channels: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    lines = (b"\0" + bytes(range(2 * 4 * channels))) * 4
    head = struct.pack(">IIBBBBB", 4, 4, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        png_of_16_bits(0, 1),
        png_of_16_bits(2, 3),
        png_of_16_bits(4, 2),
        png_of_16_bits(6, 4),
        b"P6 2 2 65535\n" + bytes(24),
        b"P5 2 2 65535\n" + bytes(8),
    ],
    ids=["grey", "RGB", "grey with alpha", "RGBA", "PPM", "PGM"],
)
def test_more_than_eight_bits_are_refused_in_every_mode(data: bytes) -> None:
    Image.open(io.BytesIO(data)).load()  # Pillow reads it, some of them as 8 bits
    with pytest.raises(SampleError, match="8 bits a channel"):
        decode_still(data)


@pytest.mark.parametrize("data", [b"P5 2 2 15\n" + bytes([15] * 4), b"P5 2 2 255\n" + bytes([255] * 4)])
def test_fewer_bits_are_widened(data: bytes) -> None:
    assert np.array_equal(decode_still(data), np.full((2, 2, 3), 255))


def test_decoding_on_many_threads_leaves_the_programs_warnings_alone() -> None:
    data = encoded(Image.fromarray(noise(4, 4)), "PNG")
    decode_still(data)
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [decode_still(data) for _ in range(100)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", stacklevel=1)


def test_odd_metadata_is_passed_over_without_a_warning() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(noise(8, 8)), "JPEG", exif=exif.tobytes()[:-4])
    assert decode_still(data).shape == (8, 8, 3)  # warnings are errors here


def test_an_animation_is_refused() -> None:
    frames = [Image.fromarray(noise(seed=seed)) for seed in range(3)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(SampleError, match="animation of 3 frames"):
        decode_still(data)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    data = encoded(Image.new("1", (side, side)), "PNG")
    assert len(data) < 100_000
    with pytest.raises(SampleError, match=r"over the limit|too many pixels"):
        decode_still(data)


@pytest.mark.parametrize("data", [b"", b"hello, I am a text", b"\x89PNG\r\n\x1a\n", b"<svg></svg>"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(SampleError):
        decode_still(data)


@pytest.mark.parametrize(("height", "width"), [(24, 32), (32, 24), (1, 400), (400, 1), (5, 5)])
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_every_shape_becomes_the_square_asked_for(height: int, width: int, fit: str) -> None:
    assert decode_still(encoded(Image.fromarray(noise(height, width)), "PNG"), size=16, fit=fit).shape == (16, 16, 3)


def test_crop_keeps_the_middle_and_pad_adds_black() -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, :10], pixels[:, 10:20], pixels[:, 20:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    data = encoded(Image.fromarray(pixels), "PNG")
    assert (decode_still(data, size=10, fit="crop") == (0, 255, 0)).all()
    padded = decode_still(data, size=30, fit="pad")
    assert np.array_equal(padded[10:20], pixels)
    assert not padded[:10].any()
    assert not padded[20:].any()


def test_crop_equals_pillows_resize_then_centre_crop_within_rounding() -> None:
    y, x = np.mgrid[0:120, 0:160]
    smooth = np.stack([x, y, (x + y) // 2], axis=2).astype(np.uint8)
    image = Image.fromarray(smooth).resize((85, 64), Image.Resampling.BICUBIC)
    expected = np.asarray(image.crop((10, 0, 74, 64))).astype(int)
    ours = decode_still(encoded(Image.fromarray(smooth), "PNG"), size=64).astype(int)
    assert np.abs(ours - expected).max() <= 2
