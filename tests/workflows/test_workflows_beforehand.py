"""What is said of a run before it begins: all that is wrong, and what a recipe cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from factories import minimal_document

from djsandbox_ray.config import checked
from djsandbox_ray.errors import BadInput
from djsandbox_ray.workflows.beforehand import check_run, evidence_notes, foretold, load_run
from djsandbox_ray.workflows.foresight.plan import make_plan, plan_table

ENTITIES = "text_entity_dependency_filter"


def written(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "config.yaml"
    document = minimal_document(storage=str(tmp_path / "storage"), **changes)
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_problems_of_configuration_workflow_and_data_are_one_message(tmp_path: Path) -> None:
    nowhere = {"type": "parquet", "path": str(tmp_path / "no.parquet")}
    jobs = {"jobs": [{"id": "dataset", "hook": "nosuch"}]}
    path = written(tmp_path, dataset=nowhere, workflow=jobs, pools__buckets=1)
    with pytest.raises(BadInput) as caught:
        load_run(path)
    said = str(caught.value)
    assert "config.yaml: 1 error(s) in the configuration\n  pools.buckets: " in said
    assert "\nworkflow of the configuration:\n  job 'dataset', jobs[0].hook: unknown hook" in said
    assert "\ndataset: " in said
    assert "no.parquet" in said
    # Where the configuration is right, the others are found together all the same.
    config = load_run(written(tmp_path, dataset=nowhere, workflow=jobs))
    with pytest.raises(BadInput) as caught:
        check_run(config)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "workflow of the configuration",
        "  job 'dataset', jobs[0].hook",
        "dataset",
    ]


def test_sections_that_jobs_lack_are_said_beside_other_errors(tmp_path: Path) -> None:
    path = written(tmp_path, pools__buckets=1, trials=None)
    with pytest.raises(BadInput, match=r"(?s)pools.buckets: .*trials: the configuration has no"):
        load_run(path)


@pytest.mark.parametrize("changes", [{"workflow": 3}, {"jobs": 3}, {"jobs": {"pools": 3}}])
def test_what_is_no_workflow_is_said_once(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as caught:
        load_run(written(tmp_path, **changes))
    assert "1 error(s) in the configuration" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_a_source_that_cannot_be_is_not_looked_for(tmp_path: Path) -> None:
    """What it would make of a content that it does not give is not asked."""
    path = written(tmp_path, dataset={"type": "shapes", "samples": 100, "content": "videos"})
    with pytest.raises(BadInput) as caught:
        load_run(path)
    assert "dataset.content: the source 'shapes' gives pairs" in str(caught.value)
    assert "\ndataset: " not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "type", "content", "reason"),
    [
        ("a.parquet", "parquet", "text,image\na cat,cat.jpg\n", "broken_shard"),
        # Hugging Face's metadata beside images.
        ("metadata.jsonl", "jsonl", '{"file_name": "0.jpg", "text": "a cat"}\n', "image_count"),
        ("a.jsonl", "jsonl", '{"text": "a cat", "images": ["../0.jpg"]}\n', "escaping_path"),
    ],
)
def test_data_of_which_nothing_can_be_used_are_found_by_a_look_at_them(
    tmp_path: Path, name: str, type: str, content: str, reason: str
) -> None:
    (tmp_path / name).write_text(content)
    source = {"type": type, "path": str(tmp_path / name)}
    config = load_run(written(tmp_path, dataset=source))
    with pytest.raises(BadInput, match=rf"(?m)^dataset: none of its rows can be used: .*{reason}"):
        check_run(config)
    with pytest.raises(BadInput, match=reason):  # it is here: no machine can use it
        make_plan(config)


def test_an_operator_without_recipes_is_an_error_where_a_job_writes_them() -> None:
    """It is found before anything is trained; other workflows may cut pools by it."""
    process = ["text_length_filter", {ENTITIES: {}}]
    document = minimal_document(operators=process, dataset__samples=6000)
    config = checked(document, "test", elsewhere=True)
    check_run(config)
    refining = config.model_copy(update={"workflow": "probe_analyze_refine"})
    said = rf"operators\[1\]: {ENTITIES} cannot keep a range.*the job 'recipe' makes recipes"
    with pytest.raises(BadInput, match=said):
        check_run(refining)
    plain = {**document, "operators": ["text_length_filter"], "workflow": "probe_analyze_refine"}
    check_run(checked(plain, "test"))


def test_what_a_recipe_cannot_do_is_said_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "images": []}\n')
    process = ["text_length_filter", "image_aspect_ratio_filter"]
    document = {
        "name": "several",
        "storage": str(tmp_path / "storage"),
        "dataset": {"type": "jsonl", "path": str(tmp_path / "a.jsonl"), "content": "any"},
        "operators": process,
        "workflow": "recipe_only",
        "tracking": {"type": "none"},
    }
    config = checked(document, "test")
    (line,) = foretold(config)
    assert line.startswith("image_aspect_ratio_filter holds every image of a sample against")
    made = make_plan(config)
    assert made["foretold"] == [line]
    assert f"note    {line}" in plan_table(made).plain
    assert foretold(checked({**document, "operators": process[:1]}, "test")) == []
    pairs = {"type": "shapes", "samples": 100}
    assert foretold(checked({**document, "dataset": pairs}, "test")) == []


@pytest.mark.parametrize(
    ("seeds", "said"), [(1, "with one seed nothing tells"), (2, "two seeds tell little"), (3, None)]
)
def test_what_few_seeds_cannot_tell_is_said_before_the_run(
    tmp_path: Path, seeds: int, said: str | None
) -> None:
    document = minimal_document(
        storage=str(tmp_path / "storage"),
        trials__seeds=seeds,
        pools__draw_share=1.0,  # one seed is for whole buckets
        confirm__controls=8,
    )
    notes = evidence_notes(checked(document, "test"))
    assert [note[: len(said or "")] for note in notes] == ([said] if said else [])
