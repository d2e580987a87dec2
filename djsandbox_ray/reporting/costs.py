"""What every stage cost, as a table on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from djsandbox_ray.ledger.cost import Total, fixed_share, total
from djsandbox_ray.records import Cost
from djsandbox_ray.reporting.blocks import ReportTable
from djsandbox_ray.reporting.ranking import NOTHING

_LEAST_SECONDS = 0.5
_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def costs_table(costs: Sequence[Cost]) -> Table:
    """Return one line per stage that took any time, and the total of all."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    header, rows, footer = _header(costs), _rows(costs), _footer(costs)
    for index, (title, last) in enumerate(zip(header, footer, strict=True)):
        table.add_column(title, Text(last), justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def costs_section(costs: Sequence[Cost]) -> ReportTable:
    """Return the same lines for the page."""
    return ReportTable("What it cost", _header(costs), [*_rows(costs), _footer(costs)])


def operations(flops: float | None) -> str:
    """Return a number of floating-point operations with an SI prefix: ``57.9 MFLOP``."""
    if flops is None:
        return "not counted"
    index = 0
    while flops >= 999.5 and index < len(_PREFIXES) - 1:
        flops, index = flops / 1000, index + 1
    return f"{flops:.3g} {_PREFIXES[index]}FLOP"


def duration(seconds: float) -> str:
    """Return seconds as ``4.2 s``, ``12 min 03 s`` or ``7 h 05 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if round(seconds) < 3600:
        return "{} min {:02} s".format(*divmod(round(seconds), 60))
    return "{} h {:02} min".format(*divmod(round(seconds / 60), 60))


def _header(costs: Sequence[Cost]) -> tuple[str, ...]:
    share = "GPU" if _on_gpus(costs) else "CPU"
    return ("stage", "samples", "operations", "CPU", "GPU", "wall", f"share of {share}")


def _rows(costs: Sequence[Cost]) -> list[tuple[str, ...]]:
    """Return one row per stage that took any time worth a line; the total is of all."""
    shown = [cost for cost in costs if cost.cpu_seconds or cost.wall_seconds >= _LEAST_SECONDS]
    return [(_named(cost), *_cells(cost, costs), _share(cost, costs)) for cost in shown]


def _named(cost: Cost) -> str:
    """Return the name of a stage, with the share of it that no pool has any part in."""
    share = fixed_share(cost)
    return f"{cost.stage} ({100 * share:.0f} % of it on fixed data)" if share else cost.stage


def _footer(costs: Sequence[Cost]) -> tuple[str, ...]:
    whole = total(costs)
    samples, flops, *seconds = _cells(whole, costs)
    if whole.uncounted and whole.flops is not None:
        flops = f"at least {flops} (not counted: {', '.join(whole.uncounted)})"
    return ("total", samples, flops, *seconds, "")


def _cells(cost: Cost | Total, costs: Sequence[Cost]) -> tuple[str, ...]:
    return (
        f"{cost.samples:,}",
        operations(cost.flops),
        duration(cost.cpu_seconds),
        duration(cost.gpu_seconds) if _on_gpus(costs) else NOTHING,
        duration(cost.wall_seconds),
    )


def _share(cost: Cost, costs: Sequence[Cost]) -> str:
    """Return the share of what is dearest: of the GPUs where any were held, else of the CPUs."""
    own, whole = (
        each.gpu_seconds if _on_gpus(costs) else each.cpu_seconds for each in (cost, total(costs))
    )
    return f"{100 * own / whole:.1f} %" if whole else NOTHING


def _on_gpus(costs: Sequence[Cost]) -> bool:
    return any(cost.gpu_seconds for cost in costs)
