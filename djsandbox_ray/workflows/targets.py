"""Targets of a repeated workflow, ``job.field OP number``: parsed, never evaluated as code."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from djsandbox_ray.errors import BadInput
from djsandbox_ray.workflows.fitting import describe, fits, members
from djsandbox_ray.workflows.references import Reference

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
}
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_TARGET = re.compile(
    rf"\s*({_NAME})((?:\.{_NAME})+)\s*(>=|<=|==|>|<)\s*"
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
        numbers = [part for part in members(kind) if part is not type(None)]
        if not numbers or not all(fits(part, float) for part in numbers):
            raise BadInput(f"{self.text!r}: a number is needed, but the field is {describe(kind)}")

    def judge(self, outputs: Mapping[str, Any]) -> Judged:
        """Hold the target against what jobs gave; nothing and NaN never reach it."""
        found = self.reference.look_up(outputs)
        value = None if found is None else float(found)
        # A comparison with NaN is false, with any of these operators.
        holds = value is not None and _OPERATORS[self.operator](value, self.number)
        return Judged(self.text, value, holds)
