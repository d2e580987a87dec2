"""Which trials a run consists of, what is known of each, and the tables that show it.

A trial's id is made of all that decides its result. Under this id its record lies in the storage,
for all runs: a JSON file that the driver alone replaces at every report. It is the truth about a
trial, from which a killed run goes on and to which MLflow is brought up; with a checksum, for a
number that was changed would be a verdict that was changed. The tables ``trials.parquet`` and
``curves.parquet`` are made of records, and give them back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import TypeAdapter

from djsandbox_ray.errors import Damaged, Missing
from djsandbox_ray.identity import content_id
from djsandbox_ray.pools.draws import Part, draw, members_of
from djsandbox_ray.records import (
    Pool,
    PoolKind,
    Pools,
    RungReport,
    Spoil,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.storage.store import Storage

logger = logging.getLogger(__name__)

_RECORD = TypeAdapter(TrialRecord)
_READERS = 16
_METRIC = "metric:"
_TERM = "term:"
_NUMERICS = "numerics:"
_SPEC = (("trial", pa.string()), ("pool", pa.string()), ("seed", pa.int64()))
_TRIAL = (
    *((name, pa.string()) for name in ("kind", "statistic", "bucket", "draw")),
    ("budget", pa.int64()),
    ("state", pa.string()),
    ("error", pa.string()),
    ("diverged", pa.bool_()),
    ("attempts", pa.int64()),
    ("held_seconds", pa.float64()),
    ("owner", pa.string()),
    ("flops", pa.float64()),
)
_REPORT = (
    ("samples", pa.int64()),
    ("loss", pa.float64()),
    ("train_seconds", pa.float64()),
    ("evaluation_seconds", pa.float64()),
    ("time_ms", pa.int64()),
)


def plan_trials(
    dataset: str,
    pools: Pools,
    column: Callable[[str], Iterable[Part]],
    *,
    seeds: Sequence[int],
    budget: int,
    model: Any,
    evaluation: Sequence[Any],
    total: int = 0,
) -> list[TrialSpec]:
    """List the trials: seed by seed, the controls of a seed first.

    Args:
        dataset: id of the dataset: row ids mean nothing without it.
        pools: the pools to train.
        column: reads a column of the assignments, part by part; called once for each.
        seeds: the trials of every pool.
        budget: samples seen in the stage that the pool feeds.
        model: identity of the model family, with the fixed data of its other stages.
        evaluation: identity of the evaluation suite.
        total: samples seen in all stages; 0 stands for the budget.
    """
    by_column: dict[str, list[Pool]] = {}
    for pool in pools.pools:
        by_column.setdefault(pool.column, []).append(pool)
    drawn = {
        (pool.id, seed): draw(pool, rows, seed, pool.draw_size or pools.draw_size, pools.seed).hash
        for name, those in by_column.items()
        for pool, rows in members_of(column(name), those)
        for seed in seeds
    }

    def spec(pool: Pool, seed: int) -> TrialSpec:
        training = (dataset, drawn[pool.id, seed], model, seed, budget)
        return TrialSpec(
            content_id("trial", *training, list(evaluation)),
            pool.id,
            seed,
            drawn[pool.id, seed],
            budget,
            content_id("training", *training),
            total,
        )

    by_kind = sorted(pools.pools, key=lambda pool: pool.kind is not PoolKind.CONTROL)
    return [spec(pool, seed) for seed in seeds for pool in by_kind]


def drawn_rows(
    pools: Pools, column: Callable[[str], Iterable[Part]], specs: Sequence[TrialSpec]
) -> dict[Spoil | None, NDArray[np.int64]]:
    """Return the rows that some trials train on, rising, by what is done to their samples.

    Args:
        pools: of the trials, among others.
        column: see :func:`plan_trials`.
        specs: the trials.
    """
    seeds: dict[str, list[int]] = {}
    for spec in specs:
        seeds.setdefault(spec.pool, []).append(spec.seed)
    by_column: dict[str, list[Pool]] = {}
    for pool in pools.pools:
        if pool.id in seeds:
            by_column.setdefault(pool.column, []).append(pool)
    found: dict[Spoil | None, NDArray[np.int64]] = {}
    for name, those in by_column.items():
        for pool, rows in members_of(column(name), those):
            size = pool.draw_size or pools.draw_size
            drawn = [draw(pool, rows, seed, size, pools.seed).rows for seed in seeds[pool.id]]
            known = found.get(pool.spoil, np.zeros(0, np.int64))
            found[pool.spoil] = np.unique(np.concatenate([known, *drawn]))
    return found


class TrialStore:
    """Trial records by trial id, under ``trials/`` of a storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def save(self, record: TrialRecord) -> None:
        """Replace what is known of a trial.

        What another run has settled in the meantime stays: it is the same trial.
        """
        if not record.settled and (known := self.load(record.spec)) and known.settled:
            return
        self._storage.write_sealed(self._path(record.spec.id), asdict(record))

    def load(self, spec: TrialSpec) -> TrialRecord | None:
        """Return what any run has left of a trial, finished or not, or None.

        The record keeps the rungs that the trial was run with. One that is not what was written
        does not count: the trial is trained again.
        """
        path = self._path(spec.id)
        try:
            record = _RECORD.validate_python(self._storage.read_sealed(path))
            if record.spec.id != spec.id:
                raise ValueError(f"it is the record of {record.spec.id}")
        except Missing:
            return None
        except Damaged as error:
            what = error.what
        except ValueError as error:
            why = str(error).splitlines()[0]
            what = f"{self._storage.shown}/{path} is damaged or of another version: {why}"
        else:
            return replace(record, spec=spec)
        logger.warning("%s: %s seed %d is trained again", what, spec.pool, spec.seed)
        return None

    def training(self, trial_id: str) -> str | None:
        """Return what the training of a trial is known by, and its answers; None where unknown."""
        try:
            record = self._storage.read_sealed(self._path(trial_id))
        except Missing:
            return None
        except Damaged as error:
            logger.warning("%s: what its model made is not looked for", error.what)
            return None
        spec = record.get("spec")
        return str(spec.get("training", "")) or None if isinstance(spec, dict) else None

    def load_all(self, specs: Sequence[TrialSpec]) -> dict[str, TrialRecord]:
        """Return what :meth:`load` finds, by trial id; an object store is asked many at a time."""
        there = set(self._storage.names("trials"))
        found = [spec for spec in specs if f"{spec.id}.json" in there]
        with ThreadPoolExecutor(_READERS) as readers:
            records = readers.map(self.load, found)
            return {record.spec.id: record for record in records if record is not None}

    @staticmethod
    def _path(trial_id: str) -> str:
        return f"trials/{trial_id}.json"


