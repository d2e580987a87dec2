"""Records, configurations and waiting for all tests; every builder gives the plainest valid one.

``minimal_document(trials__budget=64)``: keywords are paths, with ``__`` for a step down.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pytest
import yaml

from djsandbox_ray.config import RunConfig, checked, load_config
from djsandbox_ray.errors import BadInput
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import (
    ConfirmationRow,
    Pool,
    PoolKind,
    Pools,
    RankingRow,
    RungReport,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.storage.lease import Lease, take
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.ownership import lease_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from djsandbox_ray.hooks.hook import Context
    from djsandbox_ray.pools.build import Construction

Found = TypeVar("Found")

PATIENCE = 1500
"""Seconds until a wait is given up: far more than anything takes, however busy the machine."""

LEFT_OUT = object()
"""As a value in :func:`minimal_document`: that key is not there."""

MINIMAL: dict[str, Any] = {
    "name": "test",
    "dataset": {"type": "shapes", "samples": 100},
    "operators": ["text_length_filter"],
    "trials": {"model": {"type": "clip"}, "budget": 100},
    "evaluation": {
        "dataset": {"type": "shapes", "samples": 50, "seed": 1},
        "metrics": [
            {"type": "zero_shot", "label": "colour"},
            {"type": "retrieval", "k": [1, 5]},
        ],
    },
}


# Pools


def kind_of(name: str) -> PoolKind:
    """Return what a pool of that name is for."""
    first = name.partition("/")[0]
    kinds = {"control": PoolKind.CONTROL, "self_test": PoolKind.SELF_TEST}
    return kinds.get(first, PoolKind.BUCKET)


def _single(name: str) -> tuple[str | None, str | None]:
    """Return the statistic and the bucket that a pool's name says, if it is of one statistic."""
    statistic, slash, bucket = name.partition("/")
    known = kind_of(name) is PoolKind.BUCKET and bool(slash) and "&" not in name
    return (statistic, bucket) if known else (None, None)


def pool(name: str = "text_len/low", **changes: Any) -> Pool:
    """Return a pool; kind, statistic, bucket, column and code are those that its name says."""
    statistic, bucket = _single(name)
    codes = {"low": 0, "middle": 1, "high": 2}
    given: dict[str, Any] = {
        "kind": kind_of(name),
        "column": statistic or name,
        "code": codes.get(bucket or "", 0),
        "size": 100,
        "hash": name,
        "statistic": statistic,
        "bucket": bucket,
    }
    return Pool(id=name, **(given | changes))


def pools(members: Sequence[Pool | str] = (), **changes: Any) -> Pools:
    """Return a run's pools: those, or ones of those names."""
    made = tuple(pool(one) if isinstance(one, str) else one for one in members)
    size = made[0].size if made else 100
    given: dict[str, Any] = {
        "id": "pools-1",
        "assignments": "assignments.parquet",
        "size": size,
        "draw_size": size // 2,
        "eligible": 3 * size,
        "seed": 0,
    }
    return Pools(pools=made, **(given | changes))


# Trials


def trial_spec(name: str = "text_len/low", seed: int = 0, **changes: Any) -> TrialSpec:
    """Return the trial of a pool."""
    given: dict[str, Any] = {"id": f"{name}-{seed}", "draw_hash": f"{name}-{seed}", "budget": 100}
    return TrialSpec(pool=name, seed=seed, **(given | changes))


def rung_report(
    samples: int = 100, metrics: Mapping[str, float] | float = 0.5, **changes: Any
) -> RungReport:
    """Return what a trial reports at a rung; one number is that of the metric ``m``."""
    found = {"m": metrics} if isinstance(metrics, float | int) else dict(metrics)
    given: dict[str, Any] = {
        "loss": 1.0,
        "train_seconds": 1.0,
        "evaluation_seconds": 1.0,
        "time_ms": 0,
    }
    return RungReport(samples=samples, metrics=found, **(given | changes))


def trial_record(
    name: str = "text_len/low",
    seed: int = 0,
    metrics: Mapping[str, float] | float = 0.5,
    state: TrialState = TrialState.COMPLETED,
    **changes: Any,
) -> TrialRecord:
    """Return a trial; completed it has one report, at its budget, failed none.

    Args:
        name: its pool.
        seed: its seed.
        metrics: of its report.
        state: what became of it.
        **changes: fields of the spec (``id``, ``draw_hash``, ``budget``) and of the record.
    """
    own = {key: changes.pop(key) for key in ("id", "draw_hash", "budget") if key in changes}
    spec = trial_spec(name, seed, **own)
    reports = (rung_report(spec.budget, metrics),) if state is TrialState.COMPLETED else ()
    return TrialRecord(spec, state, **({"reports": reports} | changes))


# Verdicts


