"""What a study could find, from the noise that earlier runs have measured."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from djsandbox_ray.analysis.planning.noise import NoiseFloor
from djsandbox_ray.analysis.planning.power import (
    MOST_CONTROLS,
    MOST_SEEDS,
    cheapest_designs,
    rescale,
)
from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput, Damaged
from djsandbox_ray.hooks.noise import MeasureNoise
from djsandbox_ray.hooks.plans import self_tests
from djsandbox_ray.reporting.method import noise_lines
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.stats.operators import parse_process
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.opened import open_context


def make_power(config: RunConfig, effect: float | None) -> dict[str, Any]:
    """Return what the planned study can find, and what it would take to find an effect.

    Args:
        config: the run that is planned; its own earlier noise floor is taken if it has one, else
            that of another run of the storage with the same model, budget and evaluation.
        effect: the change to find; by default what the planned study detects.

    Raises:
        BadInput: no run of the storage has measured such noise.
    """
    context = open_context(config, Progress(Console(quiet=True)))
    run, floor = _find(context.storage, config.name, MeasureNoise(context).comparable())
    planned = floor.under(_design(config), config.evaluation.alpha)
    if planned.detectable.value == 0:
        raise BadInput(f"the controls of the run {run!r} do not scatter at all: any effect is seen")
    wanted = planned.detectable.value if effect is None else effect
    noise = rescale(floor.within, floor.bucket, floor.measured, planned.design)
    designs = cheapest_designs(wanted, *noise, planned.design, alpha=planned.alpha)
    return {
        "from": run,
        "early_stopping": config.trials.early_stopping.type != "none",
        "unit": str(Unit.of(config.evaluation.kind)),
        "planned": planned.to_json(),
        "effect": wanted,
        "seeds_for_effect": planned.seeds_for(wanted),
        "designs": [
            {
                "controls": found.design.controls,
                "seeds": found.design.seeds,
                "draw_share": found.design.draw_share,
                "trials": found.trials,
                "power": found.power,
                "detectable": found.detectable,
            }
            for found in designs
        ],
    }


def power_table(made: dict[str, Any]) -> Group:
    """Return it for the terminal."""
    unit = Unit(made["unit"])
    lines = [f"noise measured by the run {made['from']!r}"]
    lines += noise_lines(
        NoiseFloor.from_json(made["planned"]), unit, stopping=made["early_stopping"]
    )
    wanted = f"{unit.text(made['effect'])} {unit}"
    if not made["designs"]:
        most = f"{MOST_CONTROLS} controls and {MOST_SEEDS} seeds"
        lines.append(f"no design of up to {most} finds {wanted}")
        return Group(Text("\n".join(lines)))
    lines.append(f"designs that find {wanted} with 80 % power, cheapest first:")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("trials", "controls", "seeds", "draw share", f"detects {unit}"):
        table.add_column(name, justify="right")
    for found in made["designs"]:
        table.add_row(
            str(found["trials"]),
            str(found["controls"]),
            str(found["seeds"]),
            f"{found['draw_share']:.2f}",
            unit.text(found["detectable"]),
        )
    return Group(Text("\n".join(lines)), table)


def _find(storage: Storage, name: str, comparable: Any) -> tuple[str, NoiseFloor]:
    runs = storage.names("runs")
    for run in sorted(runs, key=lambda run: run != name):
        path = f"runs/{run}/noise.json"
        try:
            content = storage.read_sealed(path)
        except Damaged:  # that of another run may do; there is none where it was not measured
            continue
        if content.get("comparable") == comparable:
            return run, NoiseFloor.from_json(content["noise"])
    raise BadInput(
        f"no run in {storage.shown} has measured the noise of this data, model, budget, evaluation "
        "and aggregate yet: run the configuration once, or one with fewer operators"
    )


def _design(config: RunConfig) -> Design:
    keys = sum(len(spec.keys) for spec in parse_process(config.operators))
    buckets = keys * config.pools.buckets + len(config.pools.extra)
    return Design(
        pools=buckets + self_tests(config),
        controls=config.pools.control_count(buckets),
        seeds=len(config.trials.seed_numbers),
        draw_share=config.pools.draw_share,
        bucket_share=1 / config.pools.buckets,
    )
