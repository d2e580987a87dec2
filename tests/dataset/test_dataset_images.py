from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from djsandbox_ray.dataset import images
from djsandbox_ray.dataset.images import decode, format_of, shortened, shortened_file


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


def test_a_picture_that_there_is_no_room_for_is_not_called_damaged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(_: Image.Image) -> None:
        raise MemoryError

    data = encoded(NOISE, "PNG")
    long = encoded(Image.new("RGB", (1, 20_000)), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(MemoryError):
        decode(data)
    with pytest.raises(MemoryError):
        shortened_file(long, 224)


@pytest.mark.parametrize("step", ["JpegImageFile", "_ORIENTATION"])
def test_memory_that_runs_out_beside_the_pixels_is_no_damage_either(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Full:
        """Whatever is done with it, there is no room."""

        def __call__(self, *_: object) -> None:
            raise MemoryError

        def __hash__(self) -> int:
            raise MemoryError

    data = encoded(NOISE, "JPEG")
    monkeypatch.setattr(images, step, Full())
    with pytest.raises(MemoryError):
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


def exif_block(entries: list[tuple[int, int, int, bytes]]) -> bytes:
    """Return an EXIF block of (tag, type, count, value)."""
    body, listed, start = b"", b"", 8 + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in sorted(entries):
        listed += struct.pack("<HHI", tag, kind, count)
        if len(value) <= 4:
            listed += value.ljust(4, b"\0")
        else:
            listed += struct.pack("<I", start + len(body))
            body += value
    head = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    return head + listed + bytes(4) + body


TURNED = (0x0112, 3, 1, struct.pack("<H", 6))


@pytest.mark.parametrize(
    "other",
    [
        (0x011A, 10, 1, struct.pack("<ii", -1, 0)),  # a resolution of -1/0
        (0x011A, 5, 1, struct.pack("<II", 1, 0)),
        (0x010F, 2, 2**31, b"\0\0\0\x7f"),  # a text far behind the end
        (0x8769, 4, 1, struct.pack("<I", 2**32 - 1)),  # a block far behind the end
        (0x8825, 2, 4, b"text"),  # a text where a place is expected
        (0x0132, 77, 1, b"????"),  # a type that is none
    ],
)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_the_orientation_is_applied_whatever_else_is_damaged(format: str, other) -> None:
    data = encoded(NOISE, format, exif=exif_block([TURNED, other]))
    assert decode(data).size == (40, 60)


@pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0" + b"\xff" * 40])
def test_damaged_exif_never_costs_a_picture(block: bytes) -> None:
    assert decode(encoded(NOISE, "JPEG", exif=block)).size == (60, 40)


def test_no_mutation_of_exif_costs_a_jpeg() -> None:
    block = exif_block(
        [TURNED, (0x011A, 5, 1, struct.pack("<II", 72, 1)), (0x010F, 2, 5, b"maker")]
    )
    good, chance = encoded(NOISE, "JPEG", exif=block), random.Random(0)
    start = good.index(b"Exif")
    for _ in range(500):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            data[start + chance.randrange(len(block))] = chance.randrange(256)
        assert decode(bytes(data)).size in ((60, 40), (40, 60))


def test_of_several_pictures_the_first_is_read() -> None:
    file = io.BytesIO()
    NOISE.save(file, "MPO", save_all=True, append_images=[NOISE.rotate(90, expand=True)])
    assert decode(file.getvalue()).size == (60, 40)
    assert format_of(file.getvalue()) == "JPEG"
    damaged = bytearray(file.getvalue())
    place = damaged.index(b"MPF\0")
    damaged[place + 4 : place + 60] = b"\xff" * 56
    assert decode(bytes(damaged)).size == (60, 40)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_read(format: str) -> None:
    file = io.BytesIO()
    black = Image.new("RGB", NOISE.size)
    NOISE.save(file, format, save_all=True, append_images=[black] * 3)
    frame = np.asarray(decode(file.getvalue()), dtype=float)
    assert np.abs(frame - np.asarray(NOISE, dtype=float)).mean() < 60


# A stream that ends early


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: int, interlaced: bool = False) -> bytes:
    """Return a PNG whose stream is closed properly after some rows."""
    pixels = np.asarray(NOISE)
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    lines = [
        b"\0" + pixels[row, left::across].tobytes()
        for left, top, across, down in passes
        for row in range(top, 40, down)
    ]
    head = struct.pack(">IIBBBBB", 60, 40, 8, 2, 0, 0, interlaced)
    body = zlib.compress(b"".join(lines[: len(lines) - 40 + rows]))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part)
        for part in ((b"IHDR", head), (b"IDAT", body[:50]), (b"IDAT", body[50:]), (b"IEND", b""))
    )


