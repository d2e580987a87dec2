"""The extension point: a hook is one kind of job."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from djsandbox_ray.config import RunConfig
from djsandbox_ray.records import Cost
from djsandbox_ray.registry import Registry
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.storage import Storage
from djsandbox_ray.tracking.tracker import Tracker


@dataclass(frozen=True)
class Prepared:
    """What a model family has prepared for its trials."""

    value: Any
    stage: str
    """The study on whose account it is."""
    cpu_seconds: float


@dataclass(frozen=True)
class Context:
    """What every hook may use."""

    config: RunConfig
    storage: Storage
    folder: str
    """Of this run, in the storage."""
    tracker: Tracker
    progress: Progress
    prepared: dict[str, Prepared] = field(default_factory=dict)
    """What was prepared in this process, by what decides it: studies share it."""


class Hook(ABC):
    """One kind of job: ``run`` takes outputs of earlier jobs and returns a record.

    The annotations of ``run`` are the types that a workflow is checked against.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.config = context.config
        self.spent = Cost("", samples=0, flops=0.0, cpu_seconds=0, gpu_seconds=0, wall_seconds=0)
        """What ``run`` cost on the cluster; the runner adds the job's name and the wall time."""

    def identity(self) -> Any:
        """Return plain data: all of the configuration that the output depends on."""
        return None

    def keep(self, output: Any) -> bool:
        """Say whether the output settles the job; if not, the same command does the job again."""
        return True

    def account(self, cost: Cost) -> None:
        """Take down what ``run`` cost."""
        self.spent = cost

    @abstractmethod
    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Do the job; a killed job is called again and may find its own leftovers."""


HOOKS: Registry[Hook] = Registry("hook", Hook)  # type: ignore[type-abstract]
