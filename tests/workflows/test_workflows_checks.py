"""Whether a workflow makes sense: any sound one passes, and every mistake is found and placed."""

from __future__ import annotations

import datetime as dt
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_hooks import BigNumber, Number, Passed, job, out

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import HOOKS
from djsandbox_ray.records import Dataset, Scorer
from djsandbox_ray.workflows.language.jobs import Workflow
from djsandbox_ray.workflows.language.parameters import output_type
from djsandbox_ray.workflows.language.workflow import load_workflow

REPEAT = {"until": ["a.value > 1"], "most": 2, "update": {"pools.seed": out("a", "value")}}


def load(*jobs: dict[str, Any], **more: Any) -> Workflow:
    return load_workflow({"jobs": list(jobs), **more})


def problems(*jobs: dict[str, Any], **more: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        load(*jobs, **more)
    head, *lines = str(caught.value).split("\n")
    assert head == "workflow of the configuration:"
    return [line.removeprefix("  ") for line in lines]


# What is not given


@pytest.mark.parametrize(
    ("hook", "settings", "takes"),
    [
        ("Add", {}, {"left": out("left"), "right": out("right")}),
        ("Add", {"right": out("x")}, {"left": out("left"), "right": out("x")}),
        ("Optional", {"right": None}, {"left": out("left"), "right": None}),
        ("OrZero", {"left": None}, {"left": None}),
        ("Anything", {}, {"left": out("left")}),
        ("Scale", {}, {"left": out("left")}),  # `mode` is a setting: nothing is taken for it
    ],
)
def test_a_record_is_taken_from_the_job_of_its_name(
    hook: str, settings: dict[str, Any], takes: dict[str, Any]
) -> None:
    before = [job(id, "Seed") for id in ("left", "right", "mode", "x")]
    assert load(*before, job("b", hook, settings)).jobs[-1].given == takes


def test_only_earlier_jobs_are_taken() -> None:
    workflow = load(job("left", "Seed"), job("a", "Optional"), job("right", "Seed"))
    assert workflow.jobs[1].given == {"left": out("left")}


@pytest.mark.parametrize(
    ("before", "hook", "line"),
    [
        (
            [job("x", "Seed"), job("y", "Perhaps"), job("z", "Big")],
            "Double",
            "'left' is missing, and no earlier job is called so; allowed: ${x.output} or "
            "${z.output} (it takes left)",
        ),
        ([job("x", "ingest")], "OrZero", "called so; allowed: null (it takes left)"),
        ([job("x", "ingest")], "Double", "allowed: Number, which no earlier job gives (it takes"),
        (
            [job("left", "ingest")],
            "Double",
            ".left: as it is not given, the job of its name is taken: must be Number, but "
            "${left.output} is Dataset",
        ),
        (
            [job("x", "Seed"), job("right", "Perhaps"), job("left", "Seed")],
            "Add",
            ".right: as it is not given, the job of its name is taken: must be Number, but "
            "${right.output} is None or Number",
        ),
        (  # an optional one is not passed over silently
            [job("left", "Seed"), job("right", "ingest")],
            "Optional",
            "the job of its name is taken: must be None or Number, but ${right.output} is Dataset",
        ),
    ],
)
def test_what_cannot_be_taken(before: list[dict[str, Any]], hook: str, line: str) -> None:
    (found,) = problems(*before, job("b", hook))
    assert found.startswith(f"job 'b', jobs[{len(before)}].with")
    assert line in found


# What is given


@pytest.mark.parametrize(
    ("jobs", "line"),
    [
        ([job("a", "ingst")], "jobs[0].hook: unknown hook 'ingst'; did you mean 'ingest'?"),
        ([job("a", "Nowhere")], "jobs[0].hook: hook 'small_hooks:Nowhere' cannot be imported"),
        ([job("a", "NoHook")], "hook 'small_hooks:NoHook' is not a subclass of Hook"),
        ([job("a", "Abstract")], "hook 'small_hooks:Abstract' does not define run"),
        ([job("x", "Seed"), job("a", "Seed"), job("a", "Seed")], "jobs[2].id: stands twice"),
        (
            [job("x", "Seed"), job("a", "Add", left="x")],
            "jobs[1].with: 'right' is missing, and no earlier job is called so; allowed: "
            "${x.output} (it takes left, right)",
        ),
        (
            [job("x", "Seed"), job("a", "Seed", left="x")],
            "jobs[1].with.left: hook 'small_hooks:Seed' takes no 'left' (it takes nothing)",
        ),
        (
            [job("x", "Seed"), job("a", "Double", left="x", lfet="x")],
            "jobs[1].with.lfet: hook 'small_hooks:Double' takes no 'lfet'; did you mean 'left'? "
            "(it takes left)",
        ),
        (
            [job("a", "Double", left="b"), job("b", "Seed")],
            "jobs[0].with.left: no earlier job 'b' (earlier: none)",
        ),
        (
            [job("seed", "Seed"), job("a", "Double", left="sede")],
            "no earlier job 'sede'; did you mean 'seed'? (earlier: seed)",
        ),
        ([job("x", "Seed"), job("a", "Double", left="a")], "no earlier job 'a' (earlier: x)"),
        (
            [job("x", "ingest"), job("a", "Double", left="x")],
            "jobs[1].with.left: must be Number, but ${x.output} is Dataset",
        ),
        (
            [job("x", "Nothing"), job("a", "Double", left="x")],
            "must be Number, but ${x.output} is None",
        ),
        (
            [job("x", "Perhaps"), job("a", "Double", left="x")],
            "must be Number, but ${x.output} is None or Number",
        ),
        (
            [job("x", "ingest"), job("a", "OrZero", left="x")],
            "must be None or Number, but ${x.output} is Dataset",
        ),
        (
            [job("a", "GivesNameless")],
            "run of GivesNameless must be annotated to return a dataclass with an id, "
            "or None, not Nameless",
        ),
        ([job("a", "GivesFloat")], "or None, not float"),
        (
            [job("x", "Seed"), job("a", "Untyped", left="x")],
            "run of Untyped must be annotated to return a dataclass with an id",
        ),
        ([job("a", "Unreadable")], "the annotations of Unreadable.run cannot be read"),
        ([job("a", "Greedy")], "run of Greedy must name each of its parameters: no *, ** or /"),
        (
            [job("a", "WrongDefault")],
            "the default of 'times': Input should be a valid integer (given: 'many')",
        ),
    ],
)
def test_one_mistake(jobs: list[dict[str, Any]], line: str) -> None:
    (found,) = problems(*jobs)
    assert found.startswith("job 'a', jobs[")
    assert line in found


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"left": "x"},
            ".left: must be Number (${job.output} or ${job.output.field}), not 'x'; "
            "did you mean ${x.output}?",
        ),
        ({"left": 3}, ".left: must be Number (${job.output} or ${job.output.field}), not 3"),
        ({"left": None}, ".left: must be Number (${job.output} or ${job.output.field}), not None"),
        ({"left": "${x}"}, "a reference is ${job.output} or ${job.output.field} and stands alone"),
        ({"left": "${x.value}"}, "and stands alone, unlike '${x.value}'"),
        ({"left": "${x.output.}"}, "and stands alone, unlike '${x.output.}'"),
        ({"left": "${x.output}s"}, "and stands alone, unlike '${x.output}s'"),
        ({"left": "${x.output}${x.output}"}, "and stands alone"),
        ({"left": "${ x.output }"}, "and stands alone"),
        ({"left": out("x", "value")}, "must be Number, but ${x.output.value} is float"),
        (
            {"left": out("x", "valu")},
            "Number has no field 'valu'; did you mean 'value'? (it has id,",
        ),
        ({"left": out("x", "value", "real")}, "float has no field 'real' (it has none)"),
        ({"factor": "2"}, ".factor: Input should be a valid number (given: '2')"),
        ({"factor": True}, ".factor: Input should be a valid number (given: True)"),
        (
            {"factor": None},
            ".factor: must be float (${job.output} or ${job.output.field}), not None",
        ),
        ({"factor": float("nan")}, ".factor: must be finite, not nan"),
        ({"factor": out("x")}, ".factor: must be float, but ${x.output} is Number"),
        ({"factor": out("x", "id")}, ".factor: must be float, but ${x.output.id} is str"),
        ({"times": 2.0}, ".times: Input should be a valid integer (given: 2.0)"),
        ({"times": True}, ".times: Input should be a valid integer (given: True)"),
        ({"times": 0}, ".times: Input should be greater than or equal to 1 (given: 0)"),
        ({"times": out("x", "value")}, ".times: must be int, but ${x.output.value} is float"),
        ({"mode": "upp"}, ".mode: Input should be 'up' or 'down' (given: 'upp')"),
        ({"mode": out("x", "id")}, ".mode: must be 'up' or 'down', but ${x.output.id} is str"),
        ({"offsets": 1}, ".offsets: Input should be a valid array (given: 1)"),
        ({"offsets": [1, "x"]}, ".offsets[1]: Input should be a valid number (given: 'x')"),
        (
            {"offsets": [out("x", "value")]},
            "is the whole value, not a part of ['${x.output.value}']",
        ),
        ({"names": {"b": 1.5}}, ".names.b: Input should be a valid integer"),
        ({"names": {1: 1}}, ".names: keys must be text, not 1"),
        ({"names": {"b": out("x")}}, "is the whole value, not a part of {'b': '${x.output}'}"),
        ({"limit": "aut"}, ".limit: Input should be a valid integer; or Input should be 'auto'"),
        ({"title": 3}, ".title: Input should be a valid string (given: 3)"),
        ({"title": dt.date(2024, 1, 2)}, ".title: must be a number, text, a list or a mapping"),
        ({"exact": 1}, ".exact: Input should be a valid boolean (given: 1)"),
        ({"exact": "yes"}, ".exact: Input should be a valid boolean (given: 'yes')"),
    ],
)
def test_a_value_that_does_not_fit(given: dict[str, Any], line: str) -> None:
    given = {"left": out("x"), **given}
    (found,) = problems(job("x", "Seed"), job("b", "Scale", given))
    assert found.startswith("job 'b', jobs[1].with.")
    assert line in found