ADAM7 = [
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)),
    (0, 1, 1, 2),
]


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_without_its_last_rows_is_refused(interlaced: bool, lenient: bool) -> None:
    assert np.array_equal(np.asarray(decode(png(40, interlaced))), np.asarray(NOISE))
    for rows in (0, 1, 20, 39):
        with pytest.raises(ValueError, match=r"end before its last row|cannot be decoded"):
            decode(png(rows, interlaced))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_black_png_is_whole(mode: str) -> None:
    assert decode(encoded(Image.new(mode, (13, 7)), "PNG")).size == (13, 7)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": 0},
        {"restart_marker_blocks": 3},
        {"restart_marker_rows": 1},
        {"progressive": True},
        {"optimize": True, "quality": 30},
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_is_closed_too_early_is_refused(mode: str, options: dict) -> None:
    data = encoded(NOISE.convert(mode), "JPEG", **options)
    assert decode(data).size == (60, 40)
    start = data.index(b"\xff\xda") + 12
    for share in (0.1, 0.4, 0.6):
        cut = data[: start + int(share * (len(data) - start))] + b"\xff\xd9"
        with pytest.raises(ValueError, match=r"end before its last row|cannot be decoded"):
            decode(cut)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_whose_rest_is_zeros_is_refused(options: dict) -> None:
    """As a disk leaves a file that had its room before its content."""
    data = encoded(NOISE, "JPEG", **options)
    start = data.index(b"\xff\xda") + 12
    for share in (0.2, 0.5, 0.7, 0.9):
        kept = start + int(share * (len(data) - start))
        with pytest.raises(ValueError, match=r"end before its last row|cannot be decoded"):
            decode(data[:kept].ljust(len(data), b"\0"))
    assert decode(data + bytes(100)).size == (60, 40)


LONG = zlib.compress(bytes(2 << 20))


@pytest.mark.parametrize(
    "beside",
    [
        chunk(b"zTXt", b"a\0\0" + LONG),
        chunk(b"iTXt", b"a\0\1\0\0\0" + LONG),
        chunk(b"tEXt", b"a\0" + b"x" * (65 << 20)),
        chunk(b"tEXt", b"a\0b")[:-1] + b"?",
        chunk(b"iCCP", b"a\0\0" + LONG),
        chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", bytes(4) + b"\xff" * 22),
    ],
    ids=["zTXt", "iTXt", "tEXt", "checksum", "iCCP", "animation"],
)
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_what_lies_beside_the_pixels_never_costs_a_png(beside: bytes, before: bytes) -> None:
    """Photoshop and ImageMagick write more than Pillow takes: it would refuse the picture."""
    data = png(40, False)
    place = data.index(before) - 4
    whole = data[:place] + beside + data[place:]
    assert np.array_equal(np.asarray(decode(whole)), np.asarray(NOISE))
    assert format_of(whole) == "PNG"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_grey_jpeg_is_whole(mode: str, options: dict) -> None:
    for colour in ((128, 128, 128), (127, 127, 127)):
        image = Image.new("RGB", (50, 30), colour).convert(mode)
        assert decode(encoded(image, "JPEG", **options)).size == (50, 30)


