"""Whether the data of a PNG or JPEG file reach to the last row, which Pillow does not ask.

A PNG whose compressed stream is closed too early is decoded with black rows, a JPEG whose end mark
comes too early with grey ones or with less detail, both without a word.
"""

from __future__ import annotations

import io
import random
import re
import struct
import zlib
from collections.abc import Iterator

from PIL.JpegImagePlugin import JpegImageFile

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BESIDE = {b"iTXt", b"tEXt", b"zTXt", b"iCCP", b"acTL", b"fcTL", b"fdAT"}
"""Texts, colour profiles and later frames."""
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of a pixel, by PNG's colour type."""
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""First column, first row, and steps of both, of each pass of an interlaced PNG."""
_PIECE = 1 << 20

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SOS, _EOI, _DRI = 0xDA, 0xD9, 0xDD
_END = bytes([0xFF, _EOI])
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_NO_PIXELS = {*range(0xE1, 0xEE), 0xEF, 0xFE}
"""Application data and comments; not JFIF's and Adobe's, which say what the colours mean."""


def png_is_whole(data: bytes) -> bool:
    """Say whether the stream of a PNG holds all of its rows (PNG specification, section 7)."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * _SAMPLES[colour]
    needed = 0
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0:
            needed += rows * (1 + (columns * bits + 7) // 8)
    stream = zlib.decompressobj()
    for piece in _image_data(data):
        while piece and not stream.eof:
            needed -= len(stream.decompress(piece, _PIECE))
            piece = stream.unconsumed_tail
    return needed <= 0


def png_without_side_data(data: bytes) -> bytes:
    """Return a PNG without texts, profile and later frames, and any other file as it is.

    Pillow refuses a picture for a long text, which image editors write, and for damage in these.
    """
    if not data.startswith(_PNG):
        return data
    kept, start = [], 0
    for kind, place, end in _chunks(data):
        if kind in _PNG_BESIDE:
            kept.append(data[start:place])
            start = end
    return b"".join([*kept, data[start:]])


def _image_data(data: bytes) -> Iterator[bytes]:
    begun = False
    for kind, place, end in _chunks(data):
        if kind == b"IDAT":
            begun = True
            yield data[place + 8 : end - 4]
        elif begun:
            return


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the chunks of a PNG: kind, and where each begins and ends, with its checksum."""
    place = len(_PNG)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, place, place + 12 + length
        place += 12 + length


def jpeg_is_whole(data: bytes, *, looks_cut: bool) -> bool:
    """Say whether the first picture of a JPEG file was finished.

    A progressive one is when its scans hold every bit of every coefficient (ITU-T T.81, G.1.1).
    That the last scan reaches to the last block is seen by decoding with more data before the end
    mark: a finished picture stays the same.

    Args:
        data: the file.
        looks_cut: whether the last block is what a decoder makes up for a missing one.
    """
    missing: dict[int, set[int]] = {}
    end, restarts = len(data), False
    for kind, place in _segments(data):
        if kind in _FRAMES:
            missing = {data[at]: set(range(64)) for at in _components(data, place + 9, 3)}
            if kind not in (0xC2, 0xCA):
                missing = {}
        elif kind == _SOS and missing:
            count = data[place + 4]
            first, last, bits = data[place + 5 + 2 * count : place + 8 + 2 * count]
            if bits & 15 == 0:
                for at in _components(data, place + 4, 2):
                    missing[data[at]] -= set(range(first, last + 1))
        elif kind == _DRI:
            restarts = data[place + 4 : place + 6] != b"\0\0"
        elif kind == _EOI:
            end = place
            break
    if any(missing.values()):
        return False
    return not looks_cut or _pixels(data) == _pixels(data[:end] + _filling(restarts) + data[end:])


def jpeg_is_closed(data: bytes) -> bool:
    """Say whether the first picture of a JPEG file has an end mark.

    Zeros in place of its last part, which a disk may leave, are decoded like any other data.
    """
    return data.endswith(_END) or any(kind == _EOI for kind, _ in _segments(data))


def without_side_data(data: bytes) -> bytes:
    """Return a JPEG file without EXIF, comments and the like."""
    kept, start = [], 0
    for kind, place in _segments(data):
        if kind == _SOS:
            break
        if kind in _NO_PIXELS:
            kept.append(data[start:place])
            start = place + 2 + int.from_bytes(data[place + 2 : place + 4])
    return b"".join([*kept, data[start:]])


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the markers of a JPEG file up to the end mark: kind and place."""
    place = 2
    while found := _MARKER.search(data, place):
        kind, place = data[found.start() + 1], found.start()
        yield kind, place
        if kind == _EOI:
            return
        place += 2 + max(2, int.from_bytes(data[place + 2 : place + 4]))


def _components(data: bytes, count_at: int, size: int) -> range:
    """Return where the components lie that a frame or a scan lists."""
    return range(count_at + 1, count_at + 1 + size * data[count_at], size)


def _pixels(data: bytes) -> bytes:
    with JpegImageFile(io.BytesIO(data)) as image:
        return image.tobytes()


def _filling(restarts: bool) -> bytes:
    """Return data that no decoder takes for nothing, whichever restart mark it waits for."""
    chance = random.Random(0)
    marks = [b"", *(bytes([0xFF, mark]) for mark in (range(0xD0, 0xD8) if restarts else ()))]
    return b"".join(mark + bytes(chance.randrange(255) for _ in range(64)) for mark in marks)
