"""VBench as a program: what it is given, what is looked at afterwards, and what it needs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from made_videos import write_cache, write_prompts, write_videos

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.video.board import DIMENSIONS
from djsandbox_ray.evaluation.video.official import (
    NEEDED,
    OfficialVbench,
    OfficialVbenchConfig,
    read_results,
)
from djsandbox_ray.evaluation.video.prompts import chosen_prompts, read_prompts, videos_of
from djsandbox_ray.evaluation.video.stored_videos import VideoFolder
from djsandbox_ray.outside.environment import FOLDER

STAND_IN = Path(__file__).parents[1] / "integration" / "stand_ins" / "vbench"
NAMES = ["a-0.mp4", "a-1.mp4", "b-0.mp4"]


def official(tmp_path: Path, trouble: str = "", **settings: Any) -> OfficialVbench:
    given = {"cache": write_cache(tmp_path / "cache"), "files": [str(STAND_IN)], **settings}
    config = OfficialVbenchConfig.model_validate({**given, "env": {"STAND_IN": trouble}})
    return OfficialVbench(config)


@pytest.fixture(autouse=True)
def node(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "node"  # one environment for all
    monkeypatch.setenv(FOLDER, str(folder))


def measured(tmp_path: Path, names: tuple[str, ...], trouble: str = "") -> Any:
    prompts = chosen_prompts(read_prompts(write_prompts(tmp_path / "own.json")), names)
    wanted = videos_of(prompts, 2)
    videos = VideoFolder(Path(write_videos(tmp_path / "made", wanted)))
    return prompts, official(tmp_path, trouble).measure(videos, prompts, names, 2)


def test_all_dimensions_are_judged_in_one_call(tmp_path: Path) -> None:
    prompts, found = measured(tmp_path, tuple(DIMENSIONS))
    assert list(found) == list(DIMENSIONS)
    for name, result in found.items():
        wanted = videos_of(prompts, 2, name)
        assert len(result.videos) == len(wanted) == 4
        assert result.value == pytest.approx(sum(result.videos.values()) / 4)
    assert set(found["human_action"].videos.values()) <= {0.0, 1.0}
    assert max(found["imaging_quality"].videos.values()) <= 1  # they are given in percent


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("nan", "temporal_flickering is nan: so it is with weights"),
        ("323.99", "temporal_flickering is 323.99; it lies between 0 and 1"),
        ("silent", r"ended well, but wrote no file \*_eval_results.json: it ends well when it"),
        (
            "skip",
            "temporal_flickering has 3 results of 4 videos; the first that is missing is 'a s",
        ),
        ("short", "VBench gave no color"),
    ],
)
def test_what_vbench_passes_over_is_an_error(tmp_path: Path, trouble: str, said: str) -> None:
    with pytest.raises((SandboxError, BadInput), match=said):
        measured(tmp_path, ("temporal_flickering", "color"), trouble)


def test_color_is_of_the_videos_in_which_its_object_is_seen(tmp_path: Path) -> None:
    _, found = measured(tmp_path, ("temporal_flickering", "color"), "unseen")
    assert len(found["color"].videos) == 3
    assert len(found["temporal_flickering"].videos) == 4


def test_what_would_be_downloaded_is_looked_for_first(tmp_path: Path) -> None:
    judge = official(tmp_path)
    judge.check(DIMENSIONS)
    lost = tmp_path / "cache" / "raft_model" / "models" / "raft-things.pth"
    lost.unlink()
    with pytest.raises(BadInput, match=r"official.cache: 1 of 2 files .*downloaded: .*raft-things"):
        judge.check(["motion_smoothness", "dynamic_degree"])
    judge.check(["motion_smoothness"])
    assert NEEDED.keys() == DIMENSIONS.keys()


def test_a_program_is_known_by_its_files_and_not_by_its_places(tmp_path: Path) -> None:
    known = official(tmp_path).identity()
    assert official(tmp_path, cache=write_cache(tmp_path / "other")).identity() == known
    assert official(tmp_path, trouble="nan").identity() != known
    assert "run_vbench.py" in known["command"]
    own = official(tmp_path, command=["vbench", "{videos}{full_info}{dimensions}{results}"])
    assert own.identity()["files"] != known["files"]  # what calls VBench is not among them
    with pytest.raises(ValueError, match=r"command: lacks \{results\}"):
        official(tmp_path, command=["vbench", "{videos}{full_info}{dimensions}"])


def write(folder: Path, document: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "x_eval_results.json").write_text(json.dumps(document))
    return folder


def result(value: Any = 0.5, names: list[str] = NAMES, single: Any = 0.5) -> list[Any]:
    return [value, [{"video_path": f"/v/{name}", "video_results": single} for name in names]]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "is no object"),
        ({}, "VBench gave no scene"),
        ({"scene": 0.5}, "scene is 0.5, not a value and its videos"),
        ({"scene": [0.5, {}]}, "not a value and its videos"),
        ({"scene": [0.5, [{}]]}, "scene: {} is no result of a video"),
        ({"scene": result(None)}, "scene is None, not a number"),
        ({"scene": result(single="0.5")}, "scene of 'a-0.mp4' is '0.5', not a number"),
        ({"scene": result(single=math.inf)}, "scene of 'a-0.mp4' is inf"),
        ({"scene": result(single=1.2)}, "a-0.mp4: scene is 1.2; it lies between"),
        ({"scene": result(names=NAMES[:2])}, "scene has 2 results of 3 videos"),
        ({"scene": result(names=[*NAMES, NAMES[0]])}, "scene has 4 results of 3 videos"),
        ({"scene": result(names=[*NAMES, "c-0.mp4"])}, "nobody asked for 'c-0.mp4'"),
        ({"scene": result(names=[])}, "scene has 0 results of 3 videos"),
    ],
)
def test_what_are_no_results(tmp_path: Path, document: Any, said: str) -> None:
    with pytest.raises((SandboxError, BadInput), match=said):
        read_results(write(tmp_path / "results", document), {"scene": NAMES})


def test_color_is_of_one_video_at_least(tmp_path: Path) -> None:
    folder = write(tmp_path / "results", {"color": result(names=NAMES[:1])})
    assert read_results(folder, {"color": NAMES})["color"].videos == {"a-0.mp4": 0.5}
    with pytest.raises(SandboxError, match="color has 0 results of 3 videos"):
        read_results(write(folder, {"color": result(names=[])}), {"color": NAMES})
    (folder / "x_eval_results.json").write_text("{")
    with pytest.raises(SandboxError, match="is no JSON"):
        read_results(folder, {"color": NAMES})
