"""A program of others as model family: called at every rung, it goes on from its checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.evaluation.evaluator import Artefact, Reads
from djsandbox_ray.outside.config import ProgramConfig
from djsandbox_ray.outside.environment import scratch
from djsandbox_ray.outside.exchange import Format, number, read_measured, write_samples
from djsandbox_ray.outside.program import Program
from djsandbox_ray.records import RungReport
from djsandbox_ray.storage.own import remove
from djsandbox_ray.trials.family import Clock, Diverged, ModelFamily, Prepared, TrialData, TrialTask


class CommandConfig(ProgramConfig):
    """The program is called once per rung, and trains from one to the next.

    Placeholders: ``{pool}``, a folder with the samples; ``{samples}``, how many samples are to have
    been seen in training when it ends; ``{seen}``, how many have been seen before; ``{budget}``,
    how many will be at most; ``{seed}``; ``{checkpoint}``, a folder in which it finds what its call
    before has left there; ``{output}``, an empty folder for the model; ``{metrics}``, the JSON file
    to be written: ``{"samples": 4000, "loss": 0.7, "metrics": {...}}``.
    """

    PLACEHOLDERS: ClassVar[tuple[str, ...]] = (
        "pool",
        "samples",
        "seen",
        "budget",
        "seed",
        "checkpoint",
        "output",
        "metrics",
    )
    NEEDED: ClassVar[tuple[str, ...]] = ("pool", "samples", "seed", "metrics")

    format: Format = "jsonl"
    """How the samples are written: jsonl (Data-Juicer's layout), parquet or webdataset."""
    rows_per_shard: int = Field(default=10_000, ge=1, strict=True)
    """Samples of every file but the last."""
    flops_per_sample: float | None = Field(default=None, gt=0)
    """Operations of training on one sample, as you count them: for the bill only."""


VERSION = 1
"""Part of every trial's identity: to be raised when programs are given something else."""
_CHECKPOINT = "checkpoint"


class Command(ModelFamily):
    """Training by a program, in its own environment."""

    Config = CommandConfig
    OFFERS: ClassVar[tuple[Reads, ...]] = ("files", "reports")
    LAUNCHES: ClassVar[bool] = True
    config: CommandConfig

    @cached_property
    def program(self) -> Program:
        """The program with its files, which are where the configuration is: on the driver."""
        return Program.read(self.config)

    def identity(self) -> Any:
        """Return the settings, with files by their contents."""
        settings = self.program.identity()
        del settings["flops_per_sample"]
        return {**settings, "version": VERSION}

    def flops_per_sample(self) -> float | None:
        """Return what the configuration says."""
        return self.config.flops_per_sample

    def prepare(self, data: TrialData) -> Prepared:
        """Look for the program's packages before any trial needs them."""
        self.program.check()
        return Prepared((data.train, self.program))

    def train(self, task: TrialTask, shared: tuple[str, Program]) -> Iterator[RungReport]:
        """Call the program for every rung ahead.

        Raises:
            ProgramFailed: it ended with an error.
            SandboxError: what it wrote is not what it was asked for.
        """
        table, program = shared
        clock = Clock()
        with scratch() as folder:
            seen = 0
            if (before := _resume(task, folder / _CHECKPOINT)) is not None:
                clock.resume(before)
                seen = before.samples
            write_samples(
                table,
                task.rows,
                task.captions,
                folder / "pool",
                form=self.config.format,
                rows_per_shard=self.config.rows_per_shard,
            )
            for rung in [rung for rung in task.rungs if rung > seen]:
                loss, reported = _call(program, task, folder, seen, rung)
                artefact = Artefact(folder / "output", task.cpus, task.gpus, reported)
                with clock.evaluation():
                    metrics = task.evaluate(artefact)
                report = clock.report(rung, loss, metrics)
                task.checkpoint.save(report, partial(_keep, folder / _CHECKPOINT))
                seen = rung
                yield report


def _call(
    program: Program, task: TrialTask, folder: Path, seen: int, rung: int
) -> tuple[float, dict[str, float]]:
    """Have the program train to a rung; return its loss and what else it measured."""
    output, target = folder / "output", folder / "metrics.json"
    remove(output)
    output.mkdir()
    target.unlink(missing_ok=True)
    values = {
        "pool": folder / "pool",
        "samples": rung,
        "seen": seen,
        "budget": task.rungs[-1],
        "seed": task.seed,
        "checkpoint": folder / _CHECKPOINT,
        "output": output,
        "metrics": target,
    }
    given = {name: str(value) for name, value in values.items()}
    with task.pulse.aside():  # its own timeout ends it
        program.call(given, folder, cpus=task.cpus, gpus=task.gpus)
    return _measured(read_measured(target, "the training"), rung)


def _measured(found: dict[str, Any], rung: int) -> tuple[float, dict[str, float]]:
    """Check what a program wrote at a rung.

    Raises:
        Diverged: it says so, or its loss is not finite.
        SandboxError: a number is missing or is none, or other samples were seen.
    """
    if found.get("diverged") is True:
        raise Diverged(f"the program says that it diverged before {rung} samples")
    if lacking := [name for name in ("samples", "loss") if name not in found]:
        raise SandboxError(f"the training wrote no {' and no '.join(map(repr, lacking))}")
    if found["samples"] != rung or isinstance(found["samples"], bool):
        raise SandboxError(
            f"the training saw {found['samples']!r} samples, not the {rung} it was asked for: all "
            "trials see the same (let budget and rungs be multiples of its batch size)"
        )
    metrics = found.get("metrics", {})
    if not isinstance(metrics, dict):
        raise SandboxError(f"the training's 'metrics' are {metrics!r:.60}, not an object")
    loss = number(found["loss"], "the training's loss")
    if not abs(loss) < float("inf"):
        raise Diverged(f"the loss is {loss} after {rung} samples")
    return loss, {name: number(value, f"the metric {name!r}") for name, value in metrics.items()}


def _resume(task: TrialTask, folder: Path) -> RungReport | None:
    """Bring what the program has kept at the last rung, and return that rung's report."""
    with task.checkpoint.load() as found:
        if found is None:
            folder.mkdir()
            return None
        kept = found[1] / _CHECKPOINT
        if kept.is_dir():
            shutil.copytree(kept, folder)
        else:
            folder.mkdir()  # it keeps nothing
    return task.checkpoint.reports()[-1]


def _keep(checkpoint: Path, folder: Path) -> None:
    shutil.copytree(checkpoint, folder / _CHECKPOINT)
