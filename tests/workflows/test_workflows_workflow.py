from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_hooks import BigNumber, Number, Passed, out

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import Dataset, Scorer
from djsandbox_ray.workflows.language import workflow as workflow_module
from djsandbox_ray.workflows.language.jobs import Reference, Workflow
from djsandbox_ray.workflows.language.parameters import output_type
from djsandbox_ray.workflows.language.workflow import load_workflow

FOLDER = Path(workflow_module.__file__).parents[1] / "builtin"
BUILT_IN = sorted(path.stem for path in FOLDER.glob("*.yaml"))
REPEAT = {"until": ["a.value > 1"], "most": 2, "update": {"pools.seed": out("a", "value")}}


def job(
    id: str, hook: str, settings: dict[str, Any] | None = None, **inputs: str
) -> dict[str, Any]:
    """Return a job of one of the built-in hooks (lower case) or of the small ones.

    ``inputs`` are ids of jobs, whose outputs it takes.
    """
    name = hook if hook.islower() else f"small_hooks:{hook}"
    given = {**{name: out(source) for name, source in inputs.items()}, **(settings or {})}
    return {"id": id, "hook": name, **({"with": given} if given else {})}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.yaml"


def load(path: Path, *jobs: dict[str, Any], **more: Any) -> Workflow:
    path.write_text(yaml.safe_dump({"jobs": list(jobs), **more}))
    return load_workflow(str(path))


def problems(path: Path, *jobs: dict[str, Any], **more: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        load(path, *jobs, **more)
    head, *lines = str(caught.value).split("\n")
    assert head == f"workflow {path}:"
    return [line.removeprefix("  ") for line in lines]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_workflow_is_sound(name: str) -> None:
    assert load_workflow(name).jobs


def test_the_default_is_built_in() -> None:
    assert "single_op" in BUILT_IN


def test_a_users_hooks_may_stand_among_the_built_in_ones(path: Path) -> None:
    workflow = load(
        path,
        job("numbers", "Seed"),
        job("sum_2", "Add", left="numbers", right="numbers"),
        job("data", "ingest"),
    )
    assert [job.id for job in workflow.jobs] == ["numbers", "sum_2", "data"]
    numbers = Reference("numbers")
    assert workflow.jobs[1].references == {"left": numbers, "right": numbers}


@pytest.mark.parametrize("name", ["single_opp", "", ".", "/etc", "single_op.json"])
def test_an_unknown_workflow_lists_the_known(name: str) -> None:
    with pytest.raises(BadInput, match=r"unknown workflow .*known: .*single_op.*or a \.yaml file"):
        load_workflow(name)


def test_the_nearest_workflow_is_named() -> None:
    with pytest.raises(BadInput, match=r"did you mean 'single_op'\?"):
        load_workflow("single_opp")


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load_workflow(str(path))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "a mapping of keys is needed, not NoneType"),
        ("- {id: a, hook: ingest}", "a mapping of keys is needed, not list"),
        ("jobs", "a mapping of keys is needed, not str"),
        ("{}", "jobs: Field required"),
        ("jobs:", "jobs: Input should be a valid list"),
        ("jobs: []", "jobs: List should have at least 1 item"),
        ("jobs: {a: ingest}", "jobs: Input should be a valid list"),
        ("jobs: [ingest]", "jobs[0]: Input should be a valid dictionary"),
        ("jobs: [{id: a}]", "jobs[0].hook: Field required"),
        ("jobs: [{hook: ingest}]", "jobs[0].id: Field required"),
        ("jobs: [{id: 'A b', hook: ingest}]", "jobs[0].id: String should match"),
        ("jobs: [{id: ../a, hook: ingest}]", "jobs[0].id: String should match"),
        ("jobs: [{id: a, hook: ingest, wit: {}}]", "jobs[0].wit: unknown key; did you mean 'with'"),
        ("jobs: [{id: a, hook: ingest, inputs: {}}]", "jobs[0].inputs: unknown key"),
        ("jobs: [{id: a, hook: ingest, with: }]", "jobs[0].with: Input should be a valid dict"),
        ("jobs: [{id: a, hook: ingest, with: [b]}]", "jobs[0].with: Input should be a valid dict"),
        ("jobs: [{id: a, hook: ingest, with: {1: b}}]", "jobs[0].with.1: Input should be"),
        ("{jobs: [{id: a, hook: ingest}], job: 1}", "job: unknown key; did you mean 'jobs'?"),
        ("jobs: [{id: a, hook: ingest, id: b}]", "the key 'id' stands twice"),
        ("jobs: [", "not valid YAML"),
    ],
)
def test_a_file_of_another_shape_says_where(path: Path, text: str, line: str) -> None:
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        load_workflow(str(path))
    message = str(caught.value)
    assert message.startswith(f"workflow {path}:")
    assert line in message


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
            "jobs[1].with: 'right' is missing (it takes left, right)",
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
def test_one_mistake(path: Path, jobs: list[dict[str, Any]], line: str) -> None:
    (found,) = problems(path, *jobs)
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
def test_a_value_that_does_not_fit(path: Path, given: dict[str, Any], line: str) -> None:
    given = {"left": out("x"), **given}
    (found,) = problems(path, job("x", "Seed"), job("b", "Scale", given))
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
def test_values_that_fit(path: Path, given: dict[str, Any]) -> None:
    jobs = [job("x", "Seed"), job("boxes", "Boxed")]
    assert load(path, *jobs, job("b", "Scale", {"left": out("x"), **given}))