@pytest.mark.parametrize(
    "given",
    [
        {"factor": 2, "times": 3, "mode": "up", "offsets": [1, 2.0], "names": {"b": 1}},
        {"limit": None, "title": "", "exact": True},
        {"limit": "auto", "names": {}, "offsets": []},
        {"limit": 0, "factor": out("x", "value"), "title": out("x", "id")},
        {
            "offsets": out("boxes", "first", "sizes"),
            "factor": out("boxes", "first", "inner", "value"),
        },
    ],
)
def test_values_that_fit(given: dict[str, Any]) -> None:
    jobs = [job("x", "Seed"), job("boxes", "Boxed")]
    assert load(*jobs, job("b", "Scale", {"left": out("x"), **given}))


def test_where_there_may_be_no_record_there_may_be_no_field() -> None:
    boxes = job("boxes", "Boxed")
    field = out("boxes", "second", "inner", "value")
    (found,) = problems(boxes, job("b", "Double", left="boxes"))
    assert "must be Number, but ${boxes.output} is Boxes" in found
    (found,) = problems(
        boxes, job("x", "Seed"), job("b", "Scale", {"left": out("x"), "factor": field})
    )
    assert "must be float, but ${boxes.output.second.inner.value} is None or float" in found
    (found,) = problems(job("x", "Perhaps"), job("b", "TakesBox", {"box": out("x"), "sizes": [1]}))
    assert "must be Box, but ${x.output} is None or Number" in found


