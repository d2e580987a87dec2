"""Text to video in whole runs: whatever is killed, nothing is computed, made or judged twice."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lance
import pytest
from factories import wait_until
from made_videos import write_cache, write_prompts
from small_runs import SMALL, Ran, jobs_until, left, run, said, started, write

from djsandbox_ray.outside.environment import FOLDER

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

CLIPS = {"type": "clips", "frames": 5, "size": 16}
METRICS = ["metric:denoising/loss", "metric:prompt_match/accuracy"]


def changes(samples: int = 240, seeds: int = 2, **model: Any) -> dict[str, Any]:
    train = {"dataset": {**CLIPS, "samples": 60, "seed": 7}, "samples": 128, "size": [16, 16]}
    return {
        "name": "t2v",
        "dataset": {**CLIPS, "samples": samples, "defects": {"static": 0.3, "mismatched": 0.3}},
        "operators": ["video_motion_score_filter"],
        "pools": {"controls": 5},
        "trials": {
            **SMALL["trials"],
            "model": {
                "type": "t2v",
                "base": {"build": "tiny", "train": {**train, "frames": 5}},
                "frames": 5,
                "stride": 1,
                "size": [16, 16],
                "prompt_tokens": 16,
                "batch_size": 8,
                "learning_rate": 1e-3,
                "lora": {"rank": 4, "alpha": 4},
                **model,
            },
            "seeds": seeds,
            "early_stopping": {"type": "none", "rungs": []},
        },
        "evaluation": {
            "dataset": {**CLIPS, "samples": 20, "seed": 2},
            "metrics": [{"type": "denoising"}, {"type": "prompt_match"}],
            "aggregate": "standardized",
        },
        "workflow": jobs_until("trials"),
        "tracking": {"type": "none"},
    }


def tables(home: Path, kind: str) -> list[list[int]]:
    """Return the keys of every table of a kind, in rising order; none stands twice."""
    found = []
    for path in sorted((home / kind).glob("*/table.lance")):
        column = lance.dataset(str(path)).to_table().column(0).to_pylist()
        assert len(set(column)) == len(column), path
        found.append(sorted(column))
    return found


def sizes(keys: Sequence[Sequence[int]]) -> list[int]:
    return sorted(map(len, keys))


def metrics(ran: Ran) -> dict[tuple[str, int], list[float]]:
    rows = ran.parquet()[["pool", "seed", *METRICS]].to_dict("records")
    return {(row["pool"], row["seed"]): [row[name] for name in METRICS] for row in rows}


def test_all_trials_read_what_was_stored_once(ray_cluster: None, tmp_path: Path) -> None:
    first = run(tmp_path / "stored", changes())
    stored = tables(first.home, "latents")
    still, judged, clips = sorted(stored, key=len)
    assert len(judged) == 20
    assert 60 < len(clips) <= 240, "of all rows that are in a draw"
    assert set(still) <= set(range(240))
    assert len(still) < len(clips)
    (prompts,) = tables(first.home, "prompts")
    assert 20 < len(prompts) <= 144 + 1, "of every caption, and the empty one"
    assert first.out.count("are computed, once for all trials") >= 4

    # A third seed draws rows that are not there yet, and captions that perhaps are.
    more = run(tmp_path / "stored", changes(seeds=3))
    grown = tables(more.home, "latents")
    assert sizes(grown) >= sizes(stored)
    assert all(any(set(old) <= set(new) for new in grown) for old in stored)
    again = run(tmp_path / "stored", changes(seeds=3))
    assert "are computed, once for all trials" not in again.out

    # Without a store the same trials, under the same ids, come to the same.
    plain = run(tmp_path / "computed", changes(latents="compute", prompts="compute"))
    assert not (plain.home / "latents").exists()
    assert not (plain.home / "prompts").exists()
    found, expected = metrics(first), metrics(plain)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=1e-4), key
    assert set(first.parquet()["trial"]) == set(plain.parquet()["trial"])


@pytest.mark.shared_data
def test_real_clips_are_probed(ray_cluster: None, shared_data: Path, tmp_path: Path) -> None:
    pack = shared_data / "videos_open"
    shutil.copytree(pack / "clips", tmp_path / "clips")
    lines = (pack / "clips.jsonl").read_text().splitlines()
    by_source: dict[str, list[str]] = {}  # neighbours in a source are all but the same
    for line in lines:
        by_source.setdefault(json.loads(line)["meta"]["source_file"], []).append(line)
    sources = sorted(by_source)
    parts = {"judged": sources[::5], "train": [one for one in sources if one not in sources[::5]]}
    for name, some in parts.items():
        own = [line for source in some for line in by_source[source]]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(own) + "\n")
    plain = changes(size=[32, 32], stride=2)
    reads = {"type": "jsonl", "content": "videos"}
    evaluation = {**plain["evaluation"], "dataset": {**reads, "path": f"{tmp_path}/judged.jsonl"}}
    ran = run(
        tmp_path,
        {
            **plain,
            "dataset": {**reads, "path": f"{tmp_path}/train.jsonl"},
            "operators": [{"video_motion_score_filter": {"sampling_fps": 8, "size": 64}}],
            "evaluation": evaluation,
            "workflow": jobs_until("ranking"),
        },
    )
    rows = sum(len(by_source[source]) for source in parts["train"])
    trials = ran.parquet()
    assert set(trials["state"]) == {"COMPLETED"}
    assert {f"video_motion_score/{bucket}" for bucket in ("low", "middle", "high")} <= {
        *ran.ranking.index
    }
    assert trials["metric:denoising/loss"].between(0, 10).all()
    assert trials["metric:prompt_match/accuracy"].between(0, 1).all()
    stored = sizes(tables(ran.home, "latents"))
    assert len(lines) - rows in stored
    assert max(stored) <= rows


def test_a_driver_that_is_killed_while_latents_are_computed_is_resumed(tmp_path: Path) -> None:
    config, log = (
        write(tmp_path, {**changes(samples=1500), "cluster": {"cpus": 2}}),
        tmp_path / "log",
    )
    words = ("run", str(config))
    driver = started(*words, log=log)
    home = tmp_path / "storage"

    def at_work() -> bool:
        assert driver.poll() is None, log.read_text()
        return any(home.glob("latents/*/table.lance/data/*.lance"))

    try:
        wait_until(at_work, log.read_text)
    finally:
        driver.kill()
        driver.wait()
    said(*words)
    ran = left(tmp_path)
    assert json.loads((ran.folder / "run.json").read_text())["state"] == "COMPLETED"
    stored = tables(home, "latents")
    assert len(stored) == 3
    assert set(ran.parquet()["state"]) == {"COMPLETED"}
    # What is gone is computed anew, by the same command with one trial more to train.
    shutil.rmtree(home / "latents")
    config.write_text(config.read_text().replace("seeds: 2", "seeds: 3"))
    said(*words)
    assert len(tables(home, "latents")) == 3


# Videos

SAMPLING = {"steps": 40, "guidance": 2.0, "frames": 5, "size": [16, 16], "fps": 8}
STAND_IN = Path(__file__).parent / "stand_ins" / "vbench"
VIDEOS = 48


def judged(*metrics: dict[str, Any], score: Sequence[str]) -> dict[str, Any]:
    """Return a run whose models are judged by their videos alone; all of these stay."""
    plain = changes()
    return {
        **plain,
        "cluster": {"cpus": 2},
        "pools": {"controls": 5, "self_tests": False},
        "evaluation": {
            "dataset": {**CLIPS, "samples": VIDEOS, "seed": 2},
            "metrics": [{"sampling": SAMPLING, "keep": "all", **metric} for metric in metrics],
            "score": list(score),
        },
    }


def made(home: Path) -> dict[Path, int]:
    """Return the videos that there are, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in home.glob("videos/*/*/*/*.mp4")}


