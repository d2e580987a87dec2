"""Rounds of a repeated workflow: whether there is another, and what it runs with.

A round is held against targets, ``job.field OP number``, which are parsed and never evaluated as
code. If there is another, it has the configuration of the one before, with some keys replaced by
what that one has given.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from djsandbox_ray.config import RunConfig, checked, replaced
from djsandbox_ray.errors import BadInput, nearest
from djsandbox_ray.settings.yaml_input import keys_of
from djsandbox_ray.workflows.language.jobs import NAME, Reference, Repeat, parse
from djsandbox_ray.workflows.language.parameters import as_data
from djsandbox_ray.workflows.language.types import alternatives, describe, fits

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
}
_TARGET = re.compile(
    rf"\s*({NAME})((?:\.{NAME})+)\s*(>=|<=|==|>|<)\s*"
    r"([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*"
)


@dataclass(frozen=True)
class Judged:
    """A target beside what was reached."""

    target: str
    value: float | None
    """None where the job gave nothing."""
    holds: bool

    def __str__(self) -> str:
        value = "nothing was given" if self.value is None else f"{self.value:g}"
        return f"{self.target}: {'yes' if self.holds else 'no'} ({value})"


@dataclass(frozen=True)
class Target:
    """A number that a field of a job's output is to reach."""

    text: str
    reference: Reference
    operator: str
    number: float

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``job.field OP number``.

        Raises:
            BadInput: it is something else.
        """
        match = _TARGET.fullmatch(text)
        if match is None or not math.isfinite(float(match[4])):
            raise BadInput(
                f"{text!r} is no target: job.field OP number is needed, OP one of "
                f"{' '.join(_OPERATORS)}"
            )
        reference = Reference(match[1], tuple(match[2].split(".")[1:]))
        return cls(text, reference, match[3], float(match[4]))

    def check(self, outputs: Mapping[str, Any]) -> None:
        """Look for the field among what jobs give.

        Args:
            outputs: per job, the annotation of what it gives.

        Raises:
            BadInput: there is no such job or field, or it holds no number.
        """
        kind = self.reference.type_in(outputs)
        numbers = [part for part in alternatives(kind) if part is not type(None)]
        if not numbers or not all(fits(part, float) for part in numbers):
            raise BadInput(f"{self.text!r}: a number is needed, but the field is {describe(kind)}")

    def judge(self, outputs: Mapping[str, Any]) -> Judged:
        """Hold the target against what jobs gave; nothing and NaN never reach it."""
        found = self.reference.look_up(outputs)
        value = None if found is None else float(found)
        # A comparison with NaN is false, with any of these operators.
        holds = value is not None and _OPERATORS[self.operator](value, self.number)
        return Judged(self.text, value, holds)


_FIXED = ("name", "storage", "workflow", "tracking", "cluster")
"""What makes the run one run."""


def key_problems(config: RunConfig, keys: Iterable[str]) -> list[str]:
    """Return one line per key that no round can replace."""
    return [f"{key}: {what}" for key in keys if (what := _problem(config, key))]


def updated(config: RunConfig, name: str, values: Mapping[str, Any]) -> RunConfig:
    """Return a configuration with another name and some values replaced, checked again.

    Args:
        config: of the run.
        name: of the round.
        values: plain data by key, such as ``pools.within``.

    Raises:
        BadInput: a value does not fit its key.
    """
    document = {**config.model_dump(mode="json", by_alias=True), "name": name}
    for key, value in values.items():
        document = replaced(document, key, value)
    return checked(document, f"{name}, after the update of {', '.join(values)}")


def _problem(config: RunConfig, key: str) -> str | None:
    first, *rest = key.split(".")
    if first in _FIXED:
        return f"{first!r} stays as it is in all rounds"
    place: Any = config
    for name in (first, *rest):
        if isinstance(place, BaseModel):
            fields = keys_of(type(place))
            if name not in fields:
                return f"unknown key {name!r}{nearest(name, fields)} (known: {', '.join(fields)})"
            place = getattr(place, fields[name])
        elif isinstance(place, list):
            if not name.isdecimal() or int(name) >= len(place):
                return f"there is no {name!r} in a list of {len(place)}"
            place = place[int(name)]
        elif isinstance(place, dict) or place is None:
            return None  # free, or made by the update: checked with the value
        else:
            return f"there is no {name!r} in {place!r}"
    return None


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
    values = {key: as_data(reference.look_up(outputs)) for key, reference in updates.items()}
    config = updated(this.config, f"{this.run}.round-{number}", values)
    return Round(number, config, this.run)