def test_what_yaml_cannot_hold_is_taken_from_a_job_only() -> None:
    (found,) = problems(job("b", "TakesBox", {"box": {"label": "x"}, "sizes": [1]}))
    assert "jobs[0].with.box: must be Box (${job.output} or ${job.output.field}), not {" in found


def test_null_stands_for_a_record_only_where_it_may_be_missing() -> None:
    assert load(job("a", "OrZero", {"left": None}))
    (found,) = problems(job("a", "Double", {"left": None}))
    assert "must be Number" in found


def test_all_mistakes_are_told_at_once() -> None:
    lines = problems(
        job("a", "ingst"),
        job("b", "Double", left="a"),  # nothing is known of what a gives
        job("c", "Add", left="b", right="nowhere", other="b"),
        job("b", "Seed"),
    )
    assert [line.partition(":")[0] for line in lines] == [
        "job 'a', jobs[0].hook",
        "job 'c', jobs[2].with.right",
        "job 'c', jobs[2].with.other",
        "job 'b', jobs[3].id",
    ]


def test_types_that_fit() -> None:
    load(
        job("a", "Perhaps"),
        job("b", "OrZero", left="a"),
        job("c", "Nothing"),
        job("d", "OrZero", left="c"),
        job("e", "Big"),
        job("f", "Double", left="e"),  # a subclass is what its base is
        job("g", "Anything", left="c"),
        job("h", "Optional", left="b"),
        job("i", "Optional", left="b", right="a"),
    )


def test_what_a_hook_gives() -> None:

    assert output_type(HOOKS.get("ingest")) is Dataset
    assert output_type(HOOKS.get("scorer")) == (Scorer | None)
    assert output_type(HOOKS.get("small_hooks:Nothing")) is type(None)


def test_every_built_in_hook_has_an_annotated_run() -> None:

    assert len(list(HOOKS)) >= 8
    for name in HOOKS:
        output_type(HOOKS.get(name))


