"""Trial records as the tables ``trials.parquet`` and ``curves.parquet``, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from djsandbox_ray.records import Pool, RungReport, TrialRecord, TrialSpec, TrialState

_METRIC = "metric:"
_SPEC = (("trial", pa.string()), ("pool", pa.string()), ("seed", pa.int64()))
_REPORT = (
    ("samples", pa.int64()),
    ("loss", pa.float64()),
    ("train_seconds", pa.float64()),
    ("evaluation_seconds", pa.float64()),
    ("time_ms", pa.int64()),
)


def trials_table(
    records: Sequence[TrialRecord], pools: Mapping[str, Pool], flops_per_sample: float | None
) -> pa.Table:
    """Return one row per trial, with the numbers of its last report.

    Args:
        records: the trials.
        pools: by pool id.
        flops_per_sample: of training; None where nobody counted.
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
                "state": str(record.state),
                "error": record.error,
                "diverged": record.diverged,
                "attempts": record.attempts,
                "held_seconds": record.held_seconds,
                "owner": record.owner,
                "flops": last.samples * flops_per_sample if last and flops_per_sample else None,
                **(_report(last) if last else {}),
            }
        )
    more = (
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
    return _table(rows, (*_SPEC, *more, *_REPORT))


def curves_table(records: Iterable[TrialRecord]) -> pa.Table:
    """Return one row per rung report, in the order of trials and rungs."""
    rows = [{**_spec(record), **_report(report)} for record in records for report in record.reports]
    return _table(rows, (*_SPEC, *_REPORT))


def read_records(trials: pa.Table, curves: pa.Table) -> list[TrialRecord]:
    """Return the records that the two tables were made of."""
    reports: dict[str, list[RungReport]] = {}
    for row in curves.to_pylist():
        metrics = {
            name.removeprefix(_METRIC): value
            for name, value in row.items()
            if name.startswith(_METRIC) and value is not None
        }
        numbers = {name: row[name] for name, _ in _REPORT}
        reports.setdefault(row["trial"], []).append(RungReport(metrics=metrics, **numbers))
    return [
        TrialRecord(
            TrialSpec(row["trial"], row["pool"], row["seed"], row["draw"], row["budget"]),
            TrialState(row["state"]),
            tuple(reports.get(row["trial"], ())),
            row["error"],
            diverged=row["diverged"],
            attempts=row["attempts"],
            held_seconds=row["held_seconds"],
            owner=row["owner"],
        )
        for row in trials.to_pylist()
    ]


def _spec(record: TrialRecord) -> dict[str, Any]:
    return {"trial": record.spec.id, "pool": record.spec.pool, "seed": record.spec.seed}


def _report(report: RungReport) -> dict[str, Any]:
    return {
        **{name: getattr(report, name) for name, _ in _REPORT},
        **{f"{_METRIC}{name}": value for name, value in report.metrics.items()},
    }


def _table(rows: Sequence[dict[str, Any]], fields: Sequence[tuple[str, pa.DataType]]) -> pa.Table:
    metrics = sorted({name for row in rows for name in row if name.startswith(_METRIC)})
    schema = pa.schema([*fields, *((name, pa.float64()) for name in metrics)])
    return pa.Table.from_pylist(list(rows), schema=schema)
