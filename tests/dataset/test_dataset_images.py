from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from djsandbox_ray.dataset import images
from djsandbox_ray.dataset.images import decode


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.fixture(params=[False, True], ids=["strict", "as_data_juicer_sets_it"])
def lenient(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = request.param
    yield request.param
    assert request.param == ImageFile.LOAD_TRUNCATED_IMAGES, "decode must put it back"
    ImageFile.LOAD_TRUNCATED_IMAGES = before


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_come_back_exactly(format: str) -> None:
    image = decode(encoded(NOISE, format))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(NOISE))


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_are_read(format: str) -> None:
    image = decode(encoded(NOISE, format))
    assert (image.mode, image.size) == ("RGB", (60, 40))


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_truncated_images_are_refused(format: str, kept: float, lenient: bool) -> None:
    data = encoded(NOISE, format)
    with pytest.raises(ValueError, match=r".+"):
        decode(data[: int(len(data) * kept)])


def test_a_damaged_png_is_refused(lenient: bool) -> None:
    data = bytearray(encoded(NOISE, "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ValueError, match=r".+"):
        decode(bytes(data))


@pytest.mark.parametrize("data", [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an image of a known format"):
        decode(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_500, 20_000])
def test_bombs_are_refused_before_they_are_decoded(side: int) -> None:
    bomb = encoded(Image.new("1", (side, side)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(ValueError, match="pixels"):
        decode(bomb)


def test_alpha_is_composited_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    assert list(decode(encoded(image, "PNG")).get_flattened_data()) == [
        (255, 255, 255),
        (255, 0, 0),
    ]


def test_a_transparent_palette_colour_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    decoded = decode(encoded(image, "PNG", transparency=0))
    assert list(decoded.get_flattened_data()) == [(255, 255, 255), (40, 50, 60)]


def test_the_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(NOISE, "JPEG", exif=exif)).size == (40, 60)


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    decoded = np.asarray(decode(encoded(Image.fromarray(ramp), "PNG")))
    assert np.array_equal(decoded[..., 0], ramp >> 8)


def test_32_bit_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="32-bit"):
        decode(encoded(Image.new("F", (4, 4)), "TIFF"))


def test_cmyk_and_grey_become_rgb() -> None:
    for mode in ("CMYK", "L"):
        assert decode(encoded(Image.new(mode, (4, 4)), "JPEG")).mode == "RGB"


def test_threads_stay_strict_and_the_setting_comes_back(lenient: bool) -> None:
    good = encoded(NOISE, "JPEG")
    bad = good[: len(good) // 2]

    def refused(data: bytes) -> bool:
        try:
            decode(data)
        except ValueError:
            return True
        return False

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(refused, [good, bad] * 100))
    assert results == [False, True] * 100
    assert images._inside == 0
