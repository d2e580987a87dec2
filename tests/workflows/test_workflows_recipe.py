"""The commands around a recipe, on a run that trains nothing: data to an accepted recipe."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from djsandbox_ray.cli import app
from djsandbox_ray.config import load_config
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.records import Acceptance, Dataset, Recipe
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.finished import FinishedRun
from djsandbox_ray.workflows.recipe import accept_recipe, materialise_rows, show_recipes
from djsandbox_ray.workflows.run import run_sandbox

DEFECTS = {"repeated_words": 0.2, "special_characters": 0.2, "odd_size": 0.1}
RANGES = {
    name: {"low": 5, "high": 90}
    for name in ("text_len", "special_char_ratio", "alnum_ratio", "word_rep_ratio")
} | {"aspect_ratios": {"low": 4, "high": 96}}
"""Percentiles of five operators together."""


def job(id: str, hook: str, **inputs: Any) -> dict[str, Any]:
    return {"id": id, "hook": hook, "with": {**inputs}}


DATA = {"dataset": "${ingest.output}", "statistics": "${statistics.output}"}
JOBS = [
    job("ingest", "ingest"),
    job("evaluation", "ingest_evaluation"),
    job("leaks", "leaks", dataset="${ingest.output}", evaluation="${evaluation.output}"),
    job("statistics", "statistics", dataset="${ingest.output}", scorer=None),
    job("pools", "pools", **DATA, leaks="${leaks.output}"),
    job(
        "refine",
        "refine",
        **DATA,
        method={"type": "percentile", "statistics": RANGES},
    ),
    job("recipe", "recipe", **DATA, thresholds="${refine.output}"),
    job(
        "accept",
        "accept",
        **DATA,
        recipe="${recipe.output}",
        thresholds="${refine.output}",
    ),
]


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(where: Console) -> str:
    assert isinstance(where.file, io.StringIO)
    return where.file.getvalue()


def run(folder: Path, name: str = "found", workflow: str | None = None) -> dict[str, Any]:
    """Run the jobs above, or a built-in workflow that trains nothing and needs no more."""
    document: dict[str, Any] = {
        "name": name,
        "storage": str(folder / "storage"),
        "dataset": {"type": "shapes", "samples": 600, "defects": DEFECTS},
        "operators": [
            "text_length_filter",
            "special_characters_filter",
            "alphanumeric_filter",
            {"word_repetition_filter": {"rep_len": 2}},
            "image_aspect_ratio_filter",
        ],
        "trials": {"model": {"type": "clip"}, "budget": 64},
        "evaluation": {
            "dataset": {"type": "shapes", "samples": 50, "seed": 1},
            "metrics": [{"type": "retrieval", "k": [1]}],
        },
        "tracking": {"type": "none"},
        "workflow": workflow or {"jobs": JOBS},
    }
    if workflow is not None:
        del document["trials"], document["evaluation"]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return run_sandbox(load_config(str(path)), console())


@pytest.fixture(scope="module")
def finished(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the hooks for real, up to the acceptance by Data-Juicer."""
    folder = tmp_path_factory.mktemp("finished")
    outputs = run(folder)
    accepted, recipe = outputs["accept"], outputs["recipe"]
    assert isinstance(accepted, Acceptance)
    assert isinstance(recipe, Recipe)
    assert (accepted.rows, accepted.differing) == (600, 0)
    assert accepted.kept == round(600 * recipe.retention)
    assert 200 < accepted.kept < 560
    return folder


@pytest.mark.slow
def test_recipe_only_bounds_every_statistic_without_a_trial(finished: Path) -> None:
    outputs = run(finished, "only", "recipe_only")
    thresholds, accepted = outputs["thresholds"], outputs["acceptance"]
    assert {item.statistic for item in thresholds.ranges} == set(RANGES)
    assert outputs["recipe"].retention < 1
    assert accepted.differing == 0
    assert not (finished / "storage" / "trials").exists()
    evidence = json.loads((finished / "storage" / outputs["recipe"].evidence).read_text())
    assert (evidence["effect"]["unit"], evidence["effect"]["confidence"]) == (None, None)
    ended = json.loads((finished / "storage/runs/only/run.json").read_text())
    assert (ended["state"], ended["seeds"]) == ("COMPLETED", [])


@pytest.fixture
def url(finished: Path) -> str:
    return str(finished / "storage")


@pytest.fixture
def recipe(url: str) -> Path:
    return Path(url) / "runs/found/recipes/found.yaml"


