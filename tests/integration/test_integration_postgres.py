"""MLflow on PostgreSQL: several users, a server that is killed, a real run, and no secret of it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import lance
import pandas as pd
import psycopg2
import pytest
from factories import wait_until
from mlflow_server import MlflowServer, client, mlflow_server
from PIL import Image
from postgres_server import PostgresServer, postgres_server
from small_runs import SMALL, environment, said, write
from telling import POOLS, RUNGS, SEEDS, told

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

HERE = Path(__file__).parent
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "planted/aws+secret=key",
    "AWS_SESSION_TOKEN": "planted-session-token",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-password",
    "MLFLOW_TRACKING_TOKEN": "planted-mlflow-token",
}


@dataclass(frozen=True)
class Service:
    database: PostgresServer
    folder: Path
    """Of the MLflow server."""
    mlflow: MlflowServer


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def two_users(
    database: PostgresServer, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Two drivers of two users tell of runs of one name, while the server is killed once."""
    place = tmp_path_factory.mktemp("drivers")
    with mlflow_server(folder, store=database.store) as first:
        drivers = [_driver(place, user, first.uri) for user in ("ada", "grace")]
        runs = "SELECT count(*) FROM runs"
        wait_until(lambda: _count(database, runs) >= len(POOLS), "the first runs")
        first.kill()
    port = int(first.uri.rpartition(":")[2])
    with mlflow_server(folder, store=database.store, port=port) as second:
        for user, driver in zip(("ada", "grace"), drivers, strict=True):
            assert driver.wait() == 0, (place / f"{user}.log").read_text()
        resumed = _driver(place, "ada", second.uri)
        assert resumed.wait() == 0, (place / "ada.log").read_text()
        yield Service(database, folder, second)


def _driver(folder: Path, user: str, uri: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(HERE / "telling.py"), str(folder / user), f"of {user}", uri]
    own = {**os.environ, "MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": "planted"}
    with (folder / f"{user}.log").open("ab") as log:
        return subprocess.Popen(command, env=own, stdout=log, stderr=log)


def _count(database: PostgresServer, query: str) -> int:
    connection = psycopg2.connect(database.uri)
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return int(cursor.fetchone()[0])
    finally:
        connection.close()


def _runs(service: Service, experiment: str, wanted: str = "") -> list[Any]:
    mlflow = client(service.mlflow.uri)
    found = mlflow.get_experiment_by_name(experiment)
    assert found is not None
    assert found.artifact_location.startswith("mlflow-artifacts:")
    return list(mlflow.search_runs([found.experiment_id], wanted, max_results=1000))


@pytest.mark.parametrize("user", ["ada", "grace"])
def test_each_user_has_each_run_once(two_users: Service, user: str) -> None:
    runs = _runs(two_users, f"of {user}")
    assert {run.data.tags["mlflow.user"] for run in runs} == {user}
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.run_name == "same"
    trials = Counter((r.data.tags["pool"], r.data.tags["seed"]) for r in runs if r is not parent)
    assert trials == {(pool, str(seed)): 1 for pool in POOLS for seed in SEEDS}
    mlflow = client(two_users.mlflow.uri)
    assert len(mlflow.search_experiments()) >= 3  # with MLflow's own
    path = mlflow.download_artifacts(parent.info.run_id, "ranking.csv")
    assert "text_len/high" in Path(path).read_text()
    assert list(two_users.mlflow.artifacts.rglob("ranking.csv")), "the server holds it"


def test_charts_have_every_point_once_at_the_samples_seen(two_users: Service) -> None:
    mlflow = client(two_users.mlflow.uri)
    final = {(r.spec.pool, str(r.spec.seed)): r for r in told() if r.final}
    for run in _runs(two_users, "of ada", "tags.stage = 'trials'"):
        record = final[run.data.tags["pool"], run.data.tags["seed"]]
        for metric in ("retrieval/r5", "train/loss", "train/seconds", "evaluation/seconds"):
            history = mlflow.get_metric_history(run.info.run_id, metric)
            assert [point.step for point in history] == list(RUNGS), metric
        values = [p.value for p in mlflow.get_metric_history(run.info.run_id, "retrieval/r5")]
        assert values == [report.metrics["retrieval/r5"] for report in record.reports]


def test_runs_are_found_by_tags_and_datasets(two_users: Service) -> None:
    high = _runs(two_users, "of ada", "tags.bucket = 'high' AND tags.stage = 'trials'")
    assert [run.data.tags["pool"] for run in high] == ["text_len/high"] * len(SEEDS)
    by_hash = _runs(two_users, "of ada", "dataset.digest = 'hash-of-1'")
    assert {run.info.run_id for run in by_hash} == {run.info.run_id for run in high}
    everywhere = _runs(two_users, "of grace", "dataset.context = 'evaluation'")
    assert len(everywhere) == 1 + len(POOLS) * len(SEEDS)
    for item in high[0].inputs.dataset_inputs:
        rows = json.loads(item.dataset.profile)["num_rows"]
        assert rows == {"dataset": 900, "evaluation": 100}.get(item.dataset.name, 300)


@dataclass(frozen=True)
class Ran:
    service: Service
    folder: Path
    out: str
    ray: Path
    """Where Ray kept its own files and logs."""


