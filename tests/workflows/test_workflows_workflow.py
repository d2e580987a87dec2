"""Reading a workflow: its file, the one that it continues, what the configuration sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from small_hooks import job, out

from djsandbox_ray.errors import BadInput
from djsandbox_ray.workflows.language import workflow as workflow_module
from djsandbox_ray.workflows.language.jobs import Reference, Workflow
from djsandbox_ray.workflows.language.workflow import load_workflow

FOLDER = Path(workflow_module.__file__).parents[1] / "builtin"
BUILT_IN = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.yaml"


def ids(workflow: Workflow) -> list[str]:
    return [job.id for job in workflow.jobs]


def small(*jobs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"jobs": list(jobs), **more}


def write(path: Path, *jobs: dict[str, Any], **more: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(small(*jobs, **more)))


def refused(source: Any, replaced: Any = None) -> list[str]:
    """Return what is said of a workflow, line by line."""
    with pytest.raises(BadInput) as caught:
        load_workflow(source, replaced)
    return str(caught.value).split("\n")


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_workflow_is_sound(name: str) -> None:
    assert load_workflow(name).jobs


def test_the_built_in_workflows() -> None:
    assert {"single_op", "iterate"} <= set(BUILT_IN)
    workflow = load_workflow("probe_analyze_refine")
    assert ids(workflow)[-6:] == [
        *("thresholds", "ledger", "recipe", "acceptance", "insights", "report")
    ]
    report = workflow.jobs[-1].references
    assert len(report) == 24, "the report shows all that was found"
    assert report["leaks"] == Reference("leaks")
    assert ids(load_workflow("single_op"))[-2:] == ["ledger", "report"]
    assert load_workflow("iterate").repeat is not None


@pytest.mark.parametrize("name", ["single_opp", "", ".", "/etc", "single_op.json"])
def test_an_unknown_workflow_lists_the_known(name: str) -> None:
    with pytest.raises(BadInput, match=r"unknown workflow .*known: .*single_op.*or a \.yaml file"):
        load_workflow(name)


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
    message = "\n".join(refused(str(path)))
    assert message.startswith(f"workflow {path}:")
    assert line in message


def test_a_workflow_may_stand_in_the_configuration() -> None:
    assert ids(load_workflow(small(job("a", "Seed")))) == ["a"]
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
    _, found = refused(small(job("a", "Seed"), job("b", "Scale", left="a")), replaced)
    assert found.startswith(f"  {line}")


# After another workflow

BASE = (
    job("seed", "Seed"),
    job("sum", "Double", left="seed"),
    job("last", "OrZero", left="sum"),
)


@pytest.mark.parametrize(
    ("own", "order"),
    [
        ([job("new", "Big")], "seed sum last new"),
        # A step is exchanged in its place; what sums up moves behind what is new.
        ([job("sum", "Add", left="seed", right="seed")], "seed sum last"),
        ([job("new", "Big"), job("last", "OrZero", left="new")], "seed sum new last"),
        (
            [
                job("sum", "Add", left="seed", right="seed"),
                job("new", "Big"),
                job("last", "OrZero", left="new"),
            ],
            "seed sum new last",
        ),
    ],
)
def test_the_jobs_of_the_other_come_first(path: Path, own: list[Any], order: str) -> None:
    write(path, *BASE)
    workflow = load_workflow(small(*own, after=str(path)))
    assert " ".join(ids(workflow)) == order
    hooks = {job.id: job.hook for job in workflow.jobs}
    assert hooks.items() >= {item["id"]: item["hook"] for item in own}.items()


def test_a_chain_of_files_beside_each_other(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", *BASE)
    write(tmp_path / "sub" / "middle.yaml", job("middle", "Big"), after="../base.yaml")
    write(tmp_path / "top.yaml", job("top", "Big"), after="./sub/middle.yaml")
    found = load_workflow(str(tmp_path / "top.yaml"), {"sum": {"left": out("seed")}})
    assert ids(found) == ["seed", "sum", "last", "middle", "top"]
    assert "learning_rate" in ids(load_workflow(small(job("x", "Seed"), after="single_op")))


@pytest.mark.parametrize(("own", "most"), [({}, 2), ({"repeat": None}, None)])
def test_rounds_are_those_of_the_other_unless_said(path: Path, own: Any, most: int | None) -> None:
    update = {"pools.seed": out("seed", "value")}
    write(path, *BASE, repeat={"until": ["seed.value > 1"], "most": 2, "update": update})
    repeat = load_workflow(small(job("new", "Big"), after=str(path), **own)).repeat
    assert (repeat and repeat.most) == most


def test_what_is_wrong_with_the_other_names_its_file(path: Path) -> None:
    own = {"jobs": [job("new", "Doubel"), job("sum", "Double", left="nowhere")]}
    write(path, *BASE[:2], job("last", "OrZero", left="smu"))
    head, *lines = refused({**own, "after": str(path)})
    assert head == "workflow of the configuration:"
    assert [line.split(": ")[0] for line in lines] == [
        f"  job 'last', {path}",
        "  job 'new', jobs[0].hook",
        "  job 'sum', jobs[1].with.left",
    ]
    assert "jobs[2].with.left: no earlier job 'smu'" in lines[0]
    write(path, *BASE, jbos=1)
    assert refused({**own, "after": str(path)}) == [
        f"workflow {path}:",
        "  jbos: unknown key; did you mean 'jobs'? (known: after, jobs, repeat)",
    ]


def test_a_job_that_continues_another_stands_once(path: Path) -> None:
    write(path, *BASE)
    twice = small(job("last", "Nowhere"), job("new", "Big"), job("last", "Big"), after=str(path))
    assert refused(twice)[1:] == ["  job 'last', jobs[2].id: stands twice"]


def test_another_that_is_not_there(path: Path) -> None:
    for after, why in {
        "single_opp": "unknown workflow 'single_opp'; did you mean 'single_op'?",
        "nosuch.yaml": f"workflow {path.parent}/nosuch.yaml: cannot be read",
    }.items():
        write(path, *BASE, after=after)
        head, line, *_ = refused(str(path))
        assert head == f"workflow {path}:"
        assert line.startswith(f"  after: {why}")


def test_a_circle(tmp_path: Path) -> None:
    for name, after in (("a", "sub/../b"), ("b", "a"), ("itself", "itself")):
        write(tmp_path / f"{name}.yaml", *BASE, after=f"{after}.yaml")
    (a, b, itself) = (str(tmp_path / f"{name}.yaml") for name in ("a", "b", "itself"))
    said = "  after: a workflow cannot continue itself: "
    assert refused(a) == [f"workflow {b}:", f"{said}{a} -> {b} -> {a}"]
    assert refused(itself) == [f"workflow {itself}:", f"{said}{itself} -> {itself}"]
