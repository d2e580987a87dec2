"""What programs of others measure: as evaluators of a model's folder, or during their training."""

from __future__ import annotations

import atexit
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from djsandbox_ray.dataset.media import MODALITIES, Content
from djsandbox_ray.errors import SandboxError
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Artefact, Evaluator, Reads
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.outside.config import ProgramConfig
from djsandbox_ray.outside.environment import scratch
from djsandbox_ray.outside.exchange import Format, number_at, read_measured, write_samples
from djsandbox_ray.outside.program import Program
from djsandbox_ray.settings.sections import Component

_LESS = "less_is_better"
"""The setting that decides how numbers are read, and none of them."""


def _distinct(names: Sequence[str]) -> Sequence[str]:
    if len(set(names)) < len(names):
        raise ValueError("a metric stands twice")
    return names


_Names = Annotated[tuple[str, ...], AfterValidator(_distinct)]


class CommandEvaluatorConfig(ProgramConfig):
    """The program is called once per model.

    Placeholders: ``{output}``, the folder that the training has left; ``{evaluation}``, a folder
    with the trusted split; ``{metrics}``, the JSON file to be written.
    """

    PLACEHOLDERS: ClassVar[tuple[str, ...]] = ("output", "evaluation", "metrics")
    NEEDED: ClassVar[tuple[str, ...]] = ("output", "metrics")

    metrics: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w./ -]*$")],
        Annotated[str, Field(min_length=1)],
    ] = Field(min_length=1)
    """Per metric its place in that JSON: ``results.0.accuracy``."""
    less_is_better: _Names = ()
    """Which of them are better when less, as an error or a distance; the others when greater."""
    format: Format = "jsonl"
    """How the trusted split is written: jsonl (Data-Juicer's layout), parquet or webdataset."""
    rows_per_shard: int = Field(default=10_000, ge=1, strict=True)
    """Samples of every file but the last."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        _refuse_others(self.less_is_better, self.metrics)
        return self


class CommandEvaluator(Evaluator):
    """Runs the program once per model, in its own environment."""

    Config = CommandEvaluatorConfig
    VERSION: ClassVar[int] = 1
    READS: ClassVar[Reads] = "files"
    config: CommandEvaluatorConfig

    def __init__(self, config: CommandEvaluatorConfig) -> None:
        super().__init__(config)
        self._evaluation: Path | None = None

    @cached_property
    def program(self) -> Program:
        """The program with its files, which are where the configuration is: on the driver."""
        return Program.read(self.config)

    def identity(self) -> Any:
        """Return the settings, with files by their contents."""
        found = self.program.identity()
        return {name: value for name, value in found.items() if name != _LESS}

    def needs_samples(self) -> bool:
        """Say whether the program is given them."""
        return "evaluation" in self.config.used()

    def check(self, data: EvaluationSet) -> None:
        """Read the program's files, and look for its packages."""
        self.program.check()

    def metrics(self) -> tuple[Metric, ...]:
        """Name what the configuration names."""
        return _directed(self.config.metrics, self.config.less_is_better)

    def evaluate(self, model: Artefact, data: EvaluationSet) -> dict[str, float]:
        """Run the program on a model's folder.

        Raises:
            ProgramFailed: it ended with an error.
            SandboxError: what it wrote lacks a metric.
        """
        with scratch() as folder:
            target, reads = folder / "metrics.json", [model.folder]
            values = {"output": str(model.folder), "metrics": str(target)}
            if "evaluation" in self.config.used():
                reads.append(self._written(data))
                values["evaluation"] = str(reads[-1])
            self.program.call(values, folder, cpus=model.cpus, gpus=model.gpus, reads=reads)
            name = f"the evaluator {self.config.command[0]!r}"
            found = read_measured(target, name)
        return {key: number_at(found, at, name) for key, at in self.config.metrics.items()}

    def _written(self, data: EvaluationSet) -> Path:
        """Return a folder with the split, which this process keeps for all models."""
        if self._evaluation is None:
            stack = ExitStack()
            atexit.register(stack.close)
            folder = stack.enter_context(scratch())
            rows = np.arange(data.rows, dtype=np.int64)
            config = self.config
            write_samples(
                data.uri,
                rows,
                rows,
                folder,
                form=config.format,
                rows_per_shard=config.rows_per_shard,
            )
            self._evaluation = folder
        return self._evaluation


class ReportedConfig(Component):
    """Which numbers of the training's own report count."""

    metrics: Annotated[list[str], AfterValidator(_distinct)] = Field(min_length=1)
    """Their names."""
    less_is_better: _Names = ()
    """Which of them are better when less, as a loss; the others when greater."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        _refuse_others(self.less_is_better, self.metrics)
        return self


class Reported(Evaluator):
    """The metrics that a program wrote beside its loss, under their own names."""

    Config = ReportedConfig
    VERSION: ClassVar[int] = 1
    READS: ClassVar[Reads] = "reports"
    CONTENT: ClassVar[tuple[Content, ...]] = tuple(MODALITIES)
    config: ReportedConfig

    def identity(self) -> Any:
        """Return the names of the metrics."""
        return self.config.model_dump(mode="json", exclude={_LESS})

    def needs_samples(self) -> bool:
        """Say that the training has measured."""
        return False

    def metrics(self) -> tuple[Metric, ...]:
        """Name them as they were reported."""
        return _directed(self.config.metrics, self.config.less_is_better)

    def evaluate(self, model: Artefact, data: EvaluationSet) -> dict[str, float]:
        """Pick the metrics.

        Raises:
            SandboxError: one was not reported: trials without it cannot be compared.
        """
        found = model.reported
        if lacking := [name for name in self.config.metrics if name not in found]:
            raise SandboxError(
                f"the training reported no {', '.join(map(repr, lacking))} "
                f"(reported: {', '.join(map(repr, found)) or 'nothing'})"
            )
        return {name: found[name] for name in self.config.metrics}


def _refuse_others(less: Iterable[str], metrics: Collection[str]) -> None:
    if others := [name for name in less if name not in metrics]:
        raise ValueError(f"{_LESS}: {others[0]!r} is none of the metrics ({', '.join(metrics)})")


def _directed(metrics: Iterable[str], less: Collection[str]) -> tuple[Metric, ...]:
    return tuple(Metric(name, "less" if name in less else "greater") for name in metrics)
