"""Tier 2, the behaviour of a run: one small hook per kind of job, typed in and out.

A hook takes records, puts capabilities to work as the configuration says, and returns a record.
In the order of a run: ``ingest``, ``leaks``, ``scorer``, ``statistics``, ``pools``, ``trials``,
``ranking``, ``report``.
"""

from djsandbox_ray.hooks import (  # noqa: F401 - they register themselves
    ingest,
    leaks,
    pools,
    ranking,
    report,
    scorer,
    statistics,
    trials,
)
