"""What is checked and said here before a cluster is asked."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, cast

import pytest

from djsandbox_ray.errors import BadInput
from djsandbox_ray.service.cluster_jobs import ClusterJobs
from djsandbox_ray.service.submit import prepare, shown, submit_run

DEMO = str(Path(__file__).resolve().parents[2] / "configs" / "demo.yaml")
SMALL = ["dataset={type: parquet, path: /nfs/a.parquet}", "pools.size=60"]
"""Of data that are not here, the configuration itself says how many rows a pool has."""


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize("desk_says", [None, "http://127.0.0.1:1", "no address"])
def test_a_server_that_the_nodes_know_need_not_be_known_here(
    monkeypatch: pytest.MonkeyPatch, desk_says: str | None
) -> None:
    if desk_says is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", desk_says)
    nodes = "as MLFLOW_TRACKING_URI of the nodes says"
    assert prepare(DEMO, (), "s3://bucket/runs").tracking == nodes
    assert prepare(DEMO, (), "/nfs/runs").tracking.startswith(f"{nodes}, or else mlflow.db")


def test_a_tracker_that_is_named_is_checked_here() -> None:
    uri = "http://me:planted@mlflow:5000"
    named = prepare(DEMO, [f"tracking.uri={uri}"], "s3://bucket/runs")
    assert named.tracking == "http://***@mlflow:5000"
    assert prepare(DEMO, ["tracking.type=none"], "s3://bucket/runs").tracking == ""
    with pytest.raises(BadInput, match=r"tracking\.uri: .*no address"):
        prepare(DEMO, ["tracking.uri=nowhere"], "s3://bucket/runs")


def test_all_that_is_wrong_is_found_as_for_a_run_here() -> None:
    """But for data, models and packages, which the nodes have."""
    lost = ["dataset={type: parquet, path: /no/such.parquet}"]
    assert prepare(DEMO, lost, "/nfs/runs").config.dataset.type == "parquet"
    jobs = "workflow={jobs: [{id: dataset, hook: nosuch}]}"
    with pytest.raises(BadInput) as caught:
        prepare(DEMO, ["pools.buckets=1", jobs], "/nfs/runs")
    assert [line.split(": ")[0] for line in str(caught.value).split("\n")] == [
        DEMO,
        "  pools.buckets",
        "workflow of the configuration:",
        "  job 'dataset', jobs[0].hook",
    ]
    with pytest.raises(BadInput) as caught:
        prepare(DEMO, [jobs, "cluster.cpus=2", "cluster.dashboard=true"], "./here")
    assert [line.split(": ")[0] for line in str(caught.value).split("\n")] == [
        DEMO,
        "  storage",
        "  cluster.cpus",
        "  cluster.dashboard",
        "  workflow of the configuration:",
        "    job 'dataset', jobs[0].hook",
    ]


def test_a_draw_that_is_too_small_is_found_before_anything_is_shipped() -> None:
    with pytest.raises(BadInput, match=r"cannot run on a cluster\n  trials.model: a batch holds"):
        prepare(DEMO, [*SMALL, "trials.model.batch_size=31"], "/nfs/runs")
    assert prepare(DEMO, [*SMALL, "trials.model.batch_size=30"], "/nfs/runs")


class Taking:
    """What :func:`submit_run` asks of a cluster: one that takes every run."""

    shown = "http://here"

    def __init__(self) -> None:
        self.client, self.given = self, dict[str, Any]()

    def running(self, run: str, storage: str) -> None:
        return None

    def submit_job(self, **given: Any) -> str:
        self.given = given
        return str(given["submission_id"])

    def get(self, key: str) -> str:
        return key


def submitted() -> tuple[str, str]:
    """Return who has a job, by its record and by the environment that it runs in."""
    cluster = Taking()
    words = ["djsandbox", "submit", DEMO]
    submit_run(cast(ClusterJobs, cluster), prepare(DEMO, (), "/nfs/runs"), words, lambda _: None)
    variables = cluster.given["runtime_env"]["env_vars"]
    return cluster.given["metadata"]["user"], variables["DJSANDBOX_USER"]


def test_a_job_runs_in_the_name_of_who_submits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.delenv("DJSANDBOX_USER", raising=False)
    monkeypatch.setenv("LOGNAME", "grace")
    assert submitted() == ("grace", "grace")

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert submitted() == ("unknown", "unknown")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("dataset.api_key=sk-planted", "dataset.api_key=***"),
        ("db.password=12345", "db.password=***"),
        ("hosts[0].hf_token=planted", "hosts[0].hf_token=***"),
        ("api_key.0=planted", "api_key.0=***"),
        ("dataset={type: mine, api_key: planted}", "dataset=***"),
        ("dataset.path=[s3://id:planted@bucket/x]", "dataset.path=***"),
        ("tracking.uri=http://me:planted@host", "tracking.uri=http://***@host"),
        ("dataset={type: shapes, samples: 3}", "dataset={type: shapes, samples: 3}"),
        ("dataset.text_key=caption", "dataset.text_key=caption"),
        ("trials.seeds=5", "trials.seeds=5"),
    ],
)
def test_what_is_set_is_masked_as_in_a_configuration(override: str, expected: str) -> None:
    words = ["djsandbox", "submit", "x.yaml"]
    assert shlex.split(shown([*words, "--set", override])) == [*words, "--set", expected]
    assert shlex.split(shown([*words, f"--set={override}"])) == [*words, f"--set={expected}"]


def test_the_rest_of_a_command_stays_but_for_addresses() -> None:
    words = [
        "djsandbox",
        "submit",
        "my runs.yaml",
        "--storage",
        "s3://id:planted@b/p",
        "--no-follow",
    ]
    assert shlex.split(shown(words)) == [*words[:4], "s3://***@b/p", "--no-follow"]
