from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from factories import minimal_document, wait_until
from machines import machines
from ray.job_submission import JobSubmissionClient
from small_runs import environment

from djsandbox_ray.config import checked
from djsandbox_ray.errors import BadInput
from djsandbox_ray.nodes.connection import (
    OFFLINE,
    capacities,
    check_placeable,
    go_online,
    is_online,
    node_resources,
    prepare_environment,
    slots,
    waited_for,
)
from djsandbox_ray.storage.filesystems import filesystem


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
    # What is free is known with a delay.
    wait_until(lambda: waited_for([{"CPU": 1}]) == "1 CPUs (0.5 free)", "what is free")
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


OWN = """
from urllib.request import urlopen
import os
os.environ.pop("RAY_ADDRESS", None)
from djsandbox_ray.errors import BadInput
from djsandbox_ray.nodes.connection import connect
for given in ({"cpus": 2}, {"dashboard": True}):
    try:
        connect("127.0.0.1:1", **given)
    except BadInput as error:
        print(error)
address = connect(cpus=1, dashboard=True)
print("dashboard", urlopen(f"{address}/api/version").status, address.startswith("http://127.0.0.1:"))
print("again", connect(dashboard=True))
"""


@pytest.mark.slow
def test_a_local_cluster_has_a_dashboard_where_it_is_asked_for() -> None:
    own = environment(RAY_AUTH_MODE="disabled")
    done = subprocess.run(
        [sys.executable, "-c", OWN], env=own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for key in ("cpus", "dashboard"):
        assert f"cluster.{key} is for a new local cluster, not for the one at" in done.stdout
    assert "dashboard 200 True" in done.stdout
    assert "again None" in done.stdout


@pytest.mark.slow
def test_what_the_own_ray_job_reserves_is_never_free(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    with machines(cpus=2) as cluster:
        client = JobSubmissionClient(cluster.dashboard)
        job = client.submit_job(
            entrypoint=f"{sys.executable} {tmp_path}/job.py", entrypoint_num_cpus=1.5
        )
        wait_until(lambda: client.get_job_status(job).is_terminal(), "the end of the job")
        printed = client.get_job_logs(job)
    assert "capacity [0.5] 1" in printed
    assert "asks for 1 x (1 CPU) at once" in printed
    assert "beside the 1 x (1.5 CPUs) of this job's own entrypoint: 1 x (0.5 CPUs)" in printed


def test_the_hub_is_asked_only_where_the_configuration_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv(OFFLINE, raising=False)
    assert not is_online()
    prepare_environment()
    assert os.environ[OFFLINE] == "1"
    with pytest.raises(BadInput, match=r"hub is not asked unless .*cluster: \{online: true\}"):
        filesystem("hf://datasets/a/b/c.parquet")
    document = minimal_document(cluster={"online": True})
    assert checked(document, "test").cluster.online
    assert is_online()
    assert not constants.HF_HUB_OFFLINE
    monkeypatch.setenv(OFFLINE, "1")
    go_online()
    assert os.environ[OFFLINE] == "0"
