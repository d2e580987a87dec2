"""The whole service on one machine: several nodes, S3, MLflow on PostgreSQL, Prometheus.

The demo is submitted; one node dies as in a power cut; the job is stopped; the same command
finishes it. What it decides must be what a plain local run decides.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import pytest
from factories import wait_until
from machines import Machines, machines
from mlflow_server import client, mlflow_server
from postgres_server import postgres_server
from prometheus_server import Prometheus, prometheus
from s3_server import S3Server, s3_server, variables
from screens import dashboard_picture, picture
from small_runs import ROOT, mlflow_runs, said

from djsandbox_ray.storage.store import Storage

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(5400)]

MLFLOW_PASSWORD = "planted-mlflow-password-7c41"
"""Given with ``--set``, so that driver, trials and the job's record could show it."""
LEFT_BY_LIBRARIES = {".cache", ".config", ".local", ".triton", ".nv", ".data-juicer"}
"""What may lie in a home folder: caches of the libraries that the workers import."""


@dataclass(frozen=True)
class Service:
    """Everything that runs, and how the demo went on it."""

    nodes: Machines
    s3: S3Server
    mlflow: str
    prometheus: Prometheus
    secrets: list[str]
    said: dict[str, str]
    """What each command printed."""
    storage: Storage
    repository: tuple[str, str]
    """What git says of the checkout before and after."""


def _djsandbox(*words: str) -> str:
    return said(*words, cwd=ROOT)


