"""The manifests against Kubernetes' own schemas and KubeRay's API, and what neither says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kuberay_schema import RayCluster, RayJob
from pydantic import BaseModel, ValidationError
from typer.testing import CliRunner

from djsandbox_ray.cli import app
from djsandbox_ray.config import load_config
from djsandbox_ray.outside import environment as node
from djsandbox_ray.storage import cache

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster" / "kuberay"
VERSION = "1.31"
KINDS: dict[str, type[BaseModel]] = {"RayCluster": RayCluster, "RayJob": RayJob}


def _documents() -> list[dict[str, Any]]:
    files = sorted(FOLDER.glob("*.yaml"))
    return [found for path in files for found in yaml.safe_load_all(path.read_text())]


DOCUMENTS = _documents()


def _one(kind: str) -> dict[str, Any]:
    (found,) = (document for document in DOCUMENTS if document["kind"] == kind)
    return found


def _ray_templates(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    groups = {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"], **groups}


def _templates() -> dict[str, dict[str, Any]]:
    """Return every pod template, by where it stands."""
    job = _one("RayJob")["spec"]
    found = {"submitter": job["submitterPodTemplate"], **_ray_templates(job["rayClusterSpec"])}
    for document in DOCUMENTS:
        if document["kind"] in ("Deployment", "StatefulSet"):
            found[document["metadata"]["name"]] = document["spec"]["template"]
    return found


TEMPLATES = _templates()


def _validate(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda d: f"{d['kind']}-{d['metadata']['name']}"
)
def test_documents_follow_their_schema(document: dict[str, Any]) -> None:
    if document["kind"] in KINDS:
        KINDS[document["kind"]].model_validate(document)
    else:
        _validate(document)


@pytest.mark.parametrize("name", TEMPLATES)
def test_pods_follow_their_schema_and_have_no_rights(name: str) -> None:
    template = TEMPLATES[name]
    _validate({"apiVersion": "v1", "kind": "PodTemplate", "template": template})
    assert template["spec"]["securityContext"]["runAsUser"] > 0
    for container in template["spec"]["containers"]:
        own = container["securityContext"]
        assert own["runAsNonRoot"]
        assert not own["allowPrivilegeEscalation"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["limits"]["memory"]
        assert re.search(r":\d[\w.-]*$", container["image"]), "an image of some version"
        mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
        claimed = {"data"} if name == "mlflow-postgres" else set()
        assert (
            mounted == {volume["name"] for volume in template["spec"].get("volumes", ())} | claimed
        )


def test_mistakes_are_found() -> None:
    pod = {"apiVersion": "v1", "kind": "PodTemplate", "template": TEMPLATES["head"]}
    wrong = yaml.safe_load(yaml.safe_dump(pod).replace("containerPort", "containerport"))
    with pytest.raises(kubernetes_validate.ValidationError):
        _validate(wrong)
    cluster = yaml.safe_dump(_one("RayCluster"), default_flow_style=False)
    for old, new in (("num-cpus: '0'", "num-cpus: 0"), ("minReplicas", "minReplica")):
        assert old in cluster
        with pytest.raises(ValidationError):
            RayCluster.model_validate(yaml.safe_load(cluster.replace(old, new)))


def test_the_job_has_the_cluster_that_is_shown_by_itself() -> None:
    assert _one("RayJob")["spec"]["rayClusterSpec"] == _one("RayCluster")["spec"]


@pytest.mark.parametrize("name", ["head", "cpu", "gpu"])
def test_a_node_keeps_its_files_where_they_are_meant_to_be(name: str) -> None:
    spec = _one("RayCluster")["spec"]
    groups = {"head": spec["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    pod = groups[name]["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume.get("emptyDir", {}) for volume in pod["volumes"]}
    places = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    # Else Ray puts its objects on disk.
    shared = int(places["/dev/shm"]["sizeLimit"].removesuffix("Gi")) * 2**30
    store = int(groups[name]["rayStartParams"]["object-store-memory"])
    assert 0.8 < store / shared < 0.95
    environment = {one["name"]: one["value"] for one in container["env"]}
    for variable in (cache.FOLDER, node.FOLDER):
        assert places[environment[variable].rpartition("/")[0]]["sizeLimit"], variable


def test_gpu_nodes_come_only_when_asked_for() -> None:
    spec = _one("RayCluster")["spec"]
    assert spec["enableInTreeAutoscaling"]
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert (groups["gpu"]["replicas"], groups["gpu"]["minReplicas"]) == (0, 0)
    (container,) = groups["gpu"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_versions_are_those_of_the_requirements() -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if "==" in line
    )
    assert _one("RayCluster")["spec"]["rayVersion"] == pins["ray"]


def test_every_node_gets_storage_and_mlflow() -> None:
    for template in _ray_templates(_one("RayCluster")["spec"]).values():
        (container,) = template["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "djsandbox-storage"}}]
        values = {item["name"]: item.get("value") for item in container["env"]}
        assert values["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    (service,) = (
        d for d in DOCUMENTS if d["kind"] == "Service" and d["metadata"]["name"] == "mlflow"
    )
    assert service["spec"]["ports"][0]["port"] == 5000


def test_the_entrypoint_is_understood(tmp_path: Path) -> None:
    (head,) = TEMPLATES["head"]["spec"]["containers"]
    (folder,) = (m["mountPath"] for m in head["volumeMounts"] if m["name"] == "config")
    for name, text in _one("ConfigMap")["data"].items():
        (tmp_path / name).write_text(text)
    program, *words = shlex.split(_one("RayJob")["spec"]["entrypoint"])
    assert (program, words[0]) == ("djsandbox", "run")
    words = [word.replace(folder, str(tmp_path)) for word in words]
    config = load_config(words[1], storage=words[words.index("--storage") + 1])
    assert config.storage.startswith("s3://")
    # A plan of it, with another storage: there is no bucket here.
    planned = ["plan", words[1], "--storage", str(tmp_path / "sandbox")]
    result = CliRunner().invoke(app, planned, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_selectors_find_the_pods() -> None:
    labels = [template["metadata"]["labels"] for template in TEMPLATES.values()]
    label = "app.kubernetes.io/name"
    known = {some[label] for some in labels} | {"kuberay-operator", "prometheus"}
    for document in DOCUMENTS:
        if document["kind"] == "NetworkPolicy":
            asked = re.findall(rf"{label}: (\S+)", yaml.safe_dump(document["spec"]))
            assert asked
            assert set(asked) <= known
        if document["kind"] == "Service":
            assert document["spec"]["selector"][label] in known
    guarded = {d["metadata"]["name"] for d in DOCUMENTS if d["kind"] == "NetworkPolicy"}
    assert guarded == {some[label] for some in labels}
