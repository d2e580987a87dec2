"""Damage to a finished run: what is not as it was written is done again, the rest is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from damages import DAMAGES
from factories import pool, pools
from small_hooks import RAN, job, number

from djsandbox_ray.errors import BadInput, Damaged
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.storage.seals import seals_to_json
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.finished import FinishedRun, sync_run
from djsandbox_ray.workflows.language.jobs import Workflow
from djsandbox_ray.workflows.language.parameters import as_data
from djsandbox_ray.workflows.language.workflow import load_workflow
from djsandbox_ray.workflows.runner import finished_jobs, run_workflow
from djsandbox_ray.workflows.state import alone

MakeContext = Callable[..., Context]
CHAIN = load_workflow(
    {
        "jobs": [
            job("seed", "Seed"),
            job("seven", "Buckets"),
            job("sum", "Add", left="seed", right="seven"),
            job("table", "WritesTable", left="sum"),
            job("total", "ReadsTable", table="table"),
        ]
    }
)


def run(context: Context, workflow: Workflow = CHAIN) -> tuple[list[str], dict[str, Any]]:
    RAN.clear()
    outputs = run_workflow(workflow, context, lambda output: None)
    return list(RAN), outputs


def file(context: Context, name: str) -> Path:
    return Path(context.storage.uri(f"{context.folder}/{name}"))


def said(context: Context) -> str:
    return str(context.progress._console.file.getvalue())  # type: ignore[attr-defined]


WHOSE = {"Add.json": "Add", "elsewhere.json": "WritesTable", "kept/table.csv": "WritesTable"}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", WHOSE)
def test_a_job_whose_file_is_damaged_is_done_again_alone(
    opened: MakeContext, name: str, damage: str
) -> None:
    _, first = run(opened())
    before = file(opened(), name).read_bytes()
    DAMAGES[damage](file(opened(), name))
    assert set(finished_jobs(CHAIN, opened())) < set(first)
    here = opened()
    ran, outputs = run(here)
    assert ran == [WHOSE[name]]
    assert outputs == first
    assert json.loads(before) if name == "Add.json" else before == file(here, name).read_bytes()
    assert f"runs/test/{name} " in said(here)
    assert "it is done again" in said(here)
    assert run(opened())[0] == [], "and then all is well"


def test_what_somebody_has_changed_is_set_aside(opened: MakeContext) -> None:
    run(opened())
    file(opened(), "kept/table.csv").write_text("my own\n")
    run(opened())
    assert file(opened(), "aside/kept/table.csv").read_text() == "my own\n"


def test_what_is_set_aside_again_lies_beside_the_first(opened: MakeContext) -> None:
    for text in ("my own\n", "my next\n", "my last\n"):
        run(opened())
        file(opened(), "kept/table.csv").write_text(text)
    run(opened())
    aside = file(opened(), "aside/kept")
    assert {path.name: path.read_text() for path in aside.iterdir()} == {
        "table.csv": "my own\n",
        "table.csv.2": "my next\n",
        "table.csv.3": "my last\n",
    }


@pytest.mark.parametrize("method", ["move", "remove"])
def test_a_kill_while_files_are_set_aside_loses_none(
    opened: MakeContext, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    run(opened())
    file(opened(), "kept/table.csv").write_text("my own\n")
    with monkeypatch.context() as patch:
        patch.setattr(Storage, method, killed)
        with pytest.raises(KeyboardInterrupt):
            run(opened())
    assert run(opened())[0] == ["WritesTable"]
    assert file(opened(), "aside/kept/table.csv").read_text() == "my own\n"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_marker_that_is_damaged_is_none(opened: MakeContext, damage: str) -> None:
    _, first = run(opened())
    DAMAGES[damage](file(opened(), "jobs/sum.json"))
    ran, outputs = run(opened())
    assert ran == ["Add"]
    assert outputs == first


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}", b"[]", b'{"seed": 5}', b'{"a": {}}'])
def test_costs_that_are_damaged_are_made_anew(opened: MakeContext, content: bytes | None) -> None:
    run(opened())
    path = file(opened(), "costs.json")
    before = json.loads(path.read_text())
    path.unlink() if content is None else path.write_bytes(content)
    here = opened()
    assert run(here)[0] == []
    assert json.loads(path.read_text()) == before
    assert "costs.json is damaged or gone: it is made anew" in said(here)


def test_a_kill_behind_a_marker_does_not_lose_what_the_job_cost(
    opened: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Storage.write_sealed

    def killed(storage: Storage, path: str, value: dict[str, Any]) -> None:
        if path.endswith("costs.json") and "sum" in value:
            raise KeyboardInterrupt
        write(storage, path, value)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write_sealed", killed)
        with pytest.raises(KeyboardInterrupt):
            run(opened())
    here = opened()
    assert run(here)[0] == ["WritesTable", "ReadsTable"]
    assert "made anew" not in said(here)
    assert set(json.loads(file(here, "costs.json").read_text())) == {
        *("seed", "seven", "sum", "table", "total", "checksum")
    }


def test_damaged_costs_never_lose_the_work_of_a_job(opened: MakeContext) -> None:
    run(opened())
    file(opened(), "costs.json").write_bytes(b"\xff\xff")
    file(opened(), "jobs/total.json").unlink()
    assert run(opened())[0] == ["ReadsTable"]
    assert run(opened())[0] == []
    assert set(json.loads(file(opened(), "costs.json").read_text())) == {
        *("seed", "seven", "sum", "table", "total", "checksum")
    }


def test_a_file_that_turns_out_to_be_damaged_is_made_by_its_job(opened: MakeContext) -> None:
    """As where it is damaged after the job that wrote it was looked at."""
    workflow = load_workflow(
        {
            "jobs": [
                job("seed", "Seed"),
                job("table", "WritesTable", left="seed"),
                job("spoiled", "SpoilsOnce", left="seed"),
                job("total", "ReadsTable", table="table"),
            ]
        }
    )
    here = opened(pools={"seed": 3})
    ran, outputs = run(here, workflow)
    assert ran == ["Seed", "WritesTable", "SpoilsOnce", "ReadsTable", "WritesTable", "ReadsTable"]
    assert outputs["total"] == number(3)
    assert "table.csv is damaged" in said(here)


def test_what_is_damaged_again_and_again_is_said(opened: MakeContext) -> None:
    workflow = load_workflow(
        {"jobs": [job("seed", "Seed"), job("always", "AlwaysDamaged", left="seed")]}
    )
    with pytest.raises(Damaged, match=r"always\.csv is damaged: .*; remove it and run"):
        run(opened(), workflow)
    assert RAN == ["Seed", "AlwaysDamaged", "AlwaysDamaged"]


def test_jobs_that_write_the_same_file_do_not_redo_each_other(opened: MakeContext) -> None:
    workflow = load_workflow(
        {
            "jobs": [
                job("seed", "Seed"),
                job("a", "Double", left="seed"),
                job("b", "Double", left="a"),
            ]
        }
    )
    assert run(opened(), workflow)[0] == ["Seed", "Double", "Double"]
    assert run(opened(), workflow)[0] == []
    file(opened(), "Double.json").unlink()
    assert run(opened(), workflow)[0] == ["Double"], "the last one has it"


def test_a_marker_of_an_earlier_version_counts_while_its_files_are_there(
    opened: MakeContext,
) -> None:
    run(opened())
    path = "runs/test/jobs/table.json"
    marker = opened().storage.read_sealed(path)
    old = {key: marker[key] for key in ("artifact", "seconds", "output")}
    opened().storage.write_json(path, old)
    assert run(opened())[0] == []
    file(opened(), "elsewhere.json").unlink()
    assert run(opened())[0] == ["WritesTable"]


def test_what_a_hook_says_of_files_elsewhere_counts(opened: MakeContext) -> None:
    workflow = load_workflow({"jobs": [job("seed", "Seed"), job("shared", "Shares", left="seed")]})
    run(opened(), workflow)
    assert run(opened(), workflow)[0] == []
    opened().storage.remove("models/shared.json")
    here = opened()
    assert run(here, workflow)[0] == ["Shares"]
    assert "models/shared.json is not there" in said(here)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_whose_state_is_damaged_starts(storage: Storage, damage: str) -> None:
    path = "runs/test/run.json"
    storage.write_sealed(path, {"state": "COMPLETED", "process": None})
    DAMAGES[damage](Path(storage.uri(path)))
    with alone(storage, "test"):
        pass


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"tracking: 5", b"tracking: {type: no}", None]
)
def test_a_configuration_that_is_damaged_is_named(storage: Storage, content: bytes | None) -> None:
    storage.write_bytes("runs/test/config.yaml", content or b"")
    storage.write_json("runs/test/run.json", {"state": "COMPLETED"})
    if content is None:
        storage.remove("runs/test/config.yaml")
    with pytest.raises(BadInput, match=r"config\.yaml is damaged.*--uri|no run 'test'"):
        sync_run("test", storage.url, None)


@pytest.mark.parametrize("damage", DAMAGES)
def test_pools_that_are_damaged_are_not_exported(storage: Storage, damage: str) -> None:
    made = pools([pool("text_len/low", size=3)], assignments="runs/test/assignments.parquet")
    columns = {"row_id": range(6), made.pools[0].column: [made.pools[0].code] * 3 + [-1] * 3}
    with storage.noting() as written:
        storage.write_table(made.assignments, pa.table(columns))
    marker = {"output": as_data(made), "files": seals_to_json(written)}
    storage.write_sealed("runs/test/jobs/pools.json", marker)
    storage.write_bytes("runs/test/config.yaml", b"")
    finished = FinishedRun(storage, "test")
    assert list(finished.pool_rows("text_len/low")) == [0, 1, 2]
    DAMAGES[damage](Path(storage.uri(made.assignments)))
    with pytest.raises(Damaged, match=r"assignments\.parquet is damaged.*djsandbox run"):
        finished.pool_rows("text_len/low")
    DAMAGES[damage](Path(storage.uri("runs/test/jobs/pools.json")))
    with pytest.raises(BadInput, match=r"pools\.json is damaged|has no pool"):
        finished.pool_rows("text_len/low")
