"""The compose file against the published schema, and what the schema does not say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from compose_file import PATH, Missing, compose, filled_in

EXAMPLE = PATH.parent / ".env.example"
VARIABLES = dict(
    line.split("=", 1)
    for line in EXAMPLE.read_text().splitlines()
    if line and not line.startswith("#")
)
SECRETS = [name for name, value in VARIABLES.items() if not value]
GIVEN = {**VARIABLES, **dict.fromkeys(SECRETS, "planted")}
SERVICES = compose(GIVEN)["services"]


def _valid(path: Path) -> bool:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*command, str(path)], capture_output=True, check=False).returncode == 0


def test_it_follows_the_published_schema(tmp_path: Path) -> None:
    assert _valid(PATH)
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(PATH.read_text().replace("healthcheck:", "health:", 1))
    assert not _valid(wrong)


@pytest.mark.parametrize("name", SECRETS)
def test_a_password_must_be_given(name: str) -> None:
    with pytest.raises(Missing, match=name):
        compose({**GIVEN, name: ""})


def test_no_password_stands_in_the_file() -> None:
    assert {"RAY_AUTH_TOKEN", "POSTGRES_PASSWORD", "GRAFANA_PASSWORD"} <= set(SECRETS)
    named = re.findall(r"(?i)\w*(?:password|secret|token)\w*: (.*)", PATH.read_text())
    assert len(named) == 7
    assert all(value.startswith("${") for value in named)
    # Commands are seen by everybody on the machine.
    assert not [name for name, item in SERVICES.items() if "planted" in str(item.get("command"))]


def test_the_example_names_what_the_file_reads() -> None:
    assert set(VARIABLES) <= set(re.findall(r"\$\{(\w+)", PATH.read_text()))


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_on_the_loopback(name: str) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "buckets"])
def test_services_tell_whether_they_are_well(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert SERVICES[name]["restart"] == "unless-stopped"
    for other, needed in SERVICES[name].get("depends_on", {}).items():
        done = "service_completed_successfully" if other == "buckets" else "service_healthy"
        assert needed == {"condition": done}


def test_images_have_versions_and_mounts_are_there() -> None:
    volumes = compose(GIVEN)["volumes"]
    for item in SERVICES.values():
        assert re.search(r":[\w.-]*\d[\w.-]*$", item["image"])
        for mount in item.get("volumes", ()):
            source = mount.split(":")[0]
            there = (PATH.parent / source).exists() if source.startswith(".") else None
            assert source in volumes if there is None else there, mount


def _bytes(size: str) -> int:
    return int(size.removesuffix("g")) * 2**30


@pytest.mark.parametrize("left_out", ["nothing", "WORKER_"])
def test_the_object_store_fits_into_shared_memory(left_out: str) -> None:
    given = {name: value for name, value in GIVEN.items() if not name.startswith(left_out)}
    services = compose(given)["services"].values()
    nodes = [item for item in services if item.get("command", [])[:2] == ["ray", "start"]]
    assert len(nodes) == 3
    for item in nodes:
        (store,) = re.findall(r"--object-store-memory=(\d+)", " ".join(item["command"]))
        assert 0.8 < int(store) / _bytes(item["shm_size"]) < 0.95


def test_what_nodes_keep_lies_in_rays_folder() -> None:
    kept = re.findall(r"DJSANDBOX_\w+: (\S+)", PATH.read_text())
    assert len(kept) == 2
    assert all(folder.startswith("/tmp/ray/") for folder in kept)


def test_variables_are_filled_in_as_compose_does() -> None:
    text = "${A}/${B:-b}/${C:?must be}"
    assert filled_in(text, {"A": "1", "B": "", "C": "3"}) == "1/b/3"
    with pytest.raises(Missing, match="C"):
        filled_in(text, {"A": "1"})