# Rounds


def test_a_workflow_with_rounds() -> None:
    workflow = load(job("a", "Seed"), repeat=REPEAT)
    assert workflow.repeat is not None
    assert workflow.repeat.match == "all"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"until": []}, "repeat.until: List should have at least 1 item"),
        ({"until": "a.value > 1"}, "repeat.until: Input should be a valid list"),
        ({"match": "some"}, "repeat.match: Input should be 'all' or 'any'"),
        ({"most": 0}, "repeat.most: Input should be greater than or equal to 1"),
        ({"update": {}}, "repeat.update: Dictionary should have at least 1 item"),
        ({"update": {"pools.seed": 3}}, "repeat.update.pools.seed: Input should be a valid string"),
        ({"most": 2, "mots": 2}, "repeat.mots: unknown key; did you mean 'most'?"),
        (
            {"until": ["a.value > 1", "a.value"]},
            "repeat.until[1]: 'a.value' is no target: job.field",
        ),
        ({"until": ["b.value > 1"]}, "repeat.until[0]: no earlier job 'b' (earlier: a)"),
        ({"until": ["a.valu > 1"]}, "repeat.until[0]: Number has no field 'valu'; did you mean"),
        (
            {"until": ["a.id > 1"]},
            "repeat.until[0]: 'a.id > 1': a number is needed, but the field is",
        ),
        ({"update": {"pools.seed": "3"}}, "repeat.update.pools.seed: a reference to an output is"),
        ({"update": {"pools.seed": out("b")}}, "repeat.update.pools.seed: no earlier job 'b'"),
        ({"update": {"pools.seed": out("a", "x")}}, "Number has no field 'x'"),
        (
            {"update": {"jobs.b.factor": out("a", "value")}},
            "repeat.update.jobs.b.factor: no job 'b'",
        ),
        ({"update": {"jobs.a.x": out("a", "value")}}, "job 'a' takes no 'x' (it takes nothing)"),
    ],
)
def test_rounds_that_make_no_sense(changes: dict[str, Any], line: str) -> None:
    (found,) = problems(job("a", "Seed"), repeat={**REPEAT, **changes})
    assert line in found


def test_an_update_of_a_parameter_has_its_type() -> None:
    jobs = [job("a", "Seed"), job("b", "Scale", left="a")]
    update = {"jobs.b.factor": out("a", "value")}
    assert load(*jobs, repeat={**REPEAT, "update": update})
    (found,) = problems(*jobs, repeat={**REPEAT, "update": {"jobs.b.times": out("a", "value")}})
    assert "repeat.update.jobs.b.times: must be int, but ${a.output.value} is float" in found


# Any workflow

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
        earlier = st.sampled_from([item["id"] for item in jobs] or [""])
        values: dict[str, Any] = {name: out(draw(earlier)) for name in RECORDS[hook]}
        if hook == "Scale":
            for name in draw(st.sets(st.sampled_from(sorted(SETTINGS)))):
                field = name == "factor" and draw(st.booleans())
                values[name] = out(draw(earlier), "value") if field else draw(SETTINGS[name])
        jobs.append({**job(f"job_{index}", hook), "with": values})
    return jobs


@st.composite
def with_one_mistake(draw: st.DrawFn) -> tuple[Jobs, str]:
    """Return a workflow and the id of the one job in it that is wrong."""
    jobs = deepcopy(draw(sound().filter(lambda jobs: any(item["with"] for item in jobs))))
    index = draw(st.sampled_from([i for i, item in enumerate(jobs) if item["with"]]))
    wrong = jobs[index]
    values = wrong["with"]
    name = draw(st.sampled_from(sorted(values)))
    record = name in ("left", "right")
    mistakes: dict[str, Any] = {
        "another job": out("nowhere"),
        "itself": out(wrong["id"]),
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
    return jobs, wrong["id"]


@settings(max_examples=30)
@given(sound())
def test_what_is_sound_passes(jobs: Jobs) -> None:
    assert len(load(*jobs).jobs) == len(jobs)


@settings(max_examples=60)
@given(with_one_mistake())
def test_one_mistake_is_found_and_names_the_job(made: tuple[Jobs, str]) -> None:
    jobs, wrong = made
    lines = problems(*jobs)
    assert lines
    assert all(line.startswith(f"job {wrong!r}, jobs[") for line in lines)


def test_overloads_say_what_is_given_for_what_is_taken() -> None:
    assert output_type(Passed, {"left": BigNumber}) is Number
    assert output_type(Passed, {"left": Number | None}) == Number | None
    assert output_type(Passed) == Number | None
