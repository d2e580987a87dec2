"""``djsandbox score --videos``: VBench's dimensions of videos that were made elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from djsandbox_ray.cli import app
from djsandbox_ray.dataset.moving_world import draw_frames, random_scene
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.video.dimensions import temporal_flickering
from djsandbox_ray.evaluation.video.video_files import video_bytes, video_frames
from djsandbox_ray.workflows.score import score_videos

PROMPTS = ["a red square", "a blue square"]
FLICKERING = ("--set", "dimensions=[temporal_flickering]", "--set", "videos_per_prompt=2")


def score(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["score", *arguments], env={"COLUMNS": "120"})


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "own.json"
    entries = [{"prompt_en": one, "dimension": ["temporal_flickering"]} for one in PROMPTS]
    path.write_text(json.dumps(entries))
    return str(path)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for prompt in PROMPTS:
        for number in range(2):
            frames = draw_frames(random_scene(rng), rng, 32, 5)
            (folder / f"{prompt}-{number}.mp4").write_bytes(video_bytes(frames, 8))
    return folder


def test_a_table_and_json_say_the_same(made: Path, prompts: str) -> None:
    given = ("vbench", "--videos", str(made), "--benchmark", prompts, *FLICKERING)
    shown = score(*given)
    assert shown.exit_code == 0, shown.output
    assert "vbench: 4 videos" in shown.output
    told = json.loads(score(*given, "--json").output)
    files = [path.read_bytes() for path in made.iterdir()]
    values = [temporal_flickering(video_frames(data, "a")).value for data in files]
    assert told == {
        "benchmark": "vbench",
        "videos": 4,
        "metrics": {"vbench/temporal_flickering": pytest.approx(np.mean(values))},
    }
    assert f"{np.mean(values):.4f}" in shown.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("vbench",), "either --answers or --videos is needed"),
        (("vbench", "--videos", "a", "--answers", "b"), "either --answers or --videos is needed"),
        (("vbench", "--videos", "a", "--questions", "b"), "--questions: videos are made from"),
        (("mme", "--videos", "."), "unknown benchmark of videos 'mme'"),
        (("vbench", "--answers", "a"), "unknown benchmark 'vbench'"),
        (("vbench", "--videos", "a"), "'a' does not exist, or is no folder"),
        (("vbench", "--videos", "."), r"vbench: 1 error\(s\)"),
    ],
)
def test_what_cannot_be_scored(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        CliRunner().invoke(app, ["score", *arguments], catch_exceptions=False)


def test_a_video_that_is_missing_is_an_error(made: Path, prompts: str) -> None:
    (made / f"{PROMPTS[1]}-1.mp4").unlink()
    settings = ["dimensions=[temporal_flickering]"]
    with pytest.raises(BadInput, match="7 of 10 videos are not there"):
        score_videos("vbench", str(made), [prompts], settings)
    with pytest.raises(BadInput, match=r"1 of 4 videos are not there, .*'a blue square-1\.mp4'"):
        score_videos("vbench", str(made), [prompts], [*settings, "videos_per_prompt=2"])
    scored, _ = score_videos("vbench", str(made), [prompts], [*settings, "videos_per_prompt=1"])
    assert scored.videos == 2


def test_settings_of_a_section_have_a_dot(made: Path, prompts: str) -> None:
    settings = ["dimensions=[subject_consistency]", "weights.dino=/nowhere", "videos_per_prompt=2"]
    own = json.loads(Path(prompts).read_text())
    for entry in own:
        entry["dimension"] = ["subject_consistency"]
    Path(prompts).write_text(json.dumps(own))
    with pytest.raises(BadInput, match=r"weights\.dino: '/nowhere' does not exist"):
        score_videos("vbench", str(made), [prompts], settings)
    with pytest.raises(BadInput, match="'videos_per_prompt' is no section"):
        score_videos("vbench", str(made), [prompts], [*settings, "videos_per_prompt.x=2"])