def ranking_row(
    name: str = "text_len/low", change: float = 0.1, verdict: str = "better", **changes: Any
) -> RankingRow:
    """Return the verdict on a pool, with an interval of 0.05 to both sides."""
    statistic, bucket = _single(name)
    given: dict[str, Any] = {
        "rank": 1,
        "kind": kind_of(name),
        "statistic": statistic,
        "bucket": bucket,
        "std": 0.02,
        "low": change - 0.05,
        "high": change + 0.05,
        "p": 0.01,
        "q": 0.02,
        "seeds": 3,
        "failed": 0,
        "shrunken": 0.75 * change,
    }
    return RankingRow(pool=name, change=change, verdict=verdict, **(given | changes))


def confirmation_row(
    name: str = "text_len/low", confirmed: float = 0.1, verdict: str = "better", **changes: Any
) -> ConfirmationRow:
    """Return the second look at a pool, with an interval of 0.05 to both sides."""
    given: dict[str, Any] = {
        "first": 0.2,
        "first_low": 0.1,
        "first_high": 0.3,
        "shrunken": 0.15,
        "low": confirmed - 0.05,
        "high": confirmed + 0.05,
        "seeds": 3,
    }
    return ConfirmationRow(pool=name, confirmed=confirmed, verdict=verdict, **(given | changes))


def written_pools(made: Context, rows: NDArray[np.int64], built: Construction) -> Pools:
    """Write which rows are in which pool, as the hook does; return the record of the pools."""
    path = f"{made.folder}/assignments.parquet"
    made.storage.write_table(path, pa.table({"row_id": rows, **built.assignments}))
    return Pools(
        id=content_id("pools", [[pool.id, pool.hash] for pool in built.pools]),
        assignments=path,
        pools=built.pools,
        size=built.size,
        draw_size=built.draw_size,
        eligible=built.eligible,
        seed=made.config.pools.seed,
        not_testable=built.not_testable,
    )


# Configurations


def changed(document: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a copy with values at paths such as ``a__0__b`` replaced or left out."""
    made = copy.deepcopy(dict(document))
    for path, value in changes.items():
        *parents, last = path.split("__")
        place: Any = made
        for key in parents:
            place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
        if value is LEFT_OUT:
            del place[last]
        else:
            place[int(last) if isinstance(place, list) else last] = value
    return made


def minimal_document(**changes: Any) -> dict[str, Any]:
    """Return the least valid configuration, as YAML gives it, with changes."""
    return changed(MINIMAL, **changes)


class ConfigWriter:
    """Writes configurations that are valid but for what a test changes, and tells their errors."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "config.yaml"

    def __call__(self, **changes: Any) -> str:
        """Write the valid config, with values at paths such as a__0__b replaced."""
        self.path.write_text(yaml.safe_dump(minimal_document(**changes)))
        return str(self.path)

    def problems(self, *overrides: str, **changes: Any) -> list[str]:
        path = self(**changes)
        with pytest.raises(BadInput) as caught:
            load_config(path, overrides)
        head, *lines = str(caught.value).split("\n")
        assert head == f"{path}: {len(lines)} error(s) in the configuration"
        return [line.removeprefix("  ") for line in lines]


def minimal_config(**changes: Any) -> RunConfig:
    """Return the least valid configuration, checked, with changes."""
    return checked(minimal_document(**changes), "config.yaml")


def write_config(folder: Path, **changes: Any) -> Path:
    """Write the least valid configuration with changes; its storage lies in the same folder."""
    path = folder / "config.yaml"
    document = {"storage": str(folder / "storage"), **minimal_document(**changes)}
    path.write_text(yaml.safe_dump(document))
    return path


# Runs


def read_events(storage: Storage, run: str) -> list[dict[str, Any]]:
    """Return the events of a run, of all its drivers, in order."""
    folder = f"runs/{run}/logs"
    names = [name for name in storage.names(folder) if name.endswith(".jsonl")]
    lines = [line for name in names for line in storage.read_bytes(f"{folder}/{name}").splitlines()]
    return [json.loads(line) for line in lines]


def lost_lease(storage: Storage, run: str) -> Lease:
    """Return the lease of a driver that was taken over, and has just noticed."""
    lease = take(storage, lease_path(run), f"the run {run!r}")
    lease.release()
    lease.lost = "the run was taken over"
    return lease


# Numbers


def dprime(good: Sequence[float], bad: Sequence[float]) -> float:
    """Return the distance of two means in units of the mean deviation within them."""
    spread = (np.var(good, ddof=1) + np.var(bad, ddof=1)) / 2
    return float((np.mean(good) - np.mean(bad)) / np.sqrt(spread))


# Waiting


def wait_until(
    condition: Callable[[], Found], what: str | Callable[[], str], pause: float = 0.05
) -> Found:
    """Wait until something comes true, and return what it is then.

    Args:
        condition: tried again and again; errors of a connection are no answer yet.
        what: what is waited for, or a function that says what went wrong, as a log does.
        pause: seconds between two tries.

    Raises:
        AssertionError: it did not come true in :data:`PATIENCE` seconds.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if found := condition():
                return found
        except OSError:  # a server that is not up yet
            pass
        if time.monotonic() > end:
            said = what if isinstance(what, str) else what()
            raise AssertionError(f"waited {PATIENCE:g} s in vain: {said}")
        time.sleep(pause)
