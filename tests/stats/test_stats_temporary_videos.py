"""Videos lie in files while one sample is computed, and nothing of them stays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from djsandbox_ray.errors import BadInput, StorageFailed
from djsandbox_ray.stats import temporary_videos
from djsandbox_ray.stats.fused import FusedOperators
from djsandbox_ray.stats.operators import BadProcess, OperatorSpec, operator_id, parse_process
from djsandbox_ray.stats.temporary_videos import (
    TemporaryVideos,
    forget,
    opened,
    plain_video,
    way_of_opening,
)
from djsandbox_ray.storage.own import own_folder

pytest.importorskip("av", reason="the extra 'video' is not installed")

RESOLUTION = OperatorSpec("video_resolution_filter")
DURATION = OperatorSpec("video_duration_filter", {"video_backend": "av"})


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where videos may be written, in place of shared memory and the temporary folder."""
    made = [tmp_path / "memory", tmp_path / "disk"]
    for place in made:
        place.mkdir()
    monkeypatch.setattr(temporary_videos, "SHARED_MEMORY", made[0])
    monkeypatch.setenv("TMPDIR", str(made[1]))
    monkeypatch.setattr("tempfile.tempdir", None)
    return made


def files_in(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()]


def test_videos_are_there_for_a_while_only(places: list[Path]) -> None:
    with TemporaryVideos(places) as folder:
        with folder.written([b"one", b"one", b"another"]) as paths:
            assert [Path(path).read_bytes() for path in paths] == [b"one", b"one", b"another"]
            assert len({*paths}) == 3
            assert all(Path(path).is_relative_to(places[0]) for path in paths)
        assert not any(map(os.path.exists, paths))
    assert files_in(places[0]) == []


def test_an_error_leaves_nothing(places: list[Path]) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        TemporaryVideos(places) as folder,
        folder.written([b"a"]),
    ):
        raise ZeroDivisionError
    assert files_in(places[0]) == []


def test_without_room_in_memory_they_go_to_the_disk(
    places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary_videos, "_has_room", lambda place, size: place == places[1])
    with TemporaryVideos(places) as folder, folder.written([b"video"]) as paths:
        assert Path(paths[0]).is_relative_to(places[1])


