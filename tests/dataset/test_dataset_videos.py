"""Frames of videos: the right ones, of the right size, or a sentence."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from djsandbox_ray.dataset.clips import encoded
from djsandbox_ray.dataset.videos import ClipShape, clip_of, glimpses, middle_window
from djsandbox_ray.errors import BadInput

av = pytest.importorskip("av")


def video(frames: int = 12, height: int = 24, width: int = 48) -> bytes:
    """Return a video whose frames grow brighter by 20 each."""
    shades = np.arange(frames, dtype=np.uint8)[:, None, None, None] * 20
    return encoded(np.broadcast_to(shades, (frames, height, width, 3)).copy())


def shades(clip: np.ndarray) -> list[int]:
    """Return which frames a clip shows."""
    return np.round(clip.mean(axis=(1, 2, 3)) / 20).astype(int).tolist()


def test_the_frames_are_those_of_the_window() -> None:
    data = video()
    assert shades(clip_of(data, ClipShape(12, (24, 48)))) == list(range(12))
    assert shades(clip_of(data, ClipShape(4, (24, 48)))) == [4, 5, 6, 7]
    assert shades(clip_of(data, ClipShape(5, (24, 48)), lambda count, span: 0)) == list(range(5))
    asked = []

    def end(count: int, span: int) -> int:
        asked.append((count, span))
        return count - span

    assert shades(clip_of(data, ClipShape(4, (24, 48), stride=3), end)) == [2, 5, 8, 11]
    assert asked == [(12, 10)]
    assert ClipShape(17, (8, 8), stride=2).span == 33
    assert middle_window(12, 5) == 3


def test_a_clip_of_the_size_of_the_video_is_not_scaled() -> None:
    data = video()
    with av.open(io.BytesIO(data)) as container:
        plain = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.array_equal(clip_of(data, ClipShape(12, (24, 48))), plain)


@pytest.mark.parametrize("size", [(8, 8), (24, 24), (48, 48), (10, 96), (96, 10)])
def test_a_clip_covers_its_size(size: tuple[int, int]) -> None:
    left = np.zeros((3, 24, 48, 3), np.uint8)
    left[:, :, 24:] = 255
    clip = clip_of(encoded(left), ClipShape(3, size))
    assert clip.shape == (3, *size, 3)
    assert clip.dtype == np.uint8
    # The middle stays the middle.
    columns = clip.mean(axis=(0, 1, 3))
    assert columns[0] < 30
    assert columns[-1] > 220
    assert abs(columns.mean() - 127) < 12


def test_what_is_too_short_or_no_video_is_said() -> None:
    with pytest.raises(BadInput, match="has 5 frames, a clip of 4 with a stride of 2 needs 7"):
        clip_of(video(5), ClipShape(4, (8, 8), stride=2))
    with pytest.raises(BadInput, match="a video cannot be decoded"):
        clip_of(b"no video", ClipShape(2, (8, 8)))
    with pytest.raises(BadInput, match="a video cannot be decoded"):
        clip_of(video()[:200], ClipShape(2, (8, 8)))


def test_a_video_that_announces_too_much_has_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from djsandbox_ray.dataset import videos

    monkeypatch.setattr(videos, "announced", lambda data: 20)
    assert shades(clip_of(video(), ClipShape(4, (24, 48)), lambda count, span: count - span)) == [
        *range(8, 12)
    ]
    with pytest.raises(BadInput, match="has 12 frames"):
        clip_of(video(), ClipShape(14, (24, 48)), lambda count, span: count - span)


def test_an_animation_is_a_video() -> None:
    buffer = io.BytesIO()
    pictures = [Image.new("RGB", (16, 16), (shade, 0, 0)) for shade in (0, 100, 200)]
    pictures[0].save(buffer, format="GIF", save_all=True, append_images=pictures[1:])
    clip = clip_of(buffer.getvalue(), ClipShape(3, (16, 16)))
    assert np.allclose(clip[:, 8, 8, 0], [0, 100, 200], atol=4)


def test_glimpses_are_spread_over_the_video_and_never_scaled_up() -> None:
    found = glimpses(video(), 4, 160)
    assert [frame.shape for frame in found] == [(24, 48, 3)] * 4
    assert shades(np.stack(found)) == [0, 4, 7, 11]
    assert [frame.shape for frame in glimpses(video(3), 8, 12)] == [(6, 12, 3)] * 3
    assert len(glimpses(video(), 1, 16)) == 1


def test_of_a_long_video_only_frames_are_taken_that_decode_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.videos._DECODED_WHOLE", 5)
    with av.open(io.BytesIO(video())) as container:
        keys = sum(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    found = glimpses(video(), 8, 160)
    assert len(found) == min(8, keys)
    assert shades(np.stack(found))[0] == 0


def test_glimpses_of_what_is_no_video_are_a_sentence() -> None:
    with pytest.raises(BadInput, match="cannot be decoded"):
        glimpses(b"no video", 4, 160)
