"""Text to video in whole runs: latents and embeddings are computed once, whatever is killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lance
import pytest
from factories import wait_until
from small_runs import SMALL, Ran, jobs_until, left, run, said, started, write

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
