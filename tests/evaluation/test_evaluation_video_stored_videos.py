"""Videos are made once, kept, found again, and made anew where they are damaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_videos import SMALL, DrawsSquares, drawn, write_videos

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.answer_store import AnswerStore, Unanswered
from djsandbox_ray.evaluation.video import stored_videos
from djsandbox_ray.evaluation.video.stored_videos import StoredVideos, VideoFolder, laid_out
from djsandbox_ray.evaluation.video.video_files import Frames, video_frames
from djsandbox_ray.evaluation.video.wanted import SamplingConfig, WantedVideo
from djsandbox_ray.storage.store import Storage

SAMPLING = SamplingConfig.model_validate(SMALL)
WANTED = [WantedVideo(f"prompt / {number // 2}", number % 2) for number in range(6)]


@pytest.fixture
def answers(tmp_path: Path) -> AnswerStore:
    return AnswerStore(Storage(str(tmp_path / "storage")), "training-1", 64)


def stored(answers: AnswerStore, maker: Any = None, **changed: Any) -> StoredVideos:
    return StoredVideos(answers, SAMPLING.model_copy(update=changed), 1, maker)


def test_noise_hangs_on_prompt_and_number_alone() -> None:
    one, other = WantedVideo("a", 0), WantedVideo("a", 1)
    assert one.noise[0] == other.noise[0] != WantedVideo("b").noise[0]
    assert len({one.key, other.key, WantedVideo("b").key}) == 3
    draws = [each.rng().normal(size=4) for each in (one, WantedVideo("a", 0), other)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert WantedVideo("a bird and a cat", 3).noise == (15609614813000986014, 3)


def test_what_is_stored_is_not_made_again(answers: AnswerStore) -> None:
    maker = DrawsSquares()
    first = dict(stored(answers, maker).each(WANTED))
    assert maker.made == [one.key for one in WANTED]
    for one, data in first.items():
        difference = video_frames(data, "a").astype(int) - drawn(one, SAMPLING)
        assert np.abs(difference).mean() < 1
    again = DrawsSquares()
    found = list(stored(answers, again).each([*WANTED[3:], *WANTED[:1], *WANTED[:1]]))
    assert again.made == []
    assert [one for one, _ in found] == [*WANTED[3:], *WANTED[:1], *WANTED[:1]]
    assert all(data == first[one] for one, data in found)
    assert dict(stored(answers).each(WANTED)) == first  # without a model
    list(stored(answers, again, guidance=1.0).each(WANTED[:1]))
    assert again.made == [WANTED[0].key]  # made in another way, it is another video


def test_a_kill_loses_nothing_that_was_made(answers: AnswerStore) -> None:
    dying, second = DrawsSquares(dies=4), DrawsSquares()
    with pytest.raises(RuntimeError, match="killed"):
        list(stored(answers, dying).each(WANTED))
    assert len(list(stored(answers, second).each(WANTED))) == 6
    assert second.made == [one.key for one in WANTED[4:]]


def test_models_are_asked_for_some_at_a_time(
    answers: AnswerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_videos, "BATCH", 4)
    asked: list[int] = []

    class Counts(DrawsSquares):
        def videos(
            self, wanted: Sequence[WantedVideo], sampling: SamplingConfig
        ) -> Iterator[Frames]:
            asked.append(len(wanted))
            return super().videos(wanted, sampling)

    list(stored(answers, Counts()).each([*WANTED, *WANTED]))
    assert asked == [4, 2]


def test_what_is_damaged_is_made_again(
    answers: AnswerStore, caplog: pytest.LogCaptureFixture
) -> None:
    list(stored(answers, DrawsSquares()).each(WANTED))
    storage = answers.storage
    (folder,) = storage.names("videos/training-1/64")
    name = f"videos/training-1/64/{folder}/{storage.names(f'videos/training-1/64/{folder}')[0]}"
    data = storage.read_bytes(name)
    storage.write_bytes(name, data[:-3])
    with pytest.raises(Unanswered):
        list(stored(answers).each(WANTED))
    storage.write_bytes(name, data[:-3])
    maker = DrawsSquares()
    assert len(list(stored(answers, maker).each(WANTED))) == 6
    assert len(maker.made) == 1
    assert "is not what was written: it is made again" in caplog.text
    assert storage.read_bytes(name) == data


def test_without_a_model_what_lacks_is_said(answers: AnswerStore) -> None:
    list(stored(answers, DrawsSquares()).each(WANTED[:2]))
    with pytest.raises(Unanswered, match="4 of 6 videos are not there, the first of 'prompt / 1'"):
        list(stored(answers).each(WANTED))


class Odd(DrawsSquares):
    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def videos(self, wanted: Sequence[WantedVideo], sampling: SamplingConfig) -> Iterator[Frames]:
        made = list(super().videos(wanted, sampling))
        if self._what == "fewer":
            return iter(made[1:])
        if self._what == "more":
            return iter([*made, made[0]])
        if self._what == "longer":
            return iter([np.concatenate([one, one]) for one in made])
        return iter([one / 255 for one in made])  # type: ignore[misc]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("fewer", "asked for 6 videos, and made fewer; none of 'prompt / 2'"),
        ("more", "made more than the 6 videos"),
        ("longer", r"made \(10, 32, 32, 3\) of 'prompt / 0'; sampling asks for .*5, 32, 32, 3"),
        ("floats", "two or more frames of bytes"),
    ],
)
def test_a_model_makes_what_it_was_asked_for(answers: AnswerStore, what: str, said: str) -> None:
    with pytest.raises((SandboxError, BadInput), match=said):
        list(stored(answers, Odd(what)).each(WANTED))


def test_what_was_measured_stays_when_videos_go(
    answers: AnswerStore, caplog: pytest.LogCaptureFixture
) -> None:
    videos = stored(answers, DrawsSquares())
    list(videos.each(WANTED))
    values = {one.key: [0.5, 4.0] for one in WANTED}
    videos.keep("flickering-1", values)
    videos.drop(one.key for one in WANTED[1:])
    later = stored(answers)
    assert later.kept("flickering-1", values) == values
    assert later.kept("flickering-1", [*values, "more"]) is None
    assert later.kept("flickering-2", values) is None
    assert len(list(later.each(WANTED[:1]))) == 1
    with pytest.raises(Unanswered, match="5 of 6"):
        list(stored(answers).each(WANTED))
    later.share("real", {"0": [1.0]})
    other = StoredVideos(AnswerStore(answers.storage, "training-2", 8), SAMPLING)
    assert other.shared("real", ["0"]) == {"0": [1.0]}
    (folder,) = answers.storage.names("videos/training-1/64")
    answers.storage.write_bytes(f"videos/training-1/64/{folder}/flickering-1.parquet", b"torn")
    assert later.kept("flickering-1", values) is None
    assert "it is measured again" in caplog.text


def test_a_folder_of_videos_is_whole_or_refused(tmp_path: Path) -> None:
    wanted = [WantedVideo(f"prompt {number}") for number in range(3)]
    folder = tmp_path / "made"
    with pytest.raises(BadInput, match="does not exist"):
        VideoFolder(folder).check(wanted)
    write_videos(folder, wanted[:2])
    with pytest.raises(BadInput, match=r"1 of 3 videos are not there, .* 'prompt 2-0\.mp4'"):
        list(VideoFolder(folder).each(wanted))
    write_videos(folder, wanted)
    (tmp_path / "copy").mkdir()
    laid_out(VideoFolder(folder), [*wanted, *wanted], tmp_path / "copy")
    names = sorted(path.name for path in (tmp_path / "copy").iterdir())
    assert names == ["prompt 0-0.mp4", "prompt 1-0.mp4", "prompt 2-0.mp4"]
    with pytest.raises(BadInput, match="holds '/'"):
        laid_out(VideoFolder(folder), [WantedVideo("a/b")], tmp_path / "copy")