def test_room_that_others_take_meanwhile_sends_them_to_the_disk(
    places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.write_bytes

    def write(path: Path, data: bytes) -> int:
        if path.is_relative_to(places[0]):
            real(path, data[:1])
            raise OSError(errno.ENOSPC, "no space left")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", write)
    with TemporaryVideos(places) as folder, folder.written([b"video"]) as paths:
        assert Path(paths[0]).is_relative_to(places[1])
        assert [path for path in files_in(places[0]) if path.suffix == ".video"] == []


def test_no_room_anywhere_is_said_and_no_fault_of_a_row(places: list[Path]) -> None:
    with (
        pytest.raises(StorageFailed, match=r"video.*no room in .*memory nor in .*disk"),
        TemporaryVideos([*places, Path("/no/such/place")]) as folder,
        folder.written([_Huge()]),
    ):
        pytest.fail("was written")


class _Huge(bytes):
    """A video of more bytes than any machine has."""

    def __len__(self) -> int:
        return 1 << 62


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from djsandbox_ray.stats.temporary_videos import TemporaryVideos\n"
        "with TemporaryVideos([Path(sys.argv[1])]) as folder, folder.written([b'left']):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert any(path.suffix == ".video" for path in files_in(tmp_path))
    with TemporaryVideos([tmp_path]) as folder, folder.written([b"new"]) as paths:
        left = [path for path in files_in(tmp_path) if path.suffix == ".video"]
        assert [*map(str, left)] == paths


def test_only_our_own_folder_is_used(places: list[Path]) -> None:
    assert own_folder("videos", within=places[0]).stat().st_mode & 0o077 == 0


def test_what_is_open_is_closed_whatever_happens() -> None:
    class Reader:
        closed = False

        def close(self) -> None:
            self.closed = True

    reader = Reader()

    def fail() -> None:
        with opened() as contexts:
            contexts["way"].update(a=reader, frames=[1, 2])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert reader.closed


def test_readers_and_containers_are_kept_apart() -> None:
    ways = {
        name: way_of_opening(spec.filter_class, spec.values)
        for name in ("video_resolution", "video_watermark", "video_duration", "video_nsfw")
        for spec in parse_process([f"{name}_filter"])
    }
    assert ways["video_resolution"] == ways["video_watermark"] != ways["video_duration"]
    assert ways["video_duration"] == ways["video_nsfw"]


def test_a_broken_video_costs_its_sample_alone_and_is_named_by_its_place() -> None:
    video = plain_video()
    samples = [[video], [video, b"no video"], [], [video, video]]
    specs = [RESOLUTION, DURATION, OperatorSpec("text_length_filter")]
    size, seconds, length = FusedOperators(specs)(["a clip"] * 4, None, range(3), samples)
    np.testing.assert_array_equal(size.columns["video_width"], [32, np.nan, np.nan, 32])
    np.testing.assert_array_equal(seconds.columns["video_duration"], [1, np.nan, np.nan, 1])
    assert [failure.row for failure in size.failures] == [1]
    assert "video 1" in size.failures[0].reason
    assert "/" not in size.failures[0].reason
    assert length.failures == []


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_video_that_is_cut_off_ends_no_run(share: float) -> None:
    """Data-Juicer's reader opens some, and cannot be closed."""
    video = plain_video()
    specs = parse_process(["video_duration_filter", "video_resolution_filter"])
    samples = [[video[: int(len(video) * share)]], [video]]
    for computed in FusedOperators(specs)(["a clip"] * 2, None, range(2), samples):
        (column, *_) = computed.columns.values()
        assert np.isfinite(column[1])
        assert [failure.row for failure in computed.failures] == [0]


def test_what_a_reader_reads_from_is_closed_even_if_the_reader_cannot_be(tmp_path: Path) -> None:
    from data_juicer.utils.video_utils import AVReader

    video, path = plain_video(), tmp_path / "half.video"
    path.write_bytes(video[: len(video) // 2])
    reader = AVReader(str(path))
    with pytest.raises(AttributeError):
        reader.close()
    forget({"reader": reader})
    with pytest.raises(AssertionError, match="not open"):
        reader.container.seek(0)


@pytest.fixture
def motion() -> OperatorSpec:
    pytest.importorskip("cv2", reason="the extra 'video' is not installed")
    return OperatorSpec("video_motion_score_filter")


def test_motion_is_measured_and_a_video_without_frames_fails(motion: OperatorSpec) -> None:
    samples = [[plain_video()], [b"no video"]]
    (computed,) = FusedOperators([motion])(["a", "b"], None, [0], samples)
    scores = computed.columns["video_motion_score"]
    assert scores[0] > 0
    assert np.isnan(scores[1])  # Data-Juicer would say -1
    assert "no two frames" in computed.failures[0].reason


def test_a_video_whose_frames_do_not_end_fails(
    motion: OperatorSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a damaged file OpenCV may jump back for ever."""
    (path := tmp_path / "0.video").write_bytes(plain_video())
    assert temporary_videos._most_frames(str(path)) == 2 * 4 + 16
    fused = FusedOperators([motion])
    monkeypatch.setattr(temporary_videos, "_most_frames", lambda _path: 1)
    (computed,) = fused(["a clip"], None, [0], [[plain_video()]])
    assert "do not come to an end" in computed.failures[0].reason


def test_of_the_flows_of_a_video_one_is_kept_at_a_time(motion: OperatorSpec) -> None:
    flow = np.arange(24.0).reshape(3, 4, 2)
    kept = temporary_videos._Flow(flow)
    np.testing.assert_array_equal(kept[..., 0], flow[..., 0])
    np.testing.assert_array_equal(kept[..., 1], flow[..., 1])
    assert kept._parts == {}
    assert np.stack([kept, kept]).tolist() == [kept, kept]  # what Data-Juicer does with them


def test_our_default_is_written_out_and_part_of_the_id() -> None:
    (bare,), (given,) = (
        parse_process([item])
        for item in ("video_duration_filter", {"video_duration_filter": {"video_backend": "av"}})
    )
    assert bare.params == {"video_backend": "av"}
    assert operator_id(bare) == operator_id(given) != operator_id(_theirs())


def _theirs() -> OperatorSpec:
    return OperatorSpec("video_duration_filter", {"video_backend": "ffmpeg"})


@pytest.mark.parametrize("params", [{"frame_field": "frames"}, {"optical_flow_key": "flow"}])
def test_fields_that_no_sample_has_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(BadProcess, match="which the sample table does not have"):
        parse_process([{"video_motion_score_filter": params}])


def test_a_backend_that_is_not_there_is_found_before_any_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from data_juicer.utils.video_utils import FFmpegReader

    monkeypatch.setattr(FFmpegReader, "is_available", classmethod(lambda cls: False))
    with pytest.raises(BadInput, match="video_duration_filter cannot compute a sample"):
        FusedOperators([_theirs()])
