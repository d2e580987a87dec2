"""What the hooks that make pools write, and how they say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.identity import content_id
from djsandbox_ray.pools.serialise import to_json
from djsandbox_ray.records import Pool, Pools, StudyPlan


def like(
    first: Pools,
    pools: Iterable[Pool],
    *,
    study: StudyPlan | None = None,
    size: int | None = None,
    draw_size: int | None = None,
) -> Pools:
    """Return pools made of others, yet to be written.

    Args:
        first: the pools that these are made of.
        pools: the new ones.
        study: how they are trained and judged.
        size: rows of every pool; by default that of the first ones.
        draw_size: rows that one trial trains on; by default that of the first ones.
    """
    return replace(
        first,
        pools=tuple(pools),
        study=study,
        size=size or first.size,
        draw_size=draw_size or first.draw_size,
        not_testable=(),
        contrast={},
        missing={},
    )


def assignments_of(hook: Hook, name: str = "") -> str:
    """Return the path of the assignments of a study's pools; see :func:`write_pools`."""
    return hook.path(f"{name}_assignments.parquet" if name else "assignments.parquet")


def write_pools(
    hook: Hook, made: Pools, columns: Mapping[str, Any] | None, *, of: str, name: str = ""
) -> Pools:
    """Write ``assignments.parquet`` and ``pools.json``; return the pools with path and id.

    Args:
        hook: of the run whose files they are.
        made: all but the path and the id.
        columns: ``row_id``, and the codes by column of the pools; None: they were written as they
            came, to :func:`assignments_of`.
        of: the id of what they are made of.
        name: begins the names of the files, where it is not the first study.
    """
    prefix = f"{name}_" if name else ""
    made = replace(made, id="", assignments=assignments_of(hook, name))
    made = replace(made, id=content_id("pools", of, to_json(made)))
    if columns is not None:
        hook.storage.write_table(made.assignments, pa.table(dict(columns)))
    hook.write_sealed(f"{prefix}pools.json", to_json(made))
    return made


def note_broken(hook: Hook, pools: Pools, about: str) -> None:
    """Say which pools break which policies."""
    for pool in pools.pools:
        for sentence in pool.breaks:
            hook.note(f"{about}: {pool.id} breaks a policy: {sentence}")
