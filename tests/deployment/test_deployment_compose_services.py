"""The commands of the compose file, started by hand on the loopback, and their health checks.

PostgreSQL and Prometheus are Debian's, moto stands in for the S3 store. Grafana and MinIO are
not to be had without an engine: their commands are not started here.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
import s3fs
from compose_file import PATH, Service
from compose_host import Host
from factories import wait_until
from mlflow_server import client
from ports import free_port
from postgres_server import postgres_server
from psycopg2 import sql
from s3_server import S3Server, s3_server

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]
TOKEN = "planted-token-0000000000000000000000000000"
PASSWORD = "planted-password"
MLFLOW_BUCKET = "models"
NODE_PORTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
)
"""What every container has for itself; the first is the port that the health check asks."""


@contextmanager
def _host(tmp_path: Path, endpoint: str) -> Iterator[Host]:
    ports = {name: str(free_port()) for name in ("gcs", "dashboard", "mlflow")}
    names = {
        "http://storage:9000": endpoint,
        "head:6379": f"127.0.0.1:{ports['gcs']}",
        "--port=6379": f"--port={ports['gcs']}",
        "8265": ports["dashboard"],
        "--port=5000": f"--port={ports['mlflow']}",
        "127.0.0.1:5000": f"127.0.0.1:{ports['mlflow']}",
        "http://mlflow:5000": f"http://127.0.0.1:{ports['mlflow']}",
        "@postgres/": "@127.0.0.1/",
        "0.0.0.0": "127.0.0.1",
    }
    variables = {
        "RAY_AUTH_TOKEN": TOKEN,
        "POSTGRES_PASSWORD": PASSWORD,
        "GRAFANA_PASSWORD": PASSWORD,
        "AWS_ACCESS_KEY_ID": "djsandbox",
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
        "MLFLOW_BUCKET": MLFLOW_BUCKET,
        "WORKER_CPUS": "1",
    }
    host = Host(tmp_path, names, variables)
    try:
        yield host
    finally:
        host.stop()


def _ray(host: Host, name: str, sessions: Path) -> Service:
    """Return a raylet of the compose file as one of several on a machine."""
    ports = {option: free_port() for option in NODE_PORTS}
    extra = [f"--{option}={port}" for option, port in ports.items()]
    extra += ["--node-ip-address=127.0.0.1", "--object-store-memory=80000000"]
    if name == "head":
        extra.append(f"--temp-dir={sessions}")
    own = {"127.0.0.1:52365": f"127.0.0.1:{ports[NODE_PORTS[0]]}", "8080": str(free_port())}
    return host.read(name, own, tuple(extra))


def _answer(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_ray_starts_for_those_with_the_token_and_prometheus_finds_its_nodes(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        # Not pytest's folder: the paths of Ray's sockets have at most 107 characters.
        short = tempfile.TemporaryDirectory(prefix="djs-", ignore_cleanup_errors=True)
        sessions = Path(stack.enter_context(short))
        host = stack.enter_context(_host(tmp_path, "http://127.0.0.1:9"))
        head, worker = _ray(host, "head", sessions), _ray(host, "worker", sessions)
        assert host.check(head).returncode != 0
        host.start("head", head)
        host.wait("head", head)
        host.start("worker", worker)
        host.wait("worker", worker)

        jobs = f"http://127.0.0.1:{host.names['8265']}/api/jobs/"
        assert _answer(jobs)[0] == 401
        assert _answer(jobs, Authorization=f"Bearer {TOKEN}") == (200, "[]")

        prometheus = _prometheus(host, sessions)
        host.start("prometheus", prometheus, "prometheus")
        host.wait("prometheus", prometheus)
        _expect_two_nodes(prometheus.health[-1].removesuffix("/-/ready"))


def _prometheus(host: Host, sessions: Path) -> Service:
    """Return the server with the configuration that compose mounts, for Ray's folder here."""
    place = host.folder / "prometheus.yml"
    text = (PATH.parent / "prometheus" / "prometheus.yml").read_text()
    assert "/tmp/ray/" in text
    place.write_text(text.replace("/tmp/ray/", f"{sessions}/"))
    port = free_port()
    own = {
        "/etc/prometheus/prometheus.yml": str(place),
        "=/prometheus": f"={host.folder / 'metrics'}",
        "127.0.0.1:9090": f"127.0.0.1:{port}",
    }
    return host.read("prometheus", own, (f"--web.listen-address=127.0.0.1:{port}",))


