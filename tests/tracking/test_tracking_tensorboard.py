"""What TensorBoard finds in its folder, read back record by record."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event
from tracked_records import (
    COMPLETED,
    FAILED,
    PARAMS,
    POOL,
    RUN,
    STOPPED,
    TAGS,
    VERDICTS,
    record,
    report,
)

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import TrialRecord, TrialState
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.tensorboard import TensorBoardConfig, TensorBoardTracker
from djsandbox_ray.tracking.tracker import TRACKERS, RunInfo


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(file, "PNG")
    return file.getvalue()


def track(storage: Storage, *records: TrialRecord, run: RunInfo = RUN) -> int:
    tracker = TensorBoardTracker(TensorBoardConfig(patience=60), storage)
    tracker.start(run)
    tracker.dataset(RUN.datasets[0])
    for item in records:
        tracker.trial(item, TAGS, PARAMS, [POOL])
    tracker.judged("trials", VERDICTS)
    tracker.metrics({"pools_better": 1.0}, 1_700_000_000_000)
    tracker.artifact("ranking.csv", b"rank,pool\n")
    tracker.artifact("insights.md", b"# Found")
    tracker.artifact("figures/ranking.png", picture())
    tracker.describe("- text_len/high is better")
    return tracker.finish(True)


def events(folder: Path) -> list[Any]:
    """Return the events of a folder's files, in the order in which TensorBoard reads them."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, start = path.read_bytes(), 0
        while start < len(data):
            (size,) = struct.unpack_from("<Q", data, start)
            found.append(Event.FromString(data[start + 12 : start + 12 + size]))
            start += 12 + size + 4
    return found


def folder_of(storage: Storage, *parts: str) -> Path:
    (own,) = Path(storage.uri("tensorboard")).iterdir()
    assert own.name.startswith("demo-")
    return own.joinpath(*parts)


def points(folder: Path, name: str) -> list[tuple[int, float]]:
    return [
        (event.step, pytest.approx(value.simple_value))
        for event in events(folder)
        for value in event.summary.value
        if value.tag == name
    ]


def texts(folder: Path) -> dict[str, str]:
    return {
        value.tag.removesuffix("/text_summary"): value.tensor.string_val[0].decode()
        for event in events(folder)
        for value in event.summary.value
        if value.tensor.string_val
    }


def test_files_of_others_stay(storage: Storage) -> None:
    track(storage, COMPLETED)
    other = folder_of(storage, "trials", "text_len", "high", "seed-0", "events.out.tfevents.1.me")
    other.write_bytes(b"mine")
    track(storage, COMPLETED)
    assert other.read_bytes() == b"mine"
    assert len([*other.parent.iterdir()]) == 2, "what was ours is written anew"


def test_everything_is_there_once_however_often_it_is_told(storage: Storage) -> None:
    assert TRACKERS.get("tensorboard") is TensorBoardTracker
    for _ in range(2):
        assert track(storage, COMPLETED, FAILED, STOPPED) == 0
        trial = folder_of(storage, "trials", "text_len", "high", "seed-0")
        assert points(trial, "zero_shot/top1") == [(100, 0.4), (200, 0.6)]
        assert points(trial, "train/loss") == [(100, 1.6), (200, 1.4)]
        assert texts(trial)["state"] == "COMPLETED"
        assert "| operator | text_length_filter |" in texts(trial)["trial"]
        failed = folder_of(storage, "trials", "text_len", "high", "seed-1")
        assert texts(failed)["state"] == "FAILED: the loss is NaN"
        whole = folder_of(storage, "run")
        assert points(whole, "pools_better") == [(0, 1.0)]
        said = texts(whole)
        assert said["answer"] == "- text_len/high is better"
        assert said["insights.md"] == "# Found"
        assert said["verdicts/trials"].splitlines()[2] == "| 1 | text_len/high | +0.25 | better |"
        assert said["state"] == "COMPLETED"
        shown = [value for event in events(whole) for value in event.summary.value if value.image]
        (image,) = [value.image for value in shown if value.tag == "figures/ranking.png"]
        assert (image.width, image.height, image.colorspace) == (6, 4, 3)
        assert image.encoded_image_string == picture()


def test_a_trial_grows_report_by_report(storage: Storage) -> None:
    first, second = COMPLETED.reports
    running = TrialState.RUNNING
    tracker = TensorBoardTracker(TensorBoardConfig(patience=60), storage)
    tracker.start(RUN)
    for item in (record(0, running), record(0, running, first), COMPLETED, COMPLETED):
        tracker.trial(item, TAGS, PARAMS)
    assert tracker.finish(True) == 0
    trial = folder_of(storage, "trials", "text_len", "high", "seed-0")
    assert points(trial, "zero_shot/top1") == [(100, 0.4), (200, 0.6)]
    # Resumed, it has not got as far again; then it has.
    track(storage, record(0, running, first), record(0, running, first, second), COMPLETED)
    assert points(trial, "zero_shot/top1") == [(100, 0.4), (200, 0.6)]
    # Trained anew with another result, it shows only that.
    anew = record(0, TrialState.COMPLETED, report(100, 0.5), report(200, 0.7))
    track(storage, record(0, running, first), anew)
    assert points(trial, "zero_shot/top1") == [(100, 0.5), (200, 0.7)]


def test_another_configuration_has_another_folder(storage: Storage) -> None:
    track(storage, COMPLETED)
    track(storage, COMPLETED, run=replace(RUN, key="another"))
    assert len(list(Path(storage.uri("tensorboard")).iterdir())) == 2


def test_names_stay_inside_of_the_folder(storage: Storage, tmp_path: Path) -> None:
    long = "&".join(f"statistic_{number}" for number in range(40))
    for pool in ("../../up", "a b/c:d", f"{long}/high"):
        odd = replace(COMPLETED, spec=replace(COMPLETED.spec, pool=pool))
        assert track(storage, odd) == 0
    own = folder_of(storage)
    assert not (tmp_path / "up").exists()
    assert (own / "trials" / "_" / "_" / "up" / "seed-0").is_dir()
    assert (own / "trials" / "a_b" / "c_d" / "seed-0").is_dir()


def test_the_command_and_the_folder(storage: Storage, tmp_path: Path) -> None:
    own = TensorBoardTracker(TensorBoardConfig(), storage)
    assert own.ui_command == f"tensorboard --logdir {storage.uri('tensorboard')}"
    named = TensorBoardConfig(folder=str(tmp_path / "my logs"))
    assert TensorBoardTracker(named, storage).ui_command.endswith("my logs'")
    with pytest.raises(BadInput, match=r"tracking\.folder.*memory://bucket"):
        TensorBoardTracker(TensorBoardConfig(), Storage("memory://bucket"))


def test_a_folder_that_cannot_be_written_stops_nothing(
    storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("mine")
    config = TensorBoardConfig(folder=str(tmp_path / "file"), patience=0)
    tracker = TensorBoardTracker(config, storage)
    tracker.start(RUN)
    tracker.trial(COMPLETED, TAGS, PARAMS)
    assert tracker.finish(True) > 0
    assert "djsandbox sync demo" in caplog.text


def test_a_picture_that_is_none_is_said(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    tracker = TensorBoardTracker(TensorBoardConfig(patience=60), storage)
    tracker.start(RUN)
    tracker.artifact("figures/broken.png", b"\x89PNG of nothing")
    assert tracker.finish(True) == 1
    assert "figures/broken.png: it is no picture" in caplog.text