def test_the_recipe_of_a_run_is_shown_and_copied(url: str, recipe: Path, tmp_path: Path) -> None:
    where = console()
    show_recipes("found", url, str(tmp_path / "mine" / "kept.yaml"), where)
    text = printed(where)
    assert str(recipe) in text
    assert re.search(r"keeps +\d+\.\d\d% of dataset-\w+ \(\d+ of 600 rows\)", text)
    assert "not measured" in text
    assert "caveat" in text
    assert (tmp_path / "mine" / "kept.yaml").read_bytes() == recipe.read_bytes()
    evidence = json.loads((tmp_path / "mine" / "kept.evidence.json").read_text())
    assert evidence["retention"]["rows"] < 600
    with pytest.raises(BadInput, match="a file is needed"):
        show_recipes("found", url, str(tmp_path / "mine"), console())


def test_runs_without_a_recipe_say_what_to_do(url: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no run 'lost' .*there are: found"):
        show_recipes("lost", url, None, console())
    with pytest.raises(BadInput, match="not the name of a run"):
        show_recipes("../found", url, None, console())
    storage = Storage(str(tmp_path / "storage"))
    storage.write_bytes("runs/bare/config.yaml", b"name: bare\n")
    with pytest.raises(SandboxError, match="has no recipe: it is not finished") as caught:
        show_recipes("bare", storage.url, None, console())
    assert caught.value.exit_code == 1


def test_a_forbidden_recipe_is_shown_and_not_usable(url: str, tmp_path: Path) -> None:
    evidence = Storage(url).read_sealed("runs/found/recipes/found.evidence.json")
    storage = Storage(str(tmp_path / "storage"))
    storage.write_bytes("runs/bare/config.yaml", b"name: bare\n")
    broken = {**evidence, "recipe": None, "broken_policies": ["too much of it"]}
    storage.write_json("runs/bare/recipes/bare.evidence.json", broken)
    where = console()
    with pytest.raises(SandboxError, match="no recipe that may be used"):
        show_recipes("bare", storage.url, None, where)
    assert "forbidden too much of it" in printed(where)


@pytest.mark.slow
def test_the_recipe_is_accepted_on_data_that_the_run_never_saw(
    url: str, recipe: Path, tmp_path: Path
) -> None:
    """Also: what was materialised is what a source reads."""
    run = FinishedRun(Storage(url), "found")
    where = console()
    done = materialise_rows(
        *("found", None, str(recipe), url, where),
        output=str(tmp_path / "kept"),
        form="jsonl",
        rows_per_shard=100,
    )
    accepted = accept_recipe(str(recipe), run.dataset().id, url, where)
    assert (accepted.rows, accepted.differing, accepted.kept) == (600, 0, done.rows)
    # Its own rows are a dataset that the recipe keeps whole.
    again = accept_recipe(str(recipe), str(tmp_path / "kept"), url, where)
    assert (again.rows, again.kept, again.differing) == (done.rows, done.rows, 0)
    assert "the same rows" in printed(where)


def test_a_difference_ends_the_command(url: str, recipe: Path) -> None:
    """The statistics are not those of Data-Juicer, though no file of theirs is damaged."""
    storage = Storage(url)
    done = storage.read_json("runs/found/jobs/statistics.json")["output"]
    folder = next(s["path"] for s in done["statistics"] if s["name"] == "text_len")
    part = storage.names(folder)[0]
    marker = f"{folder.removesuffix('.parquet')}.json"
    before = {path: storage.read_bytes(path) for path in (f"{folder}/{part}", marker)}
    table = storage.read_table(f"{folder}/{part}")
    wrong = np.full(table.num_rows, 5000.0)
    tampered = table.set_column(table.schema.get_field_index("text_len"), "text_len", [wrong])
    dataset = FinishedRun(storage, "found").dataset()
    try:
        storage.write_table(f"{folder}/{part}", tampered)
        mark = storage.read_sealed(marker)
        mark["parts"][part] = len(storage.read_bytes(f"{folder}/{part}"))
        storage.write_sealed(marker, mark)
        with pytest.raises(SandboxError, match=r"row \d+: kept by data_juicer only") as caught:
            accept_recipe(str(recipe), dataset.id, url, console())
    finally:
        for path, original in before.items():
            storage.write_bytes(path, original)
    assert caught.value.exit_code == 1
    assert "text_len = 5000.0 not in [" in str(caught.value)


def test_data_that_is_none_is_refused(url: str, recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        accept_recipe(str(recipe), "dataset-0000", url, console())
    (tmp_path / "notes.md").write_text("nothing")
    with pytest.raises(BadInput, match="files of one form are needed"):
        accept_recipe(str(recipe), str(tmp_path / "notes.md"), url, console())


def test_files_of_two_forms_are_refused(url: str, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "b.tar").write_bytes(b"")
    with pytest.raises(BadInput, match="files of one form"):
        accept_recipe(str(recipe), str(tmp_path), url, console())


def test_a_pool_becomes_files(url: str, tmp_path: Path) -> None:
    storage = Storage(url)
    found = FinishedRun(storage, "found")
    rows = found.pool_rows("text_len/high")
    assert isinstance(found.dataset(), Dataset)
    assert np.array_equal(rows, found.pool_rows("pools:text_len/high"))
    options: dict[str, Any] = {"form": "webdataset", "rows_per_shard": 1000}
    done = materialise_rows(
        "found", "text_len/high", None, url, console(), output=str(tmp_path / "out"), **options
    )
    pools = storage.read_sealed("runs/found/pools.json")
    assert done.rows == len(rows) == pools["size"]


@pytest.mark.parametrize(
    ("pool", "recipe", "why"),
    [
        (None, None, "a pool or --recipe"),
        ("text_len/high", "x.yaml", "a pool or --recipe"),
        ("text_len/top", None, r"no pool 'text_len/top' \(there are .*text_len/high"),
        (None, "x.yaml", "cannot be read"),
        ("self_test/shuffled_captions", None, "shuffles the captions"),
    ],
)
def test_bad_choices_of_rows(
    url: str, tmp_path: Path, pool: str | None, recipe: str | None, why: str
) -> None:
    with pytest.raises(BadInput, match=why):
        materialise_rows(
            *("found", pool, recipe, url, console()),
            output=str(tmp_path / "out"),
            form="jsonl",
            rows_per_shard=10,
        )
    assert not (tmp_path / "out").exists()


def test_a_recipe_is_copied_over_no_file_of_the_users(
    url: str, recipe: Path, tmp_path: Path
) -> None:
    output = tmp_path / "own.yaml"
    evidence = tmp_path / "own.evidence.json"
    for _ in range(2):  # the same again is no other file
        show_recipes("found", url, str(output), console())
    assert output.read_bytes() == recipe.read_bytes()
    written = evidence.read_bytes()
    for file in (output, evidence):
        before = file.read_bytes()
        file.write_text("mine")
        with pytest.raises(BadInput, match=rf"{file.name}' exists, holds something else"):
            show_recipes("found", url, str(output), console())
        assert file.read_text() == "mine"
        file.write_bytes(before)
    output.unlink()
    show_recipes("found", url, str(output), console())
    assert (output.read_bytes(), evidence.read_bytes()) == (recipe.read_bytes(), written)


def test_the_commands(url: str, recipe: Path, tmp_path: Path) -> None:
    def call(*arguments: str) -> Any:
        return CliRunner().invoke(app, [*arguments, "--storage", url])

    shown = call("recipe", "found")
    assert (shown.exit_code, shown.exception) == (0, None)
    assert "keeps" in shown.output
    out = str(tmp_path / "out")
    options = ["--format", "parquet", "--rows-per-shard", "50", "--output", out]
    for rows in (["text_len/low"], ["--recipe", str(recipe)]):
        done = call("materialise", "found", *rows, *options)
        # The second time, the folder holds the rows of the pool.
        assert (done.exit_code == 0) == (rows == ["text_len/low"])
    assert "holds other rows" in str(done.exception)
    missing = call("recipe", "x", "--accept", str(tmp_path / "none.yaml"))
    assert "cannot be read" in str(missing.exception)
    both = call("recipe", "x", "--accept", str(recipe), "--output", "y.yaml")
    assert isinstance(both.exception, BadInput)


def test_a_pool_for_hugging_face_says_what_it_is(url: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options: dict[str, Any] = {"output": str(out), "form": "huggingface", "rows_per_shard": 1000}
    materialise_rows("found", "text_len/high", None, url, console(), **options)
    card = (out / "README.md").read_text()
    assert "The pool `text_len/high` of the run `found`" in card
    assert re.search(r"`text_len`, which `text_length_filter` computes, lies between \d", card)


@pytest.mark.parametrize(
    ("form", "repository", "why"),
    [("jsonl", "me/rows", "is for --format huggingface"), ("huggingface", "rows", "OWNER/NAME")],
)
def test_what_cannot_be_pushed_is_said_first(
    url: str, tmp_path: Path, form: str, repository: str, why: str
) -> None:
    with pytest.raises(BadInput, match=why):
        materialise_rows(
            *("found", "text_len/high", None, url, console()),
            output=str(tmp_path / "out"),
            form=form,
            rows_per_shard=10,
            repository=repository,
        )
    assert not (tmp_path / "out").exists()
