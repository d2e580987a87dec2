"""A secret in a configuration is refused where files repeat it, and masked where it is shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from djsandbox_ray.config import load_config
from djsandbox_ray.errors import BadInput

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"


@pytest.mark.parametrize(
    "parameters",
    [{"hf_clip": "s3://id:planted@bucket/clip"}, {"hf_clip": "https://host/clip?token=planted"}],
)
def test_a_secret_among_the_parameters_of_an_operator_is_refused(
    tmp_path: Path, parameters: dict[str, str]
) -> None:
    document = yaml.safe_load(DEMO.read_text())
    document["operators"] = ["text_length_filter", {"image_text_similarity_filter": parameters}]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(BadInput, match=r"operators\[1\].*hf_clip: holds a secret") as caught:
        load_config(str(path))
    assert "planted" not in str(caught.value)


def test_what_the_program_says_of_an_error_holds_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(DEMO.read_text())
    there = tmp_path / "id:planted@x" / "data?token=planted.parquet"
    command = [sys.executable, "-m", "djsandbox_ray", "plan", str(path)]
    command += ["--set", f"dataset={{type: parquet, path: 'file://{there}'}}"]
    command += ["--set", "tracking.uri=ftp://me:planted@there"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "ftp://***@there" in done.stderr
    assert "planted" not in done.stdout + done.stderr
