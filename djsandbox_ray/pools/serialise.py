"""The JSON form of a run's pools, ``pools.json``: plain data, no NaN.

What is repeated for the reader (a pool's contrast and missing values are its statistic's) is
read back from one place only. Infinite values, which JSON lacks, are the strings inf and -inf.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import NotTestable, Pool, PoolKind, Pools, StudyPlan

_PROVENANCE = ("column", "code", "statistic", "bucket", "operator", "shuffle_captions")


def to_json(pools: Pools) -> dict[str, Any]:
    """Return plain data that :func:`from_json` reads back to an equal record."""
    return {
        "id": pools.id,
        "assignments": pools.assignments,
        "size": pools.size,
        "draw_size": pools.draw_size,
        "eligible": pools.eligible,
        "seed": pools.seed,
        "study": None if pools.study is None else _study_to_json(pools.study),
        "pools": [_pool_to_json(pool, pools) for pool in pools.pools],
        "statistics": {
            name: {"contrast": pools.contrast.get(name), "missing": pools.missing.get(name)}
            for name in {**pools.missing, **pools.contrast}
        },
        "not_testable": [
            {"statistic": item.statistic, "reason": item.reason} for item in pools.not_testable
        ],
    }


def from_json(value: dict[str, Any]) -> Pools:
    """Read what :func:`to_json` wrote.

    Raises:
        BadInput: a key is missing or a value cannot be used; says which.
    """
    try:
        statistics = value["statistics"].items()
        return Pools(
            id=value["id"],
            assignments=value["assignments"],
            pools=tuple(_pool_from_json(item) for item in value["pools"]),
            size=value["size"],
            draw_size=value["draw_size"],
            eligible=value["eligible"],
            seed=value["seed"],
            study=None if value["study"] is None else _study_from_json(value["study"]),
            not_testable=tuple(
                NotTestable(item["statistic"], item["reason"]) for item in value["not_testable"]
            ),
            contrast={k: v["contrast"] for k, v in statistics if v["contrast"] is not None},
            missing={k: v["missing"] for k, v in statistics if v["missing"] is not None},
        )
    except KeyError as error:
        raise BadInput(f"pools.json: the key {error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"pools.json cannot be read: {error}") from error


def _study_to_json(study: StudyPlan) -> dict[str, Any]:
    return {**asdict(study), "seeds": list(study.seeds)}


def _study_from_json(value: dict[str, Any]) -> StudyPlan:
    return StudyPlan(**{**value, "seeds": tuple(value["seeds"])})


def _pool_to_json(pool: Pool, pools: Pools) -> dict[str, Any]:
    of_statistic = pool.statistic or ""
    return {
        "id": pool.id,
        "kind": str(pool.kind),
        "size": pool.size,
        "hash": pool.hash,
        "provenance": {name: getattr(pool, name) for name in _PROVENANCE},
        "low": _bound_to_json(pool.low),
        "high": _bound_to_json(pool.high),
        "ties": pool.ties,
        "contrast": pools.contrast.get(of_statistic),
        "missing": pools.missing.get(of_statistic),
        "expected": pool.expected,
        "parts": list(pool.parts),
        "draw_size": pool.draw_size,
        "breaks": list(pool.breaks),
    }


def _pool_from_json(value: dict[str, Any]) -> Pool:
    return Pool(
        id=value["id"],
        kind=PoolKind(value["kind"]),
        size=value["size"],
        hash=value["hash"],
        low=None if value["low"] is None else float(value["low"]),
        high=None if value["high"] is None else float(value["high"]),
        ties=value["ties"],
        expected=value["expected"],
        parts=tuple(value["parts"]),
        draw_size=value["draw_size"],
        breaks=tuple(value["breaks"]),
        **{name: value["provenance"][name] for name in _PROVENANCE},
    )


def _bound_to_json(bound: float | None) -> float | str | None:
    return bound if bound is None or math.isfinite(bound) else str(bound)
