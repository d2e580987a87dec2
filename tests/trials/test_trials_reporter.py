"""Trials that wait for a place, with Ray Tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import ray
from trial_world import Arena, Counter

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials import reporter
from djsandbox_ray.trials.engine import run_trials
from djsandbox_ray.trials.stopping.stopping import NoStopping, StoppingConfig


@ray.remote(num_cpus=2)
class Holder:
    def ready(self) -> bool:
        return True


def test_who_waits_for_a_place_may_end_the_study(
    ray_cluster: None, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "_PATIENCE", 0.5)
    holder = Holder.remote()
    assert ray.get(holder.ready.remote())
    arena = Arena(storage)
    waits: list[Sequence[Mapping[str, float]] | None] = []

    def enough(group: Sequence[Mapping[str, float]] | None) -> None:
        waits.append(group)
        if len(waits) == 3:
            raise SandboxError("the nodes are gone")

    try:
        with pytest.raises(SandboxError, match=r"^the nodes are gone$"):
            run_trials(
                arena.specs,
                arena.shared(Counter(), tmp_path),
                NoStopping(StoppingConfig(type="none")),
                arena.competition(),
                lambda record: None,
                "tune",
                on_waiting=enough,
            )
    finally:
        ray.kill(holder)
    assert waits == [[{"CPU": 1}]] * 3
