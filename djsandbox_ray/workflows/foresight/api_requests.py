"""What operators whose model is behind an API will ask at most, before a request is paid for.

An answer that is kept is not asked for again, and equal texts are asked about once: bounds only.
How many tokens an answer costs nobody knows but the server: a budget is the only bound of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from djsandbox_ray.config import RunConfig
from djsandbox_ray.hooks.hook import HOOKS
from djsandbox_ray.hooks.statistics import ComputeStatistics
from djsandbox_ray.records import Dataset
from djsandbox_ray.stats.operators import parse_process
from djsandbox_ray.workflows.beforehand import most_rows
from djsandbox_ray.workflows.language.jobs import Job, Workflow


@dataclass(frozen=True)
class AskingOperator:
    """An operator that will make requests."""

    place: str
    """Of the operator in the configuration."""
    samples: int | None
    """Rows that it asks about at most; None: nobody knows before the data are read."""
    tries: int | None
    """Requests about a sample at most; None: the operator does not say."""
    tokens: int | None
    """What the answers may cost, those of earlier runs included; None: there is no budget."""

    @property
    def requests(self) -> int | None:
        """Requests at most, those that are made again for a busy server aside."""
        if self.samples is None or self.tries is None:
            return None
        return self.samples * self.tries

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "operator": self.place,
            "samples": self.samples,
            "requests": self.requests,
            "tokens": self.tokens,
        }


def asking(
    config: RunConfig, workflow: Workflow, done: Mapping[str, Any]
) -> tuple[AskingOperator, ...]:
    """Return the operators that will ask, in their order; none where their statistics are there.

    Args:
        config: that was checked.
        workflow: its workflow.
        done: the outputs of the jobs that are done, by job.
    """
    computing = [job for job in workflow.jobs if issubclass(HOOKS.get(job.hook), ComputeStatistics)]
    ahead = [job for job in computing if job.id not in done]
    asks = [
        (f"operators[{index}].{spec.name}", spec.values.get("try_num"))
        for index, spec in enumerate(parse_process(config.operators))
        if spec.asks
    ]
    if not ahead or not asks:
        return ()
    endpoint = config.statistics.endpoint
    tokens = endpoint.budget_tokens if endpoint else None
    samples = _samples(config, ahead, done)
    return tuple(AskingOperator(place, samples, tries, tokens) for place, tries in asks)


def _samples(config: RunConfig, jobs: list[Job], done: Mapping[str, Any]) -> int | None:
    """Return how many rows jobs compute statistics of at most."""
    inputs = [done.get(job.references["dataset"].job) for job in jobs]
    tables = {one.id: one.rows for one in inputs if isinstance(one, Dataset)}
    if len(inputs) == sum(isinstance(one, Dataset) for one in inputs):
        return sum(tables.values())
    return most_rows(config.dataset) if len(jobs) == 1 else None


def asking_lines(made: list[dict[str, Any]]) -> list[str]:
    """Return what a plan says of it, from plain data."""
    lines = []
    for one in made:
        if one["requests"] is not None:
            how_many = f"{one['requests']:,} requests about {one['samples']:,} samples"
        elif one["samples"] is not None:
            how_many = f"its own number of requests about each of {one['samples']:,} samples"
        else:
            how_many = "requests about as many samples as there are, which is not known yet"
        tokens = (
            "without a limit of tokens (statistics.endpoint.budget_tokens)"
            if one["tokens"] is None
            else f"{one['tokens']:,} tokens and what is under way then"
        )
        lines.append(f"asks    {one['operator']}: at most {how_many}, {tokens}")
    return lines
