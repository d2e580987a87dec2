"""Rounds of a repeated workflow: what each one runs with, and whether there is another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from djsandbox_ray.config import RunConfig
from djsandbox_ray.workflows.jobs import Repeat
from djsandbox_ray.workflows.parameters import plain
from djsandbox_ray.workflows.references import Reference, parse
from djsandbox_ray.workflows.targets import Judged, Target
from djsandbox_ray.workflows.updates import updated


@dataclass(frozen=True)
class Round:
    """One pass through the workflow."""

    number: int
    config: RunConfig
    """Named ``<run>.round-<number>`` after the first: what it trains is on its own account."""
    run: str
    """The name of the run."""

    @classmethod
    def first(cls, config: RunConfig) -> Round:
        """Return the round that runs with the configuration as it is."""
        return cls(0, config, config.name)

    @property
    def folder(self) -> str:
        """Where its files are, in the storage."""
        return f"runs/{self.run}/round-{self.number}" if self.number else f"runs/{self.run}"


@dataclass(frozen=True)
class Outcome:
    """What follows from a round."""

    judged: tuple[Judged, ...] = ()
    reason: str = ""
    """Why it was the last, or what changes for the next."""
    following: Round | None = None


def conclude(repeat: Repeat | None, this: Round, outputs: Mapping[str, Any]) -> Outcome:
    """Hold a round against the targets, and prepare the next if there is to be one.

    Args:
        repeat: of the workflow.
        this: the round.
        outputs: all of the round, by job.

    Raises:
        BadInput: what the round gave does not fit into the configuration; names the update.
    """
    if repeat is None:
        return Outcome()
    judged = tuple(Target.parse(text).judge(outputs) for text in repeat.until)
    if (all if repeat.match == "all" else any)(item.holds for item in judged):
        return Outcome(judged, f"done: {repeat.match} of the targets hold")
    if this.number + 1 >= repeat.most:
        return Outcome(judged, f"done: this was round {this.number + 1} of at most {repeat.most}")
    updates = {key: parse(value) for key, value in repeat.update.items()}
    references = {key: found for key, found in updates.items() if found is not None}
    if empty := sorted({found.job for found in references.values() if outputs[found.job] is None}):
        return Outcome(judged, f"done: {', '.join(empty)} gave nothing to go on with")
    following = _next(this, references, outputs)
    return Outcome(judged, f"next: a round with another {', '.join(references)}", following)


def _next(this: Round, updates: Mapping[str, Reference], outputs: Mapping[str, Any]) -> Round:
    number = this.number + 1
    values = {key: plain(reference.look_up(outputs)) for key, reference in updates.items()}
    config = updated(this.config, f"{this.run}.round-{number}", values)
    return Round(number, config, this.run)
