"""What is checked and said here before a cluster is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from djsandbox_ray.errors import BadInput
from djsandbox_ray.service.submit import _variables, prepare

DEMO = str(Path(__file__).resolve().parents[2] / "configs" / "demo.yaml")


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


def test_a_job_runs_in_the_name_of_who_submits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.delenv("DJSANDBOX_USER", raising=False)
    monkeypatch.setenv("LOGNAME", "grace")
    assert _variables()["DJSANDBOX_USER"] == "grace"

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert _variables()["DJSANDBOX_USER"] == "unknown"