def test_where_there_may_be_no_record_there_may_be_no_field(path: Path) -> None:
    boxes = job("boxes", "Boxed")
    field = out("boxes", "second", "inner", "value")
    (found,) = problems(path, boxes, job("b", "Double", left="boxes"))
    assert "must be Number, but ${boxes.output} is Boxes" in found
    (found,) = problems(
        path, boxes, job("x", "Seed"), job("b", "Scale", {"left": out("x"), "factor": field})
    )
    assert "must be float, but ${boxes.output.second.inner.value} is None or float" in found
    (found,) = problems(
        path, job("x", "Perhaps"), job("b", "TakesBox", {"box": out("x"), "sizes": [1]})
    )
    assert "must be Box, but ${x.output} is None or Number" in found


def test_what_yaml_cannot_hold_is_taken_from_a_job_only(path: Path) -> None:
    (found,) = problems(path, job("b", "TakesBox", {"box": {"label": "x"}, "sizes": [1]}))
    assert "jobs[0].with.box: must be Box (${job.output} or ${job.output.field}), not {" in found


def test_null_stands_for_a_record_only_where_it_may_be_missing(path: Path) -> None:
    assert load(path, job("a", "OrZero", {"left": None}))
    (found,) = problems(path, job("a", "Double", {"left": None}))
    assert "must be Number" in found


def test_all_mistakes_are_told_at_once(path: Path) -> None:
    lines = problems(
        path,
        job("a", "ingst"),
        job("b", "Double", left="a"),  # nothing is known of what a gives
        job("c", "Add", left="b", right="nowhere", other="b"),
        job("b", "Seed"),
    )
    assert [line.partition(":")[0] for line in lines] == [
        "job 'a', jobs[0].hook",
        "job 'c', jobs[2].with.other",
        "job 'c', jobs[2].with.right",
        "job 'b', jobs[3].id",
    ]


def test_types_that_fit(path: Path) -> None:
    load(
        path,
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
    from djsandbox_ray.hooks.hook import HOOKS

    assert output_type(HOOKS.get("ingest")) is Dataset
    assert output_type(HOOKS.get("scorer")) == (Scorer | None)
    assert output_type(HOOKS.get("small_hooks:Nothing")) is type(None)


def test_every_built_in_hook_has_an_annotated_run() -> None:
    from djsandbox_ray.hooks.hook import HOOKS

    assert len(list(HOOKS)) >= 8
    for name in HOOKS:
        output_type(HOOKS.get(name))


# Values that the configuration sets itself


def small(*jobs: dict[str, Any]) -> dict[str, Any]:
    return {"jobs": list(jobs)}


def test_a_workflow_may_stand_in_the_configuration() -> None:
    assert [job.id for job in load_workflow(small(job("a", "Seed"))).jobs] == ["a"]
    with pytest.raises(BadInput, match=r"^workflow of the configuration:\n  job 'a', jobs.0..hook"):
        load_workflow(small(job("a", "Sede")))


def test_the_configuration_replaces_parameters() -> None:
    jobs = small(job("a", "Seed"), job("b", "Scale", {"factor": 3}, left="a"), job("c", "Big"))
    workflow = load_workflow(jobs, {"b": {"factor": 4, "left": out("a"), "times": 2}})
    assert workflow.jobs[1].given == {"left": out("a"), "factor": 4, "times": 2}
    assert workflow.jobs[0].given == {}


@pytest.mark.parametrize(
    ("replaced", "line"),
    [
        (
            {"bb": {"factor": 1}},
            "jobs.bb of the configuration: the workflow has no job 'bb'; did "
            "you mean 'b'? (it has a, b)",
        ),
        (
            {"b": {"facto": 1}},
            "job 'b', configuration jobs.b.facto: hook 'small_hooks:Scale' "
            "takes no 'facto'; did you mean 'factor'?",
        ),
        ({"b": {"factor": "x"}}, "job 'b', configuration jobs.b.factor: Input should be a"),
        (
            {"b": {"left": out("c")}},
            "job 'b', configuration jobs.b.left: no earlier job 'c'",
        ),
    ],
)
def test_a_replacement_that_does_not_fit(replaced: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_workflow(small(job("a", "Seed"), job("b", "Scale", left="a")), replaced)
    (_, found) = str(caught.value).split("\n")
    assert found.startswith(f"  {line}")


# Rounds


def test_a_workflow_with_rounds(path: Path) -> None:
    workflow = load(path, job("a", "Seed"), repeat=REPEAT)
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
def test_rounds_that_make_no_sense(path: Path, changes: dict[str, Any], line: str) -> None:
    (found,) = problems(path, job("a", "Seed"), repeat={**REPEAT, **changes})
    assert line in found


def test_an_update_of_a_parameter_has_its_type(path: Path) -> None:
    jobs = [job("a", "Seed"), job("b", "Scale", left="a")]
    update = {"jobs.b.factor": out("a", "value")}
    assert load(path, *jobs, repeat={**REPEAT, "update": update})
    (found,) = problems(
        path, *jobs, repeat={**REPEAT, "update": {"jobs.b.times": out("a", "value")}}
    )
    assert "repeat.update.jobs.b.times: must be int, but ${a.output.value} is float" in found


def test_overloads_say_what_is_given_for_what_is_taken() -> None:
    assert output_type(Passed, {"left": BigNumber}) is Number
    assert output_type(Passed, {"left": Number | None}) == Number | None
    assert output_type(Passed) == Number | None
