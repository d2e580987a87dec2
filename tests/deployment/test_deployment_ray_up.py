"""The files for `ray up` against Ray's own schema and EC2's own parameters."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from botocore import validate
from botocore.loaders import Loader
from botocore.model import ServiceModel
from click.testing import CliRunner
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

FOLDER = Path(__file__).resolve().parents[2] / "cluster" / "ray-up"
FILES = sorted(FOLDER.glob("*.yaml"))


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_ray_accepts_it(path: Path) -> None:
    prepared = prepare_config(copy.deepcopy(_read(path)))
    validate_config(prepared)
    assert prepared["docker"]["image"] == "djsandbox-ray:0.1.0"
    # Ray's own defaults would install packages of the network's choosing.
    for key in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert prepared[key] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_mistake_is_found(path: Path) -> None:
    wrong = _read(path)
    wrong["docker"]["run_option"] = wrong["docker"].pop("run_options")
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(wrong))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_start_knows_the_options(path: Path, key: str) -> None:
    stop, command = _read(path)[key]
    assert stop == "ray stop"
    words = shlex.split(command)
    assert words[:2] == ["ray", "start"]
    assert ("--head" in words) == key.startswith("head")
    result = CliRunner().invoke(start, [*words[2:], "--help"])
    assert result.exit_code == 0, result.output
    known = set(re.findall(r"--[a-z-]+", result.output))
    assert {word.split("=")[0] for word in words[2:]} <= known
    assert not any("0.0.0.0" in word for word in words)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nobody_gets_in_without_the_token(path: Path) -> None:
    content = _read(path)
    assert "--env RAY_AUTH_MODE=token" in content["docker"]["run_options"]
    assert "~/.ray/auth_token" in content["file_mounts"]


def test_ec2_knows_every_parameter_of_a_machine() -> None:
    model = ServiceModel(Loader().load_service_model("ec2", "service-2"))
    request = model.operation_model("RunInstances").input_shape
    types = _read(FOLDER / "aws.yaml")["available_node_types"]
    for node in types.values():
        # Ray's own part; it adds the others.
        asked = {**node["node_config"], "MinCount": 1, "MaxCount": 1}
        report = validate.ParamValidator().validate(asked, request)
        assert not report.has_errors(), report.generate_report()
    assert types["head"]["resources"] == {"CPU": 0}
    assert (types["cpu"]["min_workers"], types["gpu"]["min_workers"]) == (0, 0)