def _checkout() -> str:
    command = ["git", "status", "--porcelain", "--ignored"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    by_tests = ("__pycache__", ".hypothesis", ".pytest_cache")
    return "\n".join(line for line in lines.splitlines() if not any(n in line for n in by_tests))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with ExitStack() as stack:
        s3 = stack.enter_context(s3_server(folder))
        database = stack.enter_context(postgres_server())
        mlflow = stack.enter_context(mlflow_server(folder, store=database.store))
        nodes = stack.enter_context(machines(s3.environment))
        scraping = stack.enter_context(prometheus(_scrape_config(nodes, folder), folder))
        stack.enter_context(variables(s3.environment))
        before = _checkout()
        storage = Storage(f"{s3.url}/shared")
        said = _run_the_demo(nodes, storage, mlflow.uri)
        secrets = [MLFLOW_PASSWORD, s3.environment["AWS_SECRET_ACCESS_KEY"]]
        yield Service(
            nodes, s3, mlflow.uri, scraping, secrets, said, storage, (before, _checkout())
        )


def _scrape_config(nodes: Machines, folder: Path) -> Path:
    """Return the shipped configuration of Prometheus, for where this cluster's Ray writes."""
    shipped = (ROOT / "cluster" / "prometheus" / "prometheus.yml").read_text()
    assert "/tmp/ray/" in shipped
    path = folder / "prometheus.yml"
    path.write_text(shipped.replace("/tmp/ray/", f"{nodes.sessions}/"))
    return path


def _run_the_demo(nodes: Machines, storage: Storage, mlflow: str) -> dict[str, str]:
    """Submit, lose a node, stop, submit again; return what the commands printed."""
    nodes.join("first")
    nodes.join("second")
    at = ["--address", nodes.dashboard]
    submit = ["submit", "configs/demo.yaml", *at, "--storage", storage.url]
    # A server that knows no users lets everybody in.
    given = mlflow.replace("://", f"://someone:{MLFLOW_PASSWORD}@")
    submit += ["--set", f"tracking.uri={given}"]
    said = {"submit": _djsandbox(*submit, "--no-follow")}

    def completed() -> int:
        records = [name for name in storage.names("trials") if name.endswith(".json")]
        return sum(storage.read_json(f"trials/{name}")["state"] == "COMPLETED" for name in records)

    wait_until(lambda: completed() >= 4, "the first trials", pause=1)
    nodes.nodes["second"].kill()
    before = completed()
    wait_until(lambda: completed() >= before + 3, "trials after a node was lost", pause=1)
    said["status"] = _djsandbox("status", *at)
    said["records"] = _djsandbox("status", "--json", *at)
    said["stop"] = _djsandbox("stop", "demo", *at)
    said["state"] = storage.read_json("runs/demo/run.json")["state"]
    nodes.join("third")
    said["again"] = _djsandbox(*submit, "--follow")
    return said


def _table(service: Service, name: str) -> pd.DataFrame:
    data = service.storage.read_bytes(f"runs/demo/{name}")
    return pd.read_csv(io.BytesIO(data), index_col="pool")


def test_stopped_and_resumed(service: Service) -> None:
    assert service.said["state"] == "STOPPED"
    assert "demo" in service.said["status"]
    assert "known already" in service.said["again"]
    assert service.storage.read_json("runs/demo/run.json")["state"] == "COMPLETED"


def test_decisions_are_those_of_a_plain_local_run(service: Service, demo: Path) -> None:
    local = demo / "runs" / "demo"
    for name, verdicts in (("ranking.csv", "verdict"), ("confirmation.csv", "verdict")):
        here = pd.read_csv(local / name, index_col="pool")
        there = _table(service, name)
        assert there.index.tolist() == here.index.tolist()
        assert there[verdicts].tolist() == here[verdicts].tolist()
        numbers = here.select_dtypes("number").columns
        pd.testing.assert_frame_equal(there[numbers], here[numbers], rtol=1e-4, atol=1e-6)
    decided = _decisions(Storage(str(demo)))
    assert decided
    assert _decisions(service.storage) == decided


def _decisions(storage: Storage) -> list[Any]:
    """Return who was given up at each rung, without the last digits of the effects."""
    races = [f"runs/demo/race/{name}" for name in storage.names("runs/demo/race")]
    files = [f"{race}/{name}" for race in races for name in storage.names(race)]
    return [
        (one["samples"], one["stopped"], one["audited"], sorted(one["effects"]))
        for one in map(storage.read_json, files)
    ]


def test_mlflow_has_every_trial_once(service: Service, demo: Path) -> None:
    def counted(uri: str) -> dict[str, int]:
        mlflow = client(uri)
        names: dict[str, int] = {}
        for run in mlflow_runs(uri):
            points = sum(
                len(mlflow.get_metric_history(run.info.run_id, name))
                for name in ("retrieval/image_to_text_r5", "train/loss")
            )
            name = f"{run.data.tags.get('stage')} {run.info.run_name}"
            assert name not in names, f"{name} is there twice"
            assert run.info.status in ("FINISHED", "KILLED")
            names[name] = points
        return names

    assert counted(service.mlflow) == counted(f"sqlite:///{demo}/mlflow.db")


def test_prometheus_has_the_metrics(service: Service) -> None:
    trials = pd.read_parquet(io.BytesIO(service.storage.read_bytes("runs/demo/trials.parquet")))
    asked = 'max_over_time(ray_djsandbox_trials{stage="trials",state="COMPLETED"}[1h])'
    values = [value for _, value in service.prometheus.query(asked)]
    assert max(values) == (trials["state"] == "COMPLETED").sum()
    for name in ("trained_samples_total", "best_change_ratio", "budget_used_ratio"):
        assert service.prometheus.query(f"max_over_time(ray_djsandbox_{name}[1h])"), name


def test_nodes_wrote_nothing_but_temporary_files(service: Service) -> None:
    before, after = service.repository
    assert after == before
    for node in service.nodes.nodes.values():
        assert list(node.work.iterdir()) == [], node.name
        left = {path.name for path in node.home.iterdir()}
        assert left <= LEFT_BY_LIBRARIES, f"{node.name}: {sorted(left)}"


def test_no_secret_is_in_the_storage_or_the_logs(service: Service) -> None:
    texts = {f"said by {name}": text.encode() for name, text in service.said.items()}
    assert "tracking.uri=" in service.said["records"]  # where it would stand
    found = [path for path in service.nodes.folder.rglob("*") if path.is_file()]
    logs = [path for path in found if path.suffix in (".log", ".out", ".err")]
    assert {path.suffix for path in logs} == {".log", ".out", ".err"}
    texts |= {str(path): path.read_bytes() for path in logs}
    kept = {name: service.storage.read_bytes(name) for name in service.storage.stamps("")}
    assert {name.split("/")[0] for name in kept} >= {"datasets", "runs", "trials"}
    texts |= kept
    for secret in service.secrets:
        assert not [name for name, text in texts.items() if secret.encode() in text]


def test_pages_can_be_looked_at(service: Service, tmp_path: Path) -> None:
    """With SCREENSHOTS=FOLDER the pictures of the documentation are taken from this run."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    mlflow = client(service.mlflow)
    experiment = mlflow.get_experiment_by_name("djsandbox").experiment_id
    best = "tags.stage = 'trials' and tags.state = 'COMPLETED' and tags.seed = '0'"
    runs = mlflow.search_runs([experiment], best, max_results=6)
    compared = json.dumps([run.info.run_id for run in runs])
    graph = "&".join(
        f"g{index}.expr={quote(expression)}&g{index}.tab=0&g{index}.range_input=15m"
        for index, expression in enumerate(
            (
                'sum by (stage) (ray_djsandbox_trials{state="COMPLETED"})',
                "sum by (stage) (rate(ray_djsandbox_trained_samples_total[1m]))",
            )
        )
    )
    pages = {
        "ray_dashboard": f"{service.nodes.dashboard}/#/jobs",
        "ray_cluster": f"{service.nodes.dashboard}/#/cluster",
        "mlflow_compare": f"{service.mlflow}/#/compare-runs?runs={quote(compared)}"
        f"&experiments={quote(json.dumps([experiment]))}",
        "prometheus": f"{service.prometheus.address}/graph?{graph}",
    }
    for name, url in pages.items():
        picture(url, folder / f"{name}.png")
    if "SCREENSHOTS" in os.environ:  # it fetches packages of npm
        dashboard = json.loads((ROOT / "cluster" / "grafana" / "dashboard.json").read_text())
        dashboard_picture(service.prometheus, dashboard, folder / "grafana.png", window="1m")