def trials_table(
    records: Sequence[TrialRecord],
    pools: Mapping[str, Pool],
    flops: Callable[[int], float | None] | None,
) -> pa.Table:
    """Return one row per trial, with the numbers of its last report.

    Args:
        records: the trials.
        pools: by pool id.
        flops: operations of training up to so many samples; None where nobody counted.
    """
    rows = []
    for record in records:
        pool, last = pools[record.spec.pool], record.reports[-1] if record.reports else None
        rows.append(
            {
                **_spec(record),
                "kind": str(pool.kind),
                "statistic": pool.statistic,
                "bucket": pool.bucket,
                "draw": record.spec.draw_hash,
                "budget": record.spec.budget,
                # Only where it is another number: most trials have one stage.
                **({"total": total} if (total := record.spec.total) != record.spec.budget else {}),
                "state": str(record.state),
                "error": record.error,
                "diverged": record.diverged,
                "attempts": record.attempts,
                "held_seconds": record.held_seconds,
                "owner": record.owner,
                "flops": flops(last.samples) if last and flops else None,
                **{f"{_NUMERICS}{name}": fact for name, fact in record.numerics.items()},
                **(_report(last) if last else {}),
            }
        )
    return _table(rows, (*_SPEC, *_TRIAL, *_REPORT))


def curves_table(records: Iterable[TrialRecord]) -> pa.Table:
    """Return one row per rung report, in the order of trials and rungs."""
    rows = [{**_spec(record), **_report(report)} for record in records for report in record.reports]
    return _table(rows, (*_SPEC, *_REPORT))


def read_records(trials: pa.Table, curves: pa.Table) -> list[TrialRecord]:
    """Return the records that the two tables were made of."""
    reports: dict[str, list[RungReport]] = {}
    for row in curves.to_pylist():
        numbers = {name: row[name] for name, _ in _REPORT}
        report = RungReport(metrics=_named(row, _METRIC), **numbers, terms=_named(row, _TERM))
        reports.setdefault(row["trial"], []).append(report)
    return [
        TrialRecord(
            TrialSpec(
                row["trial"],
                row["pool"],
                row["seed"],
                row["draw"],
                row["budget"],
                total=row.get("total") or 0,
            ),
            TrialState(row["state"]),
            tuple(reports.get(row["trial"], ())),
            row["error"],
            diverged=row["diverged"],
            attempts=row["attempts"],
            held_seconds=row["held_seconds"],
            owner=row["owner"],
            numerics=_named(row, _NUMERICS),
        )
        for row in trials.to_pylist()
    ]


def _named(row: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return what a row says in the columns of a prefix, by name."""
    return {
        name.removeprefix(prefix): value
        for name, value in row.items()
        if name.startswith(prefix) and value is not None
    }


def _spec(record: TrialRecord) -> dict[str, Any]:
    return {"trial": record.spec.id, "pool": record.spec.pool, "seed": record.spec.seed}


def _report(report: RungReport) -> dict[str, Any]:
    return {
        **{name: getattr(report, name) for name, _ in _REPORT},
        **{f"{_METRIC}{name}": value for name, value in report.metrics.items()},
        **{f"{_TERM}{name}": value for name, value in report.terms.items()},
    }


def _table(rows: Sequence[dict[str, Any]], fields: Sequence[tuple[str, pa.DataType]]) -> pa.Table:
    names = sorted({name for row in rows for name in row})
    kinds = ((_NUMERICS, pa.string()), (_METRIC, pa.float64()), (_TERM, pa.float64()))
    more = [(name, kind) for prefix, kind in kinds for name in names if name.startswith(prefix)]
    more += [("total", pa.int64())] if "total" in names else []
    schema = pa.schema([*fields, *more])
    return pa.Table.from_pylist(list(rows), schema=schema)
