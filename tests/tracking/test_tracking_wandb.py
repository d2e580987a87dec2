"""Weights & Biases in its offline mode, where the package is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import ValidationError
from tracked_records import COMPLETED, FAILED, PARAMS, POOL, RUN, STOPPED, TAGS, VERDICTS

from djsandbox_ray.errors import BadInput, MissingExtra
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.tracker import TRACKERS
from djsandbox_ray.tracking.wandb import WandbConfig, WandbTracker

INSTALLED = find_spec("wandb") is not None
needs_wandb = pytest.mark.skipif(not INSTALLED, reason="the package wandb is not installed")


def test_config() -> None:
    assert TRACKERS.get("wandb") is WandbTracker
    assert WandbConfig().mode == "offline"
    with pytest.raises(ValidationError, match="'offline' or 'online'"):
        WandbConfig.model_validate({"type": "wandb", "mode": "disabled"})


def test_a_storage_that_is_not_local_needs_a_folder() -> None:
    with pytest.raises(BadInput, match=r"tracking\.folder.*memory://bucket"):
        WandbTracker(WandbConfig(), Storage("memory://bucket"))


@pytest.mark.skipif(INSTALLED, reason="the package wandb is installed")
def test_without_the_package_the_extra_is_named(storage: Storage) -> None:
    with pytest.raises(MissingExtra, match=r"djsandbox-ray\[wandb\]"):
        WandbTracker(WandbConfig(), storage)


@needs_wandb
def test_a_run_per_trial_is_written_offline_and_told_again_it_stays(storage: Storage) -> None:
    def runs() -> list[Path]:
        return sorted(Path(storage.url, "wandb").glob("offline-run-*"))

    for told in (4, 5):  # the whole has a run in each process
        tracker = WandbTracker(WandbConfig(patience=120), storage)
        tracker.start(RUN)
        for item in (COMPLETED, FAILED, STOPPED):
            tracker.trial(item, TAGS, PARAMS, [POOL])
        tracker.judged("trials", VERDICTS)
        tracker.metrics({"pools_better": 1.0})
        tracker.artifact("ranking.csv", b"rank,pool\n")
        tracker.describe("- text_len/high is better")
        assert tracker.finish(True) == 0
        assert len(runs()) == told
    assert tracker.ui_command == f"wandb sync {storage.url}/wandb/offline-run-*"
