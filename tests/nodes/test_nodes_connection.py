from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import pytest
import ray
from ports import free_ports
from ray.job_submission import JobSubmissionClient

from djsandbox_ray.errors import BadInput
from djsandbox_ray.nodes.connection import (
    capacities,
    check_placeable,
    node_resources,
    slots,
    waited_for,
)


def test_what_the_cluster_has_is_found(ray_cluster: None) -> None:
    assert [node["CPU"] for node in node_resources()] == [2]
    assert capacities() == node_resources()  # no job holds anything of it
    check_placeable([{"CPU": 2, "GPU": 0}], "trials.resources")
    check_placeable([{"CPU": 1}, {"CPU": 1}], "trials.resources")
    assert slots([{"CPU": 0.5}]) == 4
    assert slots([{"CPU": 3}]) == 0


@pytest.mark.parametrize("bundles", [[{"CPU": 3}], [{"CPU": 1}] * 3, [{"CPU": 1, "GPU": 0.5}]])
def test_what_the_cluster_can_never_place_is_bad_input(
    ray_cluster: None, bundles: list[dict[str, float]]
) -> None:
    with pytest.raises(BadInput, match=r"trials\.resources asks for .* cluster do not.*2 CPUs"):
        check_placeable(bundles, "trials.resources")


@ray.remote(num_cpus=1.5)
class Holder:
    def ready(self) -> bool:
        return True


def test_what_others_hold_is_not_free_but_can_be_waited_for(ray_cluster: None) -> None:
    holder = Holder.remote()
    assert ray.get(holder.ready.remote())
    for _ in range(100):
        if waited_for([{"CPU": 1}]) == "1 CPUs (0.5 free)":
            break
        time.sleep(0.1)  # what is free is known with a delay
    assert waited_for([{"CPU": 1}, {"CPU": 1}]) == "2 CPUs (0.5 free)"
    assert waited_for([{"CPU": 1, "GPU": 0.5}]) == "1 CPUs (0.5 free) and 0.5 GPUs (0 free)"
    check_placeable([{"CPU": 2}], "trials.resources")
    ray.kill(holder)


JOB = """
from djsandbox_ray.nodes.connection import capacities, check_placeable, connect, slots
from djsandbox_ray.errors import BadInput
connect()
print("capacity", [node["CPU"] for node in capacities()], slots([{"CPU": 0.5}]))
try:
    check_placeable([{"CPU": 1}], "trials.resources")
except BadInput as error:
    print(error)
"""


@contextmanager
def cluster_with_jobs() -> Iterator[JobSubmissionClient]:
    """Run a cluster of 2 CPUs beside that of the other tests: all ports and folders are its own."""
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(Path.cwd())}
    environment.pop("RAY_ADDRESS", None)
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    command += ["--num-cpus=2", *(f"--{name}={port}" for name, port in ports.items())]
    with TemporaryDirectory() as short:  # the path of a socket is limited
        command.append(f"--temp-dir={short}")
        with Path(short, "log").open("wb") as log:
            node = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield JobSubmissionClient(when_up(f"http://127.0.0.1:{ports['dashboard-port']}"))
        finally:
            node.terminate()
            node.wait(60)


def when_up(address: str) -> str:
    for _ in range(300):
        try:
            if "ALIVE" in urlopen(f"{address}/api/v0/nodes", timeout=10).read().decode():
                return address
        except OSError:
            pass
        time.sleep(0.3)
    raise TimeoutError(address)


def test_what_the_own_ray_job_reserves_is_never_free(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    with cluster_with_jobs() as client:
        job = client.submit_job(
            entrypoint=f"{sys.executable} {tmp_path}/job.py", entrypoint_num_cpus=1.5
        )
        while not client.get_job_status(job).is_terminal():
            time.sleep(0.3)
        printed = client.get_job_logs(job)
    assert "capacity [0.5] 1" in printed
    assert "asks for 1 x (1 CPU) at once" in printed
    assert "beside the 1 x (1.5 CPUs) of this job's own entrypoint: 1 x (0.5 CPUs)" in printed
