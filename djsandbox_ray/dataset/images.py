"""Strict decoding of images: what cannot be read whole is an error, never half an image.

What lies beside the pixels (EXIF, a second picture, later frames) never makes a picture unreadable.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from djsandbox_ray.dataset.wholeness import (
    jpeg_is_closed,
    jpeg_is_whole,
    png_is_whole,
    png_without_side_data,
    without_side_data,
)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 89_478_485
"""Pillow's own limit against decompression bombs (a quarter of a gigabyte as RGB)."""

_MOST_SCALED = 1 << 24
"""Pixels that a picture may have once its shorter side is scaled; longer ones are cut first."""
_LONGEST = 16
"""Times its shorter side is what is left of a picture that is cut before it is scaled."""

_BITS_PER_SAMPLE = 0x0102
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_JPEG = b"\xff\xd8\xff"
_PNG_INTERLACED = 28
"""Where a PNG says so."""

# Threads may decode at once: the first one in makes Pillow strict, the last one out undoes it.
_lock = threading.Lock()
_inside = 0
_outside_value = False


def decode(data: bytes) -> Image.Image:
    """Decode an image file to RGB.

    Alpha is composited on white, the EXIF orientation is applied, of an animation and of several
    pictures in one file the first is taken, and grey of more than 8 bits is scaled to these.

    Raises:
        ValueError: not an image of a known format, truncated, damaged, or too large.
        MemoryError: there was no room for it, whatever it is.
    """
    try:
        with _strict():
            try:
                return _decoded(data)
            except (ValueError, SyntaxError):  # so Pillow calls what it reads of a file
                bare = png_without_side_data(data)
                if len(bare) == len(data):
                    raise
                return _decoded(bare)
    except UnidentifiedImageError:
        raise ValueError(f"not an image of a known format ({', '.join(FORMATS)})") from None
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # whatever a decoder stumbles over
        raise ValueError(f"cannot be decoded: {error or type(error).__name__}") from error


def _decoded(data: bytes) -> Image.Image:
    with _opened(data) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels are more than {MAX_PIXELS}")
        image.load()
        if not _is_whole(image, data):
            raise ValueError("cannot be decoded: its data end before its last row")
        return _to_rgb(_upright(image))


def format_of(data: bytes) -> str:
    """Return which of :data:`FORMATS` an image file has."""
    with _opened(data) as image:
        return str(image.format)


def shortened(image: Image.Image, side: int) -> Image.Image:
    """Return the middle of a picture so long that to scale it would take too much memory.

    A picture of 1 x 20,000 pixels whose shorter side becomes 224 has a billion; who then takes the
    central square needs 224 x 224. All that are less extreme come back as they are.

    Args:
        image: any.
        side: what its shorter side is to be scaled to, in pixels.
    """
    if not _fills_memory(image.size, side):
        return image
    short, long = sorted(image.size)
    # As even or odd as it was: the middle stays the middle.
    kept = min(long, _LONGEST * short + (_LONGEST * short - long) % 2)
    start = (long - kept) // 2
    if image.width > image.height:
        return image.crop((start, 0, start + kept, image.height))
    return image.crop((0, start, image.width, start + kept))


def _fills_memory(size: tuple[int, int], side: int) -> bool:
    return side * side * max(size) > _MOST_SCALED * min(size)


def shortened_file(data: bytes, side: int) -> bytes:
    """Return an image file, or a PNG of what :func:`shortened` leaves of it.

    A file that cannot be read comes back as it is.

    Raises:
        MemoryError: there was no room for it.
    """
    try:
        with _opened(data) as image:
            if not _fills_memory(image.size, side):
                return data
        file = io.BytesIO()
        shortened(decode(data), side).save(file, "PNG")
        return file.getvalue()
    except MemoryError:
        raise  # of this machine, nothing of the file
    except Exception:  # whoever reads it will say what is wrong
        return data


def _opened(data: bytes) -> ImageFile.ImageFile:
    if not data.startswith(_JPEG):
        try:
            return Image.open(io.BytesIO(data), formats=FORMATS)
        except MemoryError:
            raise
        except Exception:
            bare = png_without_side_data(data)
            if len(bare) == len(data):
                raise
            return Image.open(io.BytesIO(bare), formats=FORMATS)
    # Pillow would also look for further pictures, and fail where their list is damaged.
    try:
        return JpegImageFile(io.BytesIO(data))
    except MemoryError:
        raise
    except Exception:
        return JpegImageFile(io.BytesIO(without_side_data(data)))


@contextmanager
def _strict() -> Iterator[None]:
    """Switch off LOAD_TRUNCATED_IMAGES, which importing Data-Juicer switches on."""
    global _inside, _outside_value
    with _lock:
        if _inside == 0:
            _outside_value = ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _outside_value


def _is_whole(image: Image.Image, data: bytes) -> bool:
    """Say whether the data reach to the last row; Pillow leaves the rest black, or grey.

    To find out costs as much as to decode, so only those are looked at closely that may be cut.
    """
    width, height = image.size
    if image.format == "PNG":
        last_row = image.crop((0, height - 1, width, height)).tobytes()
        interlaced = data[_PNG_INTERLACED] != 0
        return (any(last_row) and not interlaced) or png_is_whole(data)
    if image.format == "JPEG":
        if not jpeg_is_closed(data):
            return False
        corner = image.getpixel((width - 1, height - 1))
        bands = corner if isinstance(corner, tuple) else (corner,)
        grey = all(band in (127, 128) for band in bands)
        if grey or "progressive" in image.info:
            return jpeg_is_whole(data, looks_cut=grey)
    return True


def _upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its orientation says, whatever else its EXIF block holds."""
    try:
        method = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # damaged; Pillow raises half a dozen kinds
        method = None
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I;16"):
        # Pillow would clip at 255.
        grey = np.asarray(image) >> (_bits(image) - 8)
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_scaled(image)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


def _bits(image: Image.Image) -> int:
    """Return how many bits of a grey picture of 16 are used; cameras and scanners write 12."""
    stored = (
        image.tag_v2.get(_BITS_PER_SAMPLE, (16,)) if isinstance(image, TiffImageFile) else (16,)
    )
    return int(stored[0]) if 8 < int(stored[0]) < 16 else 16


def _scaled(image: Image.Image) -> NDArray[np.uint8]:
    """Scale grey of 32 bits to 8, (height, width).

    No file says which range is meant. It is the narrowest of the usual ones that holds all pixels,
    from 0 to 255, to 65535 or, of floats, to 1; where none does, from the least pixel to the
    greatest. A PGM of more than 8 bits is known to be one of 16.

    Raises:
        ValueError: there are pixels that are no numbers.
    """
    pixels = np.asarray(image).astype(np.float64)
    if not np.isfinite(pixels).all():
        raise ValueError("cannot be decoded: it has pixels that are no finite numbers")
    low, high = float(pixels.min()), float(pixels.max())
    usual: tuple[float, ...] = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    if image.format == "PPM" and image.mode == "I":
        usual = (65535.0,)
    top = next((one for one in usual if high <= one), None)
    if low >= 0 and top is not None:
        low, high = 0.0, top
    span = high - low or 1.0
    scaled: NDArray[np.uint8] = np.floor((pixels - low) / span * 255 + 0.5).astype(np.uint8)
    return scaled
