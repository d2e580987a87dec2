"""FVD: real clips of a table against drawn ones, by a tiny VideoMAE and by a program of I3D."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_videos import DrawsSquares
from pydantic import ValidationError
from written_tables import written

from djsandbox_ray.dataset.clips import ClipsConfig, ClipsSource
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.answer_store import AnswerStore
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.evaluation.video.fvd import Fvd, FvdConfig, fitted
from djsandbox_ray.evaluation.video.i3d import I3dConfig
from djsandbox_ray.outside.environment import FOLDER
from djsandbox_ray.storage.store import Storage

ROWS = 12
SAMPLING = {"steps": 2, "frames": 5, "size": [32, 32], "fps": 8}
# Reads frames and writes features by hand, as Python alone has no numpy: their mean, and so on.
PROGRAM = """
import struct, sys
from pathlib import Path
rows = []
for path in sorted(Path(sys.argv[1]).glob("*.npy")):
    data = path.read_bytes()
    pixels = data[10 + struct.unpack("<H", data[8:10])[0]:]
    parts = [pixels[start::3] for start in range(3)]
    rows.append([sum(part) / len(part) for part in parts])
shape = f"({len(rows)}, 3)"
head = ("{'descr': '<f8', 'fortran_order': False, 'shape': " + shape + ", }").ljust(117) + chr(10)
body = b"".join(struct.pack("<3d", *row) for row in rows)
start = bytes([0x93]) + b"NUMPY" + bytes([1, 0]) + struct.pack("<H", len(head))
Path(sys.argv[2]).write_bytes(start + head.encode() + body)
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    config = ClipsConfig(type="clips", samples=ROWS, size=48)
    samples = [ClipsSource.sample(config, index, ()) for index in range(ROWS)]
    table, _ = written(list(samples), tmp_path_factory.mktemp("clips"))
    return EvaluationSet.read("set-1", table.uri)


@pytest.fixture(scope="module")
def videomae(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch = pytest.importorskip("torch")
    from transformers import VideoMAEConfig, VideoMAEModel

    folder = tmp_path_factory.mktemp("videomae")
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "num_frames": 4, "tubelet_size": 2}
    layers = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    VideoMAEModel(VideoMAEConfig(**layers, intermediate_size=16, **sizes)).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def store(tmp_path: Path) -> AnswerStore:
    return AnswerStore(Storage(str(tmp_path / "storage")), "training-1", 64)


def config(features: dict[str, Any], **more: Any) -> FvdConfig:
    given = {"type": "fvd", "features": features, "sampling": SAMPLING, "videos": ROWS}
    return FvdConfig.model_validate({**given, "force": True, **more})


def test_real_clips_and_made_ones_are_compared(
    clips: EvaluationSet, videomae: str, store: AnswerStore
) -> None:
    given = config({"type": "videomae", "path": videomae})
    judged, maker = Suite([given], [clips]), DrawsSquares()
    found = judged.run(maker, store)
    assert set(found) == {"fvd/frechet", "fvd/kernel"}
    assert found["fvd/frechet"] > 0
    assert len(maker.made) == ROWS
    wanted = Fvd(given).wanted(clips)
    assert [one.prompt for one in wanted] == list(clips.texts)
    assert len({one.key for one in wanted}) == ROWS  # equal captions have several videos
    again = DrawsSquares()
    assert judged.run(again, store) == found
    assert again.made == []
    assert judged.rescored(found, store) == found  # most videos are gone, their features are not
    still = AnswerStore(store.storage, "training-2", 64)
    assert judged.run(DrawsSquares(still=True), still)["fvd/frechet"] != found["fvd/frechet"]
    assert len(store.storage.names("videos/reference")) == 1  # real ones were looked at once