@pytest.fixture(scope="module")
def ran(two_users: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """A whole run with secrets in its environment, its addresses and its errors."""
    place = tmp_path_factory.mktemp("careless")
    (place / "data").mkdir()
    _write_tar(place / "data" / "pairs.tar")
    ray = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # sockets lie in it: a short path
    own = environment(**SECRETS, RAY_TMPDIR=str(ray), HOME=str(place))
    own |= {"MLFLOW_TRACKING_USERNAME": "ada", "LINEAR_SECRET": "planted-of-anybody"}
    del own["RAY_AUTH_MODE"]
    try:
        with _http(place / "data") as port:
            data = f"http://someone:planted-data-password@127.0.0.1:{port}/pairs.tar"
            changes = {
                "name": "careless",
                "dataset": {"type": "webdataset", "path": f"{data}?token=planted-data-token"},
                "ingest": {"max_rejected": 0.2},
                "operators": ["text_length_filter"],
                "pools": {"controls": 5, "self_tests": False},
                "trials": {
                    **SMALL["trials"],
                    "model": {"type": "small_family:Careless"},
                    "retries": 0,
                },
                "report": {},
                "cluster": {"cpus": 2},
                "tracking": {
                    "type": "mlflow",
                    "uri": two_users.mlflow.uri.replace("//", "//ada:planted-in-the-uri@"),
                    "experiment": "careless",
                },
            }
            out = said("run", str(write(place, changes)), env=own, cwd=place)
        yield Ran(two_users, place, out, ray)
    finally:
        shutil.rmtree(ray)


def _write_tar(path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(path, "w") as archive:
        for number in range(400):
            buffer.seek(0)
            buffer.truncate()
            Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(buffer, "JPEG")
            image = buffer.getvalue() if number % 20 else b"broken"
            caption = f"{'word ' * (number % 17)} number {number}".encode()
            for extension, data in {"jpg": image, "txt": caption}.items():
                member = tarfile.TarInfo(f"{number:04d}.{extension}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


@contextmanager
def _http(folder: Path) -> Iterator[int]:
    """Serve a folder on loopback, as a bucket with signed addresses does."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def test_a_real_run_is_there_as_a_whole(ran: Ran) -> None:
    runs = _runs(ran.service, "careless")
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    table = pd.read_parquet(ran.folder / "storage" / "runs" / "careless" / "trials.parquet")
    assert len(runs) == 1 + len(table)
    states = Counter(run.data.tags["state"] for run in runs if run is not parent)
    assert states == Counter(table["state"])
    assert states["FAILED"] > 0, "a trial has to fail for its error to be looked at"
    names = {metric for run in runs if run is not parent for metric in run.data.metrics}
    judged = {"pool_rank", "pool_change"}
    assert names - judged == {"taste", "score", "train/loss", "train/seconds", "evaluation/seconds"}
    pools = json.loads((ran.folder / "storage" / "runs" / "careless" / "pools.json").read_text())
    by_id = {pool["id"]: pool for pool in pools["pools"]}
    for run in runs:
        inputs = {item.dataset.name: item for item in run.inputs.dataset_inputs}
        contexts = {name: item.tags[0].value for name, item in inputs.items()}
        assert contexts.pop("evaluation") == "evaluation"
        assert contexts.pop("dataset") == "training"
        if run is not parent:
            pool = by_id[run.data.tags["pool"]]
            assert contexts == {pool["id"]: "training"}
            assert inputs[pool["id"]].dataset.digest == pool["hash"]
            assert json.loads(inputs[pool["id"]].dataset.profile)["num_rows"] == pool["size"]


def test_no_secret_is_written_anywhere(ran: Ran) -> None:
    assert "planted" not in ran.out
    assert "***" in ran.out, "addresses are shown without their secrets"
    shown = (ran.folder / "storage" / "runs" / "careless" / "config.yaml").read_text()
    assert "http://***@127.0.0.1" in shown
    assert "token=***" in shown
    texts = _texts(ran.folder / "storage") | _texts(ran.service.folder) | _texts(ran.ray)
    assert any("cannot read" in text for text in texts.values()), "the errors are kept"
    assert any("samples.lance" in name for name in texts)
    assert any(name.startswith(str(ran.ray)) for name in texts)
    for name, text in {**texts, "the database": _dump(ran.service.database)}.items():
        at = text.find("planted")
        assert at < 0, (name, text[max(0, at - 200) : at + 200])


def _texts(folder: Path) -> dict[str, str]:
    """Return all that is in the files of a folder, also what is compressed, by path."""
    found = {}
    for path in folder.rglob("*"):
        if path.suffix == ".lance" and path.is_dir():
            rows = lance.dataset(str(path)).to_table(["text", "source", "meta"]).to_pylist()
            found[str(path)] = str(rows)
        elif path.suffix == ".parquet" and path.is_file():
            found[f"{path} decoded"] = pd.read_parquet(path).to_csv()
        if path.is_file():
            found[str(path)] = path.read_bytes().decode(errors="replace")
    return found


def _dump(database: PostgresServer) -> str:
    """Return all rows of all tables."""
    connection = psycopg2.connect(database.uri)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            tables = [name for (name,) in cursor.fetchall()]
            lines = []
            for table in tables:
                cursor.execute(f'SELECT * FROM "{table}"')
                lines += [str(row) for row in cursor.fetchall()]
    finally:
        connection.close()
    assert "careless" in "\n".join(lines)
    return "\n".join(lines)
