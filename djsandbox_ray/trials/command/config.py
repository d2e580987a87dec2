"""The section of a training by a program."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from djsandbox_ray.outside.samples import Format
from djsandbox_ray.outside.settings import ProgramConfig


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
