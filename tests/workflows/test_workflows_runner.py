"""The loop that runs jobs: what is done again, what is not, and what a job is called with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_hooks
from factories import lost_lease, read_events
from small_hooks import BROKEN, RAN, SEEN, job, number, out

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.hooks.hook import HOOKS, Context
from djsandbox_ray.records import Statistic
from djsandbox_ray.storage.lease import Lost
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry.events import EventLog
from djsandbox_ray.workflows.language.jobs import Workflow
from djsandbox_ray.workflows.language.workflow import load_workflow
from djsandbox_ray.workflows.runner import finished_jobs, run_workflow
from djsandbox_ray.workflows.state import alone

MakeContext = Callable[..., Context]

CHAIN = [
    ("seed", "Seed", {}),
    ("seven", "Buckets", {}),
    ("sum", "Add", {"left": "seed", "right": "seven"}),
    ("double", "Double", {"left": "sum"}),
]


@pytest.fixture
def context(opened: MakeContext) -> MakeContext:
    return lambda name="test", **pools: opened(name=name, pools=pools)


def workflow(*jobs: tuple[str, str, dict[str, Any]]) -> Workflow:
    """Return a workflow of small hooks; the name of a job stands for its output."""
    known = {id for id, _, _ in jobs}

    def given(value: Any) -> Any:
        return out(value) if isinstance(value, str) and value in known else value

    listed = [
        job(id, hook, {name: given(value) for name, value in inputs.items()})
        for id, hook, inputs in jobs
    ]
    return load_workflow({"jobs": listed})


def run(workflow: Workflow, context: Context) -> tuple[list[str], dict[str, Any]]:
    """Run a workflow; return which hooks ran, and all outputs."""
    RAN.clear()
    outputs = run_workflow(workflow, context, lambda output: None)
    return list(RAN), outputs


def marker(context: Context, job: str) -> Any:
    return context.storage.read_json(f"{context.folder}/jobs/{job}.json")


def test_jobs_run_in_order_and_hand_on_their_outputs(context: MakeContext) -> None:
    ran, outputs = run(workflow(*CHAIN), context(seed=5))
    assert ran == ["Seed", "Buckets", "Add", "Double"]
    assert list(outputs) == ["seed", "seven", "sum", "double"]
    assert outputs["double"] == number(24)


def test_what_is_done_is_not_done_again(context: MakeContext) -> None:
    chain = workflow(*CHAIN)
    _, first = run(chain, context(seed=5))
    ran, second = run(chain, context(seed=5))
    assert ran == []
    assert second == first


def test_every_output_is_announced_also_of_jobs_that_were_done(context: MakeContext) -> None:
    chain = workflow(*CHAIN, ("nothing", "Nothing", {}))
    for _ in range(2):
        seen: list[Any] = []
        outputs = run_workflow(chain, context(seed=5), seen.append)
        assert seen == list(outputs.values())
        assert len(seen) == 5


def test_what_a_job_could_not_do_is_said_again_where_it_was_done_before(
    context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = workflow(("doubts", "Doubts", {}), ("repeats", "Repeats", {}))
    said = "doubts: cannot be judged: too few"
    for wanted in (["Doubts", "Repeats"], []):
        opened, lines = context(), list[str]()
        monkeypatch.setattr(opened.progress, "note", lines.append)
        with EventLog(opened.storage, "test"):
            ran, outputs = run(jobs, opened)
        assert ran == wanted
        assert outputs == {"doubts": None, "repeats": number(1)}, "later jobs know of it"
        assert opened.caveats == [said]
        assert sum(said in line for line in lines) == 1
        assert finished_jobs(jobs, opened) == outputs
    assert marker(opened, "doubts")["caveats"] == [said]
    assert "caveats" not in marker(opened, "repeats")
    told = [one for one in read_events(opened.storage, "test") if one["event"] == "warning"]
    assert [one["details"]["message"] for one in told] == [said]


def test_a_changed_config_reruns_what_depends_on_it(context: MakeContext) -> None:
    chain = workflow(*CHAIN)
    run(chain, context(seed=5))
    ran, outputs = run(chain, context(seed=6))
    assert ran == ["Seed", "Add", "Double"]
    assert outputs["double"] == number(26)


def test_an_upstream_job_that_gives_the_same_again_reruns_nothing_else(
    context: MakeContext,
) -> None:
    chain = workflow(*CHAIN)
    run(chain, context(buckets=3))
    ran, _ = run(chain, context(buckets=4))
    assert ran == ["Buckets"]


def test_a_part_of_the_config_that_no_job_needs_reruns_nothing(context: MakeContext) -> None:
    run(workflow(*CHAIN), context(seed=5))
    assert run(workflow(*CHAIN), context(seed=5, draw_share=0.25))[0] == []


def test_going_back_to_an_old_config_runs_again_what_was_replaced(context: MakeContext) -> None:
    chain = workflow(*CHAIN)
    _, first = run(chain, context(seed=5))
    run(chain, context(seed=6))
    ran, third = run(chain, context(seed=5))
    assert ran == ["Seed", "Add", "Double"]
    assert third == first


def test_another_input_reruns_a_job(context: MakeContext) -> None:
    run(workflow(*CHAIN), context(seed=5))
    ran, outputs = run(
        workflow(*CHAIN[:3], ("double", "Double", {"left": "seed"})), context(seed=5)
    )
    assert ran == ["Double"]
    assert outputs["double"] == number(10)


def test_another_hook_reruns_a_job(context: MakeContext) -> None:
    run(workflow(*CHAIN), context())
    ran, _ = run(workflow(*CHAIN[:3], ("double", "Anything", {"left": "sum"})), context())
    assert ran == ["Anything"]


def test_inputs_are_told_apart_by_name(context: MakeContext) -> None:
    jobs = [("a", "Seed", {}), ("b", "Buckets", {})]
    _, one = run(workflow(*jobs, ("c", "Optional", {"left": "a", "right": "b"})), context(seed=5))
    ran, other = run(
        workflow(*jobs, ("c", "Optional", {"left": "b", "right": "a"})), context(seed=5)
    )
    assert ran == ["Optional"]
    assert (one["c"], other["c"]) == (number(-2), number(2))


def test_a_new_job_runs_alone(context: MakeContext) -> None:
    run(workflow(*CHAIN[:3]), context(seed=5))
    assert run(workflow(*CHAIN), context(seed=5))[0] == ["Double"]


def test_runs_of_other_names_know_nothing_of_each_other(context: MakeContext) -> None:
    run(workflow(*CHAIN), context("one"))
    assert len(run(workflow(*CHAIN), context("two"))[0]) == 4


def test_a_job_that_raises_leaves_no_marker_and_the_next_run_goes_on_there(
    context: MakeContext,
) -> None:
    chain, here = workflow(*CHAIN), context(seed=5)
    BROKEN.add("Add")
    with pytest.raises(RuntimeError, match="half-way"):
        run(chain, here)
    assert here.storage.names("runs/test/jobs") == ["seed.json", "seven.json"]
    assert list(finished_jobs(chain, here)) == ["seed", "seven"]
    BROKEN.clear()
    ran, outputs = run(chain, here)
    assert ran == ["Add", "Double"]
    assert outputs["double"] == number(24)


def test_a_rerun_that_raises_takes_the_old_marker_with_it(context: MakeContext) -> None:
    """The files of the old artifact may be half overwritten: going back must run again."""
    chain = workflow(*CHAIN)
    run(chain, context(seed=5))
    BROKEN.add("Seed")
    with pytest.raises(RuntimeError):
        run(chain, context(seed=6))
    BROKEN.clear()
    assert run(chain, context(seed=5))[0] == ["Seed"]


def test_who_was_taken_over_leaves_the_markers_of_its_successor(
    context: MakeContext, storage: Storage
) -> None:
    run(workflow(*CHAIN), context(seed=5))
    before = marker(context(), "seed")
    lost = replace(context(seed=6), lease=lost_lease(storage, "test"))
    with pytest.raises(Lost):
        run(workflow(*CHAIN), lost)
    assert RAN == []
    assert marker(context(), "seed") == before


@pytest.mark.parametrize("reads", [False, True])
def test_who_is_taken_over_during_a_job_leaves_no_marker_and_mends_nothing(
    context: MakeContext, storage: Storage, reads: bool
) -> None:
    sleeps = ("sleeps", "Sleeps", {"left": "seed", "reads": reads})
    chain = workflow(("seed", "Seed", {}), sleeps)
    with alone(storage, "test") as lease, pytest.raises(Lost):
        run(chain, replace(context(), lease=lease))
    assert RAN == ["Seed", "Sleeps"]
    assert storage.names("runs/test/jobs") == ["seed.json"]
    assert list(storage.read_json("runs/test/costs.json")) == ["seed", "checksum"]
    assert storage.exists("runs/test/Seed.json")


def test_nothing_is_an_output_too(context: MakeContext) -> None:
    jobs = [("nothing", "Nothing", {}), ("zero", "OrZero", {"left": "nothing"})]
    for expected in (["Nothing", "OrZero"], []):
        ran, outputs = run(workflow(*jobs), context())
        assert ran == expected
        assert outputs == {"nothing": None, "zero": number(0)}
    assert marker(context(), "nothing")["output"] is None
    assert finished_jobs(workflow(*jobs), context()) == {"nothing": None, "zero": number(0)}


def test_something_in_place_of_nothing_reruns_what_takes_it(context: MakeContext) -> None:
    jobs = workflow(("perhaps", "Perhaps", {}), ("zero", "OrZero", {"left": "perhaps"}))
    assert run(jobs, context(self_tests=False))[1]["zero"] == number(0)
    ran, outputs = run(jobs, context(self_tests=True))
    assert ran == ["Perhaps", "OrZero"]
    assert outputs["zero"] == number(101)


def test_outputs_come_back_as_the_records_they_were(context: MakeContext) -> None:
    jobs = [("big", "Big", {}), ("nested", "Nested", {})]
    _, first = run(workflow(*jobs), context())
    ran, second = run(workflow(*jobs), context())
    assert ran == []
    assert second == first
    assert second["big"].digits == (1, 2)
    assert second["nested"].statistics[0] == Statistic("a", "b", "c", "d", "e")


def test_a_hook_that_gives_what_it_did_not_promise_is_not_done(context: MakeContext) -> None:
    here = context()
    with pytest.raises(SandboxError, match="liar: hook 'small_hooks:Liar' returned a NoneType"):
        run(workflow(("liar", "Liar", {})), here)
    assert here.storage.names("runs/test/jobs") == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"artifact": "ARTIFACT"}',
        b'{"artifact": "ARTIFACT", "output": {"value": 5}}',
        b'{"artifact": "ARTIFACT", "output": null}',
    ],
)
def test_a_marker_that_cannot_be_read_is_none(context: MakeContext, content: bytes) -> None:
    """Of another version of the package, or spoilt by hand."""
    chain, here = workflow(*CHAIN[:1]), context(seed=5)
    run(chain, here)
    artifact = marker(here, "seed")["artifact"].encode()
    path = "runs/test/jobs/seed.json"
    here.storage.write_bytes(path, content.replace(b"ARTIFACT", artifact))
    assert finished_jobs(chain, here) == {}
    ran, outputs = run(chain, here)
    assert ran == ["Seed"]
    assert outputs["seed"] == number(5)
    assert marker(here, "seed")["artifact"].encode() == artifact


def test_the_marker_says_what_was_made_and_how_long_it_took(context: MakeContext) -> None:
    here = context(seed=5)
    run(workflow(*CHAIN), here)
    record = marker(here, "sum")
    assert record["artifact"].startswith("sum-")
    assert record["output"] == {"id": number(12).id, "value": 12}
    assert record["seconds"] >= 0
    json.dumps(record, allow_nan=False)


def test_finished_jobs_runs_and_writes_nothing(context: MakeContext, storage: Storage) -> None:
    chain = workflow(*CHAIN)
    assert finished_jobs(chain, context(seed=5)) == {}
    assert not Path(storage.url).exists()
    run(chain, context(seed=5))
    RAN.clear()
    before = sorted(Path(storage.url).rglob("*"))
    assert list(finished_jobs(chain, context(seed=5))) == ["seed", "seven", "sum", "double"]
    assert list(finished_jobs(chain, context(seed=6))) == ["seven"]
    assert RAN == []
    assert sorted(Path(storage.url).rglob("*")) == before


def test_a_storage_behind_a_url_serves_as_well(opened: MakeContext) -> None:
    here = opened(storage="memory://runner")
    try:
        assert len(run(workflow(*CHAIN), here)[0]) == 4
        assert run(workflow(*CHAIN), here)[0] == []
    finally:
        here.storage.remove("runs")


def test_hooks_of_this_module_are_those_that_run() -> None:
    assert HOOKS.get("small_hooks:Seed") is small_hooks.Seed


def test_parameters_reach_the_hook_as_annotated(context: MakeContext) -> None:
    given = {"factor": 3, "times": 2, "mode": "down", "offsets": [1, 2.5], "names": {"a": 1}}
    jobs = [("a", "Seed", {}), ("b", "Scale", {"left": "a", **given, "limit": "auto"})]
    _, outputs = run(workflow(*jobs), context(seed=9))
    assert SEEN == [(3.0, 2, "down", (1.0, 2.5), {"a": 1}, "auto", "", False)]
    assert outputs["b"] == number(4.5)


def test_another_parameter_reruns_a_job_and_the_default_written_out_does_not(
    context: MakeContext,
) -> None:
    def jobs(**given: Any) -> Workflow:
        return workflow(("a", "Seed", {}), ("b", "Scale", {"left": "a", **given}))

    run(jobs(), context())
    # 2 and 2.0, a list and a tuple: the hook is called with the same
    for same in ({"factor": 2}, {"factor": 2.0, "times": 1}, {"offsets": []}, {"limit": None}):
        assert run(jobs(**same), context())[0] == []
    for other in ({"factor": 3}, {"times": 2}, {"title": "x"}, {"names": {"a": 1}}):
        assert run(jobs(**other), context())[0] == ["Scale"]


def test_a_field_is_known_by_its_value(context: MakeContext) -> None:
    def jobs(**given: Any) -> Workflow:
        return workflow(
            ("a", "Seed", {}), ("seven", "Buckets", {}), ("b", "Scale", {"left": "seven", **given})
        )

    run(jobs(factor=out("a", "value")), context(seed=5))
    assert SEEN[-1][0] == 5.0
    assert run(jobs(factor=5), context(seed=5))[0] == []
    assert run(jobs(factor=out("a", "value")), context(seed=6))[0] == ["Seed", "Scale"]


def test_fields_of_fields_and_what_yaml_cannot_hold(context: MakeContext) -> None:
    jobs = [
        ("boxes", "Boxed", {}),
        ("inner", "Double", {"left": out("boxes", "first", "inner")}),
        (
            "takes",
            "TakesBox",
            {"box": out("boxes", "first"), "sizes": out("boxes", "first", "sizes")},
        ),
        ("none", "Anything", {"left": out("boxes", "second", "inner", "value")}),
    ]
    ran, outputs = run(workflow(*jobs), context(seed=4))
    assert outputs["inner"] == number(8)
    assert [(small_hooks.Box(number(4), (1, 2), "a"), [1, 2])] == SEEN
    assert outputs["none"] == number(len("None"))
    assert len(ran) == 4
    assert run(workflow(*jobs), context(seed=4))[0] == []


def test_a_record_may_hold_what_is_no_number(context: MakeContext) -> None:
    jobs = workflow(("boxes", "Boxed", {}), ("takes", "Anything", {"left": out("boxes", "share")}))
    for _ in range(2):
        _, outputs = run(jobs, context())
        assert outputs["boxes"].share != outputs["boxes"].share
        assert outputs["boxes"].first.inner == number(0)
    assert marker(context(), "boxes")["output"]["share"] == "NaN"


def test_null_stands_for_a_record_that_may_be_missing(context: MakeContext) -> None:
    nothing = workflow(("nothing", "Nothing", {}), ("zero", "OrZero", {"left": "nothing"}))
    run(nothing, context())
    ran, outputs = run(workflow(("zero", "OrZero", {"left": None})), context())
    assert ran == []  # it is the same to the job
    assert outputs["zero"] == number(0)


def test_a_limit_that_only_shows_in_the_run_names_the_job(context: MakeContext) -> None:
    jobs = [
        ("boxes", "Boxed", {}),
        ("b", "Sized", {"times": out("boxes", "first", "sizes")}),
    ]
    with pytest.raises(
        BadInput, match=r"job 'b', times \(\$\{boxes.output.first.sizes\}\): .*at m"
    ):
        run(workflow(*jobs), context())