def by_model(videos: dict[Path, int]) -> Counter[Path]:
    return Counter(path.parent for path in videos)


def test_a_driver_that_is_killed_while_videos_are_made_is_resumed(tmp_path: Path) -> None:
    motion = {"type": "motion", "videos": VIDEOS}
    config, log = write(tmp_path, judged(motion, score=["motion/ratio"])), tmp_path / "log"
    words, home = ("run", str(config)), tmp_path / "storage"
    driver = started(*words, log=log)

    def at_work() -> bool:
        assert driver.poll() is None, log.read_text()
        return any(count < VIDEOS for count in by_model(made(home)).values())

    try:
        wait_until(at_work, log.read_text, pause=0.02)
    finally:
        driver.kill()
        driver.wait()
    wait_until(lambda: made(home) == _later(home), log.read_text)
    before = made(home)
    unfinished = [count for count in by_model(before).values() if count < VIDEOS]
    assert unfinished, "the kill has to have come between two videos"
    said(*words)
    ran, after = left(tmp_path), made(home)
    trials = ran.parquet()
    assert set(trials["state"]) == {"COMPLETED"}
    assert before.items() <= after.items(), "none of those was made again"
    assert [*by_model(after).values()] == [VIDEOS] * len(trials)
    assert len({(path.parent, path.name.partition(".")[0]) for path in after}) == len(after)
    said(*words)
    assert made(home) == after


def _later(home: Path) -> dict[Path, int]:
    """Return the videos when whoever was making one has surely ended."""
    time.sleep(2)
    return made(home)


def test_a_driver_that_is_killed_while_vbench_judges_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "node"))
    place, names = tmp_path / "place", ("temporal_flickering", "dynamic_degree")
    place.mkdir()
    hold = place / "hold"
    hold.touch()
    vbench = {
        "type": "vbench",
        "dimensions": list(names),
        "prompts": write_prompts(tmp_path / "prompts.json", names),
        "videos_per_prompt": 2,
        "official": {
            "cache": write_cache(tmp_path / "cache"),
            "files": [str(STAND_IN)],
            "env": {"STAND_IN_PLACE": str(place)},
        },
    }
    config = write(tmp_path, judged(vbench, score=["vbench/dynamic_degree"]))
    words, home, log = ("run", str(config)), tmp_path / "storage", tmp_path / "log"
    driver = started(*words, log=log)

    def calls(what: str) -> list[str]:
        return sorted(path.name for path in place.glob(f"{what}-*"))

    def at_work() -> bool:
        assert driver.poll() is None, log.read_text()
        return bool(calls("begun"))

    try:
        wait_until(at_work, log.read_text)
    finally:
        driver.kill()
        driver.wait()
    wait_until(lambda: made(home) == _later(home), log.read_text)
    before, killed = made(home), len(calls("begun"))
    assert not calls("ended")
    hold.unlink()
    said(*words)
    ran, after = left(tmp_path), made(home)
    trials = ran.parquet()
    assert set(trials["state"]) == {"COMPLETED"}
    assert before.items() <= after.items(), "its videos are judged, and not made again"
    assert len({*by_model(after).values()}) == 1
    assert len(calls("begun")) == killed + len(trials)
    # Who was called by the driver that is gone may have ended when nothing held him any more.
    assert len(trials) <= len(calls("ended")) <= len(trials) + killed
    said(*words)
    assert len(calls("begun")) == killed + len(trials)
    assert made(home) == after