def test_a_program_of_i3d_is_given_frames(
    clips: EvaluationSet, tmp_path: Path, store: AnswerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "node"))
    weights, program = tmp_path / "i3d.pt", tmp_path / "program.py"
    weights.write_bytes(b"weights")
    program.write_text(PROGRAM)
    features = {
        "type": "i3d",
        "path": str(weights),
        "command": ["python", "program.py", "{videos}", "{features}"],
        "files": [str(program)],
    }
    given = config(features)
    found = Suite([given], [clips]).run(DrawsSquares(), store)
    (name,) = store.storage.names("videos/reference")
    table = store.storage.read_table(f"videos/reference/{name}")
    means = dict(zip(table["key"].to_pylist(), table["values"].to_pylist(), strict=True))
    frames = next(Fvd(given)._real(clips, [3]))[:5]
    assert frames.shape == (5, 32, 32, 3)
    assert means["3"] == pytest.approx(frames.reshape(-1, 3).mean(axis=0))
    assert found["fvd/frechet"] > 0
    program.write_text("import sys")
    other = Suite([config(features)], [clips])
    with pytest.raises(SandboxError, match="I3D ended well, but wrote no features"):
        other.run(DrawsSquares(), AnswerStore(store.storage, "training-3", 64))


def test_no_self_test_is_judged_by_it(videomae: str) -> None:
    """Videos that stand still move it less than their draw does, other captions not at all."""
    evaluator = Fvd(config({"type": "videomae", "path": videomae}))
    assert all(evaluator.sees(metric) == frozenset() for metric in evaluator.metrics())


def test_i3ds_own_program_is_sent_by_itself() -> None:
    given = I3dConfig(type="i3d", path="i3d.pt")
    from djsandbox_ray.evaluation.video.i3d import I3dClips

    clips = I3dClips(given)
    assert "run_i3d.py" in given.command
    other = I3dClips(given.model_copy(update={"command": ["a"]}))
    assert clips.program.code.hash != other.program.code.hash  # what calls cd-fvd is not sent along
    assert "path" not in clips.identity()


def test_real_frames_are_cut_and_scaled_to_the_shape_of_the_others() -> None:
    frames = np.zeros((2, 20, 40, 3), dtype=np.uint8)
    frames[:, :, 10:30] = 200
    assert fitted(frames, (20, 40)) is frames
    square = fitted(frames, (10, 10))
    assert square.shape == (2, 10, 10, 3)
    assert (square == 200).all()  # what is beside the middle is gone
    assert fitted(frames, (40, 40)).shape == (2, 40, 40, 3)


def test_what_cannot_be_compared_is_said_before_training(
    clips: EvaluationSet, videomae: str
) -> None:
    features = {"type": "videomae", "path": videomae}
    for changed, said in [
        ({"videos": 2048}, "2048 videos are compared with as many real ones, but set-1 has 12"),
        ({"force": False}, "videos: 12; at least 256 are needed with these features"),
        ({"sampling": {**SAMPLING, "frames": 3}}, "sampling.frames: 3; the model in .* looks at 4"),
        ({"features": {"type": "videomae", "path": "/nowhere"}}, "'/nowhere' does not exist"),
        ({"features": {"type": "videomae", "path": str(Path(videomae).parent)}}, "no VideoMAE"),
    ]:
        with pytest.raises(BadInput, match=said):
            Suite([config(**{"features": features, **changed})], [clips])
    assert [line for line in Fvd(config(features)).remarks(clips) if "fewer than 256" in line]


def test_a_reference_is_of_videos(videomae: str) -> None:
    features = {"type": "videomae", "path": videomae}
    given = config(features, reference={"type": "clips", "samples": 20})
    assert isinstance(Fvd(given).source(), ClipsSource)
    assert Fvd(config(features)).source() is None
    with pytest.raises(ValidationError, match="are to be videos with captions"):
        config(features, reference={"type": "shapes", "samples": 20})
    with pytest.raises(ValidationError, match="videomae"):
        config({"type": "clip", "path": videomae})
