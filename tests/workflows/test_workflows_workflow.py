from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import Dataset, Scorer
from djsandbox_ray.workflows import workflow as workflow_module
from djsandbox_ray.workflows.workflow import Workflow, load_workflow, output_type

BUILT_IN = sorted(path.stem for path in Path(workflow_module.__file__).parent.glob("*.yaml"))


def job(id: str, hook: str, **inputs: str) -> dict[str, Any]:
    """Return a job of one of the built-in hooks (lower case) or of the small ones."""
    name = hook if hook.islower() else f"small_hooks:{hook}"
    return {"id": id, "hook": name, **({"with": inputs} if inputs else {})}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.yaml"


def load(path: Path, *jobs: dict[str, Any]) -> Workflow:
    path.write_text(yaml.safe_dump({"jobs": list(jobs)}))
    return load_workflow(str(path))


def problems(path: Path, *jobs: dict[str, Any]) -> list[str]:
    with pytest.raises(BadInput) as caught:
        load(path, *jobs)
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
    assert workflow.jobs[1].inputs == {"left": "numbers", "right": "numbers"}


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
        ("jobs: [{id: a, hook: ingest, with: {x: [b]}}]", "jobs[0].with.x: Input should be"),
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
        (
            [job("a", "ingst")],
            "job 'a': unknown hook 'ingst'; did you mean 'ingest'?",
        ),
        ([job("a", "Nowhere")], "job 'a': hook 'small_hooks:Nowhere' cannot be imported"),
        ([job("a", "NoHook")], "job 'a': hook 'small_hooks:NoHook' is not a subclass of Hook"),
        ([job("a", "Abstract")], "job 'a': hook 'small_hooks:Abstract' does not define run"),
        ([job("a", "Seed"), job("a", "Seed")], "job 'a' stands twice"),
        (
            [job("a", "Seed"), job("b", "Add", left="a")],
            "job 'b': 'right' is missing (it takes left, right)",
        ),
        (
            [job("a", "Seed", left="a")],
            "job 'a': hook 'small_hooks:Seed' takes no 'left' (it takes nothing)",
        ),
        (
            [job("a", "Seed"), job("b", "Double", left="a", rihgt="a")],
            "job 'b': hook 'small_hooks:Double' takes no 'rihgt' (it takes left)",
        ),
        (
            [job("a", "Double", left="b"), job("b", "Seed")],
            "job 'a': no earlier job 'b' (earlier: none)",
        ),
        (
            [job("x", "Seed"), job("a", "Double", left="a")],
            "job 'a': no earlier job 'a' (earlier: x)",
        ),
        (
            [job("a", "ingest"), job("b", "Double", left="a")],
            "job 'b': 'left' must be Number, but 'a' gives Dataset",
        ),
        (
            [job("a", "Nothing"), job("b", "Double", left="a")],
            "job 'b': 'left' must be Number, but 'a' gives NoneType",
        ),
        (
            [job("a", "Perhaps"), job("b", "Double", left="a")],
            "job 'b': 'left' must be Number, but 'a' gives NoneType or Number",
        ),
        (
            [job("a", "ingest"), job("b", "OrZero", left="a")],
            "job 'b': 'left' must be NoneType or Number, but 'a' gives Dataset",
        ),
        (
            [job("a", "GivesNameless")],
            "job 'a': run of GivesNameless must be annotated to return a dataclass with an id, "
            "or None, not Nameless",
        ),
        ([job("a", "GivesFloat")], "or None, not float"),
        (
            [job("a", "Seed"), job("b", "Untyped", left="a")],
            "job 'b': run of Untyped must be annotated to return a dataclass with an id",
        ),
        ([job("a", "Unreadable")], "job 'a': the annotations of Unreadable.run cannot be read"),
    ],
)
def test_one_mistake(path: Path, jobs: list[dict[str, Any]], line: str) -> None:
    (found,) = problems(path, *jobs)
    assert line in found


def test_all_mistakes_are_told_at_once(path: Path) -> None:
    lines = problems(
        path,
        job("a", "ingst"),
        job("b", "Double", left="a"),  # nothing is known of what a gives
        job("c", "Add", left="b", right="nowhere", other="b"),
        job("b", "Seed"),
    )
    assert [line.partition(":")[0] for line in lines] == [
        "job 'a'",
        "job 'c'",
        "job 'c'",
        "job 'b' stands twice",
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
