"""Any sound workflow passes; any single mistake in it is found and names the job."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_hooks import out

from djsandbox_ray.errors import BadInput
from djsandbox_ray.workflows.language.workflow import load_workflow

RECORDS = {"Seed": (), "Add": ("left", "right"), "Double": ("left",), "Scale": ("left",)}
"""Per hook, the records that it needs; all of them give numbers."""
SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "factor": st.integers(1, 9) | st.floats(0, 9),
    "times": st.integers(1, 9),
    "mode": st.sampled_from(["up", "down"]),
    "offsets": st.lists(st.integers(0, 9)),
    "limit": st.sampled_from([None, 3, "auto"]),
    "exact": st.booleans(),
}
Jobs = list[dict[str, Any]]


@st.composite
def sound(draw: st.DrawFn) -> Jobs:
    jobs: Jobs = []
    for index in range(draw(st.integers(1, 8))):
        hook = draw(st.sampled_from(sorted(RECORDS) if jobs else ["Seed"]))
        earlier = st.sampled_from([job["id"] for job in jobs] or [""])
        values: dict[str, Any] = {name: out(draw(earlier)) for name in RECORDS[hook]}
        if hook == "Scale":
            for name in draw(st.sets(st.sampled_from(sorted(SETTINGS)))):
                field = name == "factor" and draw(st.booleans())
                values[name] = out(draw(earlier), "value") if field else draw(SETTINGS[name])
        jobs.append({"id": f"job_{index}", "hook": f"small_hooks:{hook}", "with": values})
    return jobs


@st.composite
def with_one_mistake(draw: st.DrawFn) -> tuple[Jobs, str]:
    """Return a workflow and the id of the one job in it that is wrong."""
    jobs = deepcopy(draw(sound().filter(lambda jobs: any(job["with"] for job in jobs))))
    index = draw(st.sampled_from([i for i, job in enumerate(jobs) if job["with"]]))
    job = jobs[index]
    values = job["with"]
    name = draw(st.sampled_from(sorted(values)))
    record = name in ("left", "right")
    mistakes: dict[str, Any] = {
        "another job": out("nowhere"),
        "itself": out(job["id"]),
        "a later job": out(f"job_{index + 1}"),
        "another field": out("job_0", "nothing"),
        "in a text": f"x{out('job_0')}",
        "another type": out("job_0", "id") if record or name != "id" else 1,
        "another value": {"no": ["such", "value"]},
        "no such parameter": None,
    }
    if record:
        mistakes |= {"missing": None, "a number": 3, "the old way": "job_0", "null": None}
    mistake = draw(st.sampled_from(sorted(mistakes)))
    if mistake == "missing":
        del values[name]
    elif mistake == "no such parameter":
        values[f"{name}_"] = values.pop(name) if not record else values[name]
    else:
        values[name] = mistakes[mistake]
    return jobs, job["id"]


@settings(max_examples=30)
@given(sound())
def test_what_is_sound_passes(jobs: Jobs) -> None:
    assert len(load_workflow({"jobs": jobs}).jobs) == len(jobs)


@settings(max_examples=60)
@given(with_one_mistake())
def test_one_mistake_is_found_and_names_the_job(made: tuple[Jobs, str]) -> None:
    jobs, wrong = made
    with pytest.raises(BadInput) as caught:
        load_workflow({"jobs": jobs})
    head, *lines = str(caught.value).split("\n")
    assert head == "workflow of the configuration:"
    assert lines
    assert all(line.startswith(f"  job {wrong!r}, jobs[") for line in lines)
