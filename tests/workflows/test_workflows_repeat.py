"""Workflows that are repeated until targets hold, without a cluster."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from small_hooks import BROKEN, RAN, Box, Boxes, Number, job, number, out, tally

from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput, Stopped
from djsandbox_ray.records import TrialRecord
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.foresight.plan import check_budget, make_plan, plan_table
from djsandbox_ray.workflows.language.repeat import Round, Target
from djsandbox_ray.workflows.language.workflow import configured_workflow
from djsandbox_ray.workflows.run import Done, run_rounds
from djsandbox_ray.workflows.state import RunState, alone

# Targets

MEANING = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
}


@given(
    sign=st.sampled_from(sorted(MEANING)),
    wanted=st.floats(allow_nan=False, allow_infinity=False),
    value=st.floats(allow_infinity=True),
    space=st.sampled_from(["", " ", "  "]),
)
def test_a_target_holds_when_its_comparison_does(
    sign: str, wanted: float, value: float, space: str
) -> None:
    judged = Target.parse(f"a.value{space}{sign}{space}{wanted!r}").judge({"a": Number("n", value)})
    assert judged.holds is (not math.isnan(value) and MEANING[sign](value, wanted))


@pytest.mark.parametrize(
    ("text", "number"),
    [("a.b>=0.05", 0.05), (" a.b == -3 ", -3), ("a.b < .5", 0.5), ("a.b<=+1e-3", 1e-3)],
)
def test_numbers(text: str, number: float) -> None:
    assert Target.parse(text).number == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a > 1",
        "a.b > ",
        "> 1",
        "a.b > c.d",
        "a.b != 1",
        "a.b => 1",
        "a.b >> 1",
        "a.b > = 1",
        "a.b > 1 and a.b < 2",
        "a.b > 1_000",
        "a.b > 1e999",
        "a.b > nan",
        "a.b > 0x10",
        "a.b() > 1",
        "a..b > 1",
        "a.b. > 1",
        "__import__('os').system('true') > 1",
        "a.b > 1\n; 2",
    ],
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(BadInput, match=r"is no target: job.field OP number is needed, OP one of >"):
        Target.parse(text)


def test_nothing_and_nan_never_hold() -> None:
    boxes = Boxes("b", Box(number(3), (), ""), None, float("nan"))
    for sign in MEANING:
        for field in ("share", "second.inner.value"):
            judged = Target.parse(f"b.{field} {sign} 0").judge({"b": boxes})
            assert not judged.holds
        assert not Target.parse(f"b.share {sign} 0").judge({"b": None}).holds
    assert str(Target.parse("b.share > 0").judge({"b": boxes})) == "b.share > 0: no (nan)"
    assert str(Target.parse("b.share > 0").judge({"b": None})) == (
        "b.share > 0: no (nothing was given)"
    )


def test_fields_of_fields() -> None:
    boxes = Boxes("b", Box(number(3), (), ""), None)
    target = Target.parse("b.first.inner.value >= 3")
    target.check({"b": Boxes})
    assert str(target.judge({"b": boxes})) == "b.first.inner.value >= 3: yes (3)"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("b.first > 1", "a number is needed, but the field is Box or None"),
        ("b.first.sizes > 1", r"a number is needed, but the field is None or tuple\[int, ...\]"),
        ("b.firt > 1", "Boxes has no field 'firt'; did you mean 'first'"),
        ("c.first > 1", "no earlier job 'c'"),
    ],
)
def test_what_is_no_number(text: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        Target.parse(text).check({"b": Boxes | None})


def test_a_boolean_is_no_number() -> None:
    with pytest.raises(BadInput, match="a number is needed, but the field is bool"):
        Target.parse("t.diverged == 1").check({"t": TrialRecord})


# Rounds

# Counts up to 3: every round's seed is what the round before gave.
COUNT = [job("count", "Counting"), job("zero", "OrZero", left="count"), job("seven", "Buckets")]
REPEAT = {
    "until": ["count.value >= 3"],
    "most": 5,
    "update": {"pools.seed": out("count", "count")},
}
ALL = ["Counting", "OrZero", "Buckets"]
Make = Callable[..., RunConfig]


@pytest.fixture
def make(configure: Make) -> Make:
    def made(repeat: dict[str, Any] | None = None, **changes: Any) -> RunConfig:
        workflow = {"jobs": COUNT, "repeat": {**REPEAT, **(repeat or {})}}
        return configure(**{"workflow": workflow, **changes})

    return made


def run(config: RunConfig) -> tuple[Done, list[str], str]:
    """Run; return what came of it, the hooks that ran, and what the console said."""
    RAN.clear()
    said = StringIO()
    first = Round.first(config)
    with (
        alone(Storage(config.storage), first.run) as lease,
        Progress(Console(file=said, width=200)) as progress,
        RunState(lease, first) as state,
    ):
        done = run_rounds(config, progress, state)
    return done, list(RAN), said.getvalue()


def state(storage: Storage) -> Any:
    return storage.read_json("runs/test/run.json")


def test_rounds_follow_until_the_target_holds(make: Make, storage: Storage) -> None:
    done, ran, said = run(make())
    assert done.outputs["count"] == tally(3)
    assert done.context.folder == "runs/test/round-2"
    assert ran == ALL * 3
    assert "round 0: count.value >= 3: no (1)" in said
    assert "round 1: next: a round with another pools.seed" in said
    assert "round 2: count.value >= 3: yes (3)" in said
    assert "round 2: done: all of the targets hold" in said
    for number_, folder in enumerate(("runs/test", "runs/test/round-1", "runs/test/round-2")):
        kept = yaml.safe_load(storage.read_bytes(f"{folder}/config.yaml"))
        assert kept["pools"]["seed"] == number_
        assert set(storage.names(f"{folder}/jobs")) == {"count.json", "zero.json", "seven.json"}
    assert not storage.exists("runs/test/round-0")
    assert not storage.exists("runs/test/round-3")


def test_run_json_lists_the_rounds(make: Make, storage: Storage) -> None:
    run(make())
    found = state(storage)
    assert found["state"] == "COMPLETED"
    assert [(item["round"], item["folder"], item["state"]) for item in found["rounds"]] == [
        (0, "runs/test", "COMPLETED"),
        (1, "runs/test/round-1", "COMPLETED"),
        (2, "runs/test/round-2", "COMPLETED"),
    ]
    assert found["rounds"][1]["targets"] == [
        {"target": "count.value >= 3", "value": 2.0, "holds": False}
    ]


def test_what_is_done_is_not_done_again_in_any_round(make: Make, storage: Storage) -> None:
    first, _, _ = run(make())
    again, ran, _ = run(make())
    assert ran == []
    assert again.outputs == first.outputs
    assert again.context.folder == first.context.folder


@pytest.mark.parametrize("broken", ["Counting", "OrZero"])
def test_a_run_that_is_cut_off_in_a_later_round_goes_on_there(
    make: Make, storage: Storage, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = RunState.begin

    def begin(self: RunState, this: Round) -> None:
        original(self, this)
        if this.number == 1:
            BROKEN.add(broken)

    monkeypatch.setattr(RunState, "begin", begin)
    with pytest.raises(RuntimeError, match="half-way"):
        run(make())
    assert state(storage)["state"] == "FAILED"
    assert [item["state"] for item in state(storage)["rounds"]] == ["COMPLETED", "FAILED"]
    monkeypatch.setattr(RunState, "begin", original)
    BROKEN.clear()
    done, ran, _ = run(make())
    left = ["OrZero", "Buckets"] if broken == "OrZero" else ALL
    assert ran == [*left, "Counting", "OrZero", "Buckets"]
    assert done.outputs["count"] == tally(3)


def test_a_run_that_is_cut_off_between_rounds_goes_on(
    make: Make, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = RunState.conclude

    def conclude(self: RunState, *arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RunState, "conclude", conclude)
    with pytest.raises(Stopped):
        run(make())
    assert state(storage)["state"] == "STOPPED"
    monkeypatch.setattr(RunState, "conclude", original)
    done, ran, _ = run(make())
    assert ran == ALL * 2
    assert done.outputs["count"] == tally(3)


def test_there_are_no_more_rounds_than_allowed(make: Make) -> None:
    done, ran, said = run(make({"most": 2}))
    assert done.outputs["count"] == tally(2)
    assert len(ran) == 6
    assert "round 1: done: this was round 2 of at most 2" in said


def test_a_target_that_holds_at_once(make: Make) -> None:
    done, ran, _ = run(make({"until": ["count.value >= 1"]}))
    assert done.context.folder == "runs/test"
    assert len(ran) == 3


@pytest.mark.parametrize(("match", "rounds"), [("all", 3), ("any", 2)])
def test_all_or_any_of_the_targets(make: Make, match: str, rounds: int) -> None:
    targets = ["count.value >= 2", "count.value >= 3", "seven.value == 7"]
    targets = targets if match == "all" else targets[:2]
    _, ran, _ = run(make({"until": targets, "match": match}))
    assert len(ran) == 3 * rounds


def test_nothing_to_go_on_with_ends_the_rounds(make: Make) -> None:
    """After 3 the job gives nothing: no target holds, and no value is left for an update."""
    done, ran, said = run(make({"until": ["count.value > 99"], "most": 9}))
    assert done.outputs["count"] is None
    assert len(ran) == 3 * 4
    assert "round 3: count.value > 99: no (nothing was given)" in said
    assert "round 3: done: count gave nothing to go on with" in said


def test_an_update_that_does_not_fit_names_itself(make: Make, storage: Storage) -> None:
    update = {"pools.buckets": out("count", "count")}  # 1: at least 2 are needed
    with pytest.raises(BadInput) as caught:
        run(make({"update": update}))
    head, line = str(caught.value).split("\n")
    assert head.startswith("test.round-1, after the update of pools.buckets: 1 error(s)")
    assert line.startswith("  pools.buckets: Input should be greater than or equal to")
    assert state(storage)["state"] == "FAILED"


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("pols.seed", "repeat.update.pols.seed: unknown key 'pols'; did you mean 'pools'?"),
        ("pools.sede", "repeat.update.pools.sede: unknown key 'sede'; did you mean 'seed'?"),
        ("pools.seed.x", "repeat.update.pools.seed.x: there is no 'x' in 0"),
        ("operators.1", "repeat.update.operators.1: there is no '1' in a list of 1"),
        ("name", "repeat.update.name: 'name' stays as it is in all rounds"),
        ("workflow.jobs", "repeat.update.workflow.jobs: 'workflow' stays as it is in all rounds"),
    ],
)
def test_an_update_of_a_key_that_is_not_there_is_found_before_anything_runs(
    make: Make, storage: Storage, key: str, line: str
) -> None:
    config = make({"update": {key: out("count", "value")}})
    for check in (configured_workflow, make_plan):
        with pytest.raises(BadInput) as caught:
            check(config)  # type: ignore[operator]
        assert line in str(caught.value)
    assert not storage.exists("runs")


@pytest.mark.parametrize("key", ["cost.full_samples", "evaluation.metrics.0.k", "report.labels"])
def test_keys_of_components_and_of_sections_that_are_not_there_yet(make: Make, key: str) -> None:
    assert configured_workflow(make({"update": {key: out("count", "value")}}))


def test_a_round_may_replace_parameters_of_jobs(make: Make) -> None:
    jobs = [
        job("seed", "Seed"),
        job("scale", "Scale", {"factor": 2}, left="seed"),
        job("sum", "Add", left="seed", right="scale"),
    ]
    repeat = {
        "until": ["sum.value > 90"],
        "most": 3,
        "update": {"jobs.scale.factor": out("sum", "value")},
    }
    done, ran, _ = run(make(workflow={"jobs": jobs, "repeat": repeat}, pools={"seed": 3}))
    # 3 + 3 * 2 = 9, 3 + 3 * 9 = 30, 3 + 3 * 30 = 93
    assert done.outputs["sum"] == number(93)
    assert ran == ["Seed", "Scale", "Add"] * 3


def test_records_become_plain_data_in_the_configuration(make: Make) -> None:
    jobs = [job("boxes", "Boxed")]
    repeat = {
        "until": ["boxes.first.inner.value > 1"],
        "most": 2,
        "update": {"report.labels": out("boxes", "first", "sizes")},
    }
    with pytest.raises(BadInput, match=r"report.labels\[0\]: Input should be a valid string"):
        run(make(workflow={"jobs": jobs, "repeat": repeat}))


def test_the_plan_goes_on_where_the_run_would(make: Make) -> None:
    config = make()
    made = make_plan(config)
    assert (made["round"], made["rounds"], made["until"]) == (0, 5, ["count.value >= 3"])
    run(make({"most": 2}))
    made = make_plan(config)
    assert made["name"] == "test"
    assert made["round"] == 2
    assert [job["done"] for job in made["jobs"]] == [False] * 3
    console = Console(file=StringIO(), width=100)
    console.print(plan_table(made))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "round   3 of at most 5, until count.value >= 3" in shown
    json.dumps(made, allow_nan=False)
    check_budget(config, over_budget=False)


def test_trials_of_a_round_are_on_its_own_account(make: Make) -> None:
    done, _, _ = run(make())
    assert done.context.config.name == "test.round-2"
    assert done.context.config.pools.seed == 2