# Very long pictures


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 65_500), (65_500, 2)])
def test_of_a_very_long_picture_the_middle_is_left(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    middle = (size[0] // 2, size[1] // 2)
    image.putpixel(middle, (255, 0, 0))
    cut = shortened(image, 224)
    assert min(cut.size) == min(size)
    assert max(cut.size) <= 17 * min(size)
    assert cut.getpixel((cut.width // 2, cut.height // 2)) == (255, 0, 0)
    with Image.open(io.BytesIO(shortened_file(encoded(image, "PNG"), 224))) as file:
        assert file.size == cut.size


@pytest.mark.parametrize("size", [(1, 300), (60, 40), (4000, 20)])
def test_other_pictures_stay_as_they_are(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    data = encoded(image, "PNG")
    assert shortened(image, 224) is image
    assert shortened_file(data, 224) is data
    assert shortened_file(b"no image", 224) == b"no image"


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    decoded = np.asarray(decode(encoded(Image.fromarray(ramp), "PNG")))
    assert np.array_equal(decoded[..., 0], ramp >> 8)


RAMP = np.linspace(0, 1, 64).reshape(8, 8)


@pytest.mark.parametrize(
    ("pixels", "format"),
    [
        ((RAMP * 65535).astype(np.uint16), "PNG"),
        ((RAMP * 65535).astype(np.uint16), "TIFF"),
        ((RAMP * 65535).astype(">u2"), "TIFF"),
        ((RAMP * 65535).astype(np.uint16), "PPM"),
        ((RAMP * 255).astype(np.int32), "TIFF"),
        ((RAMP * 65535).astype(np.int32), "TIFF"),
        ((RAMP * 2_000_000_000).astype(np.int32), "TIFF"),
        ((RAMP * 5000 - 2500).astype(np.int32), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
        (RAMP.astype(np.float32), "PPM"),
        ((RAMP * 255).astype(np.float32), "TIFF"),
        ((RAMP * 65535).astype(np.float32), "TIFF"),
        ((RAMP * 3e9 - 7).astype(np.float32), "TIFF"),
    ],
)
def test_grey_of_many_bits_is_scaled_and_not_clipped(pixels: Any, format: str) -> None:
    data = encoded(Image.fromarray(pixels), format)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode in ("I;16", "I;16B", "I", "F")
    found = np.asarray(decode(data)).astype(int)
    assert np.abs(found - 255 * RAMP[..., None]).max() <= 1.5


def test_a_dark_pgm_of_16_bits_stays_dark() -> None:
    dark = (RAMP * 200).astype(np.uint16)
    assert np.asarray(decode(encoded(Image.fromarray(dark), "PPM"))).max() <= 1


@pytest.mark.parametrize("mode", ["I", "F"])
def test_one_shade_is_a_picture(mode: str) -> None:
    for shade, found in ((0, 0), (-5, 0), (100_000_000, 0)):
        image = decode(encoded(Image.new(mode, (4, 4), shade), "TIFF"))
        assert set(np.asarray(image).ravel().tolist()) == {found}


def test_12_bits_of_a_scanner_are_scaled_as_such() -> None:
    values = [0, 0x800, 0xFFF, 0x7F0]
    packed = bytes.fromhex("".join(f"{value:03x}" for value in values))
    entries = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1)]
    entries.append((279, len(packed)))
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    start = 8 + len(packed)
    head = b"II*\0" + struct.pack("<I", start)
    data = head + packed + struct.pack("<H", len(entries)) + tags + bytes(4)
    assert np.asarray(decode(data))[0, :, 0].tolist() == [0, 0x80, 0xFF, 0x7F]


def test_pixels_that_are_no_numbers_are_refused() -> None:
    for value in (np.nan, np.inf):
        pixels = np.array([[0.5, value]], np.float32)
        with pytest.raises(ValueError, match="no finite numbers"):
            decode(encoded(Image.fromarray(pixels), "TIFF"))


@pytest.mark.parametrize(
    ("mode", "formats"),
    [
        ("1", ["PNG", "TIFF", "PPM", "BMP"]),
        ("L", ["PNG", "TIFF", "PPM", "BMP", "GIF", "JPEG"]),
        ("LA", ["PNG", "TIFF", "GIF"]),
        ("P", ["PNG", "TIFF", "GIF", "BMP"]),
        ("PA", ["TIFF"]),
        ("RGBA", ["PNG", "TIFF", "WEBP", "BMP"]),
        ("RGBX", ["TIFF", "JPEG"]),
        ("CMYK", ["TIFF", "JPEG"]),
        ("YCbCr", ["TIFF", "JPEG"]),
        ("LAB", ["TIFF"]),
    ],
)
def test_every_mode_keeps_dark_and_bright(mode: str, formats: list[str]) -> None:
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:, 16:] = 255
    grey = Image.fromarray(pixels)
    image = grey.convert("LA").convert(mode) if mode == "LA" else grey.convert("RGB").convert(mode)
    for format in formats:
        found = np.asarray(decode(encoded(image, format))).astype(int)
        assert found.shape == (16, 32, 3)
        assert found[:, :8].max() <= 4, format
        assert found[:, 24:].min() >= 251, format


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    for format in ("PNG", "GIF"):
        assert decode(encoded(image, format, transparency=1)).getpixel((0, 0)) == (255,) * 3
        assert decode(encoded(image, format, transparency=0)).getpixel((0, 0)) == (200, 0, 0)


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
