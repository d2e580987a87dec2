"""What is checked before a run starts anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from djsandbox_ray.config import load_config
from djsandbox_ray.errors import BadInput
from djsandbox_ray.workflows.run import run_sandbox

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"


def test_missing_data_is_found_in_all_sources_at_once(tmp_path: Path) -> None:
    document: dict[str, Any] = yaml.safe_load(DEMO.read_text())
    document["storage"] = str(tmp_path / "storage")
    document["dataset"] = {"type": "parquet", "path": str(tmp_path / "no.parquet")}
    document["scorer"]["dataset"] = {"type": "webdataset", "path": str(tmp_path / "*.tar")}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(BadInput) as caught:
        run_sandbox(load_config(str(path)), Console(quiet=True))
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["dataset", "scorer.dataset"]
    assert not (tmp_path / "storage").exists()
