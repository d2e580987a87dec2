"""The JSON form of a run's pools, ``pools.json``: plain data, no NaN.

It is for people and other programs: a run hands its pools on as records. Infinite values, which
JSON lacks, are the strings inf and -inf.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from djsandbox_ray.records import Pool, Pools, StudyPlan

_PROVENANCE = ("column", "code", "statistic", "bucket", "operator")


def to_json(pools: Pools) -> dict[str, Any]:
    """Return all that a record says, and beside every pool what is known of its statistic."""
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
        "not_testable": [asdict(item) for item in pools.not_testable],
    }


def _study_to_json(study: StudyPlan) -> dict[str, Any]:
    return {**asdict(study), "seeds": list(study.seeds)}


def _pool_to_json(pool: Pool, pools: Pools) -> dict[str, Any]:
    of_statistic = pool.statistic or ""
    return {
        "id": pool.id,
        "kind": str(pool.kind),
        "size": pool.size,
        "hash": pool.hash,
        "provenance": {
            **{name: getattr(pool, name) for name in _PROVENANCE},
            "shuffle_captions": pool.spoil == "captions",
            **({"spoil": pool.spoil} if pool.spoil not in (None, "captions") else {}),
        },
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


def _bound_to_json(bound: float | None) -> float | str | None:
    return bound if bound is None or math.isfinite(bound) else str(bound)
