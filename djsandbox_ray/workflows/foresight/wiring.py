"""A workflow as text: one line per job, in order, with rails from who gives to who takes.

A rail begins at the job that gives something (``●``; ``○`` if nobody takes it) and ends at the last
job that takes it. A line joins a job to the rails it takes from; a rail that it only crosses is
drawn through, as in ``├─│─●``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def wiring(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one line per job: rails, id, state, hook, what it takes, parameters that are set.

    Args:
        jobs: in their order, as the plan has them: ``job``, ``hook``, ``done``, ``takes``
            (references by parameter, None for nothing on purpose), ``from`` (the jobs of those),
            ``parameters`` and ``changed`` (the names of those that are not at their defaults).
    """
    rails = _rails([(job["job"], job["from"]) for job in jobs])
    wide = max(map(len, rails))
    named = max(len(job["job"]) for job in jobs)
    return [
        f"{rail:<{wide}}  {job['job']:<{named}}  {'done' if job['done'] else 'to do':<5}  "
        f"{_told(job)}".rstrip()
        for rail, job in zip(rails, jobs, strict=True)
    ]


def _told(job: Mapping[str, Any]) -> str:
    takes = [_taken(name, reference) for name, reference in job["takes"].items()]
    changed = [f"{name}={job['parameters'][name]!r}" for name in job["changed"]]
    hook = [] if job["hook"] == job["job"] else [job["hook"]]
    return "  ".join([*hook, *([f"<- {', '.join(takes)}"] if takes else []), *changed])


def _taken(name: str, reference: str | None) -> str:
    """Return ``pools``, or ``first: trials`` where the parameter is called otherwise."""
    if reference is None:
        return f"{name}: null"
    source = reference.removeprefix("${").removesuffix("}").replace(".output", "", 1)
    return source if name == source else f"{name}: {source}"


def _rails(jobs: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    last = {source: index for index, (_, sources) in enumerate(jobs) for source in sources}
    lanes: list[str | None] = []  # per lane, the job whose output runs there
    lines = []
    for index, (job, sources) in enumerate(jobs):
        ending = {source for source in sources if last[source] == index}
        own = _free(lanes, ending)
        joined = [lane for lane, holder in enumerate(lanes) if holder in set(sources)]
        lines.append(_line(lanes, own, joined, ending, "●" if job in last else "○"))
        lanes = [None if holder in ending else holder for holder in lanes]
        lanes += [None] * (own + 1 - len(lanes))
        lanes[own] = job if job in last else None
    return lines


def _free(lanes: Sequence[str | None], ending: set[str]) -> int:
    """Return the first lane that is empty, or that ends here: the job goes on with it."""
    free = (lane for lane, holder in enumerate(lanes) if holder is None or holder in ending)
    return next(free, len(lanes))


def _line(
    lanes: Sequence[str | None], own: int, joined: Sequence[int], ending: set[str], node: str
) -> str:
    first, last = min([own, *joined]), max([own, *joined])
    cells = []
    for lane in range(max(len(lanes), own + 1)):
        holder = lanes[lane] if lane < len(lanes) else None
        if lane == own:
            cell = node
        elif lane in joined:
            cell = _joint(lane == first, lane == last, ends=holder in ending)
        elif holder is not None:
            cell = "│"
        else:
            cell = "─" if first < lane < last else " "
        cells.append(cell + ("─" if first <= lane < last else " "))
    return "".join(cells).rstrip()


def _joint(leftmost: bool, rightmost: bool, *, ends: bool) -> str:
    if leftmost:
        return "╰" if ends else "├"
    if rightmost:
        return "╯" if ends else "┤"
    return "┴" if ends else "┼"