def _expect_two_nodes(address: str) -> None:
    def nodes_that_are_up() -> set[str]:
        _, body = _answer(f"{address}/api/v1/targets?state=active")
        targets = json.loads(body)["data"]["activeTargets"]
        nodes = [target for target in targets if target["labels"]["job"] == "ray"]
        return {target["scrapeUrl"] for target in nodes if target["health"] == "up"}

    wait_until(lambda: len(nodes_that_are_up()) >= 2, "two nodes in Prometheus", pause=0.5)


def test_mlflow_keeps_runs_in_postgresql_and_artifacts_in_the_store(tmp_path: Path) -> None:
    with ExitStack() as stack:
        store = stack.enter_context(s3_server(tmp_path))
        postgres = stack.enter_context(postgres_server())
        host = stack.enter_context(_host(tmp_path, store.endpoint))
        buckets = host.read("buckets", {})
        for _ in range(2):  # it is run at every start
            subprocess.run(buckets.command, env=host.environment(buckets), check=True)

        host.extra["PGPORT"] = urlsplit(postgres.uri).netloc.rsplit(":", 1)[1]
        database = host.read("postgres", {})
        _make_user(postgres.uri, database)
        host.wait("postgres", database)

        server = host.read("mlflow", {})
        assert host.check(server).returncode != 0
        host.start("mlflow", server)
        host.wait("mlflow", server)

        uri = host.names["http://mlflow:5000"]
        search = f"{uri}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
        # Ray's nodes call it by the name of the service; a page elsewhere must not.
        assert _answer(search, Host="mlflow:5000")[0] == 200
        assert _answer(search, Host="elsewhere.example:5000")[0] == 403
        run = _log_a_run(uri, tmp_path)
        with psycopg2.connect(postgres.uri) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT value FROM params WHERE run_uuid = %s", (run,))
            assert cursor.fetchall() == [("kept",)]
        objects = _objects(store, host, MLFLOW_BUCKET)
        assert [name for name in objects if name.endswith(f"{run}/artifacts/table.csv")]


def _make_user(uri: str, database: Service) -> None:
    """Make the user of the database, as the image does at its first start."""
    wanted = database.environment
    assert wanted["POSTGRES_DB"] == "mlflow"
    user = sql.Identifier(wanted["POSTGRES_USER"])
    with psycopg2.connect(uri) as connection, connection.cursor() as cursor:
        password = sql.Literal(wanted["POSTGRES_PASSWORD"])
        cursor.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(user, password))
        cursor.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(user))


def _log_a_run(uri: str, folder: Path) -> str:
    """Log a parameter and a file, as a client without rights to the store; returns the run's id."""
    mlflow = client(uri)
    experiment = mlflow.get_experiment_by_name("Default")
    run = mlflow.create_run(experiment.experiment_id).info.run_id
    mlflow.log_param(run, "planted", "kept")
    (folder / "table.csv").write_text("a,b\n1,2\n")
    mlflow.log_artifact(run, str(folder / "table.csv"))
    return run


def _objects(store: S3Server, host: Host, bucket: str) -> list[str]:
    system = s3fs.S3FileSystem(
        endpoint_url=store.endpoint,
        key=host.variables["AWS_ACCESS_KEY_ID"],
        secret=host.variables["AWS_SECRET_ACCESS_KEY"],
        client_kwargs={"region_name": "us-east-1"},
        skip_instance_cache=True,
    )
    return [str(path) for path in system.find(bucket)]
