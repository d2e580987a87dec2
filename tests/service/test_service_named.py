from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from djsandbox_ray.config import checked
from djsandbox_ray.service.shipment import named_files

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "configs" / "demo.yaml"
TINY = ROOT / "djsandbox_ray" / "trials" / "clip" / "archs" / "tiny.json"


@pytest.fixture
def document() -> dict[str, Any]:
    return {**yaml.safe_load(DEMO.read_text()), "storage": "s3://bucket/prefix"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(document: dict[str, Any]) -> tuple[list[str], list[str]]:
    return named_files(document, checked(document, "x", elsewhere=True))


@pytest.mark.parametrize("storage", ["s3://b/p", "/nfs/x", "file:///nfs/x"])
def test_the_demo_needs_nothing_else(document: dict[str, Any], storage: str) -> None:
    assert named({**document, "storage": storage}) == ([], [])


@pytest.mark.parametrize("storage", ["./sandbox", "sandbox", None])
def test_a_relative_storage_is_refused(document: dict[str, Any], storage: str | None) -> None:
    document.pop("storage")
    (line,) = named({**document, "storage": storage} if storage else document)[1]
    assert line.startswith("storage: './sandbox'" if storage is None else f"storage: {storage!r}")


def test_small_files_are_shipped_and_data_are_not(document: dict[str, Any], folder: Path) -> None:
    for name in ("flows/mine.yaml", "tiny.json", "models/clip/config.json", "demo"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TINY.read_text())
    document["workflow"] = "./flows/mine.yaml"
    document["trials"]["model"]["arch"] = "tiny.json"
    assert named(document) == (["flows/mine.yaml", "tiny.json"], [])
    document["dataset"] = {"type": "parquet", "path": "data/pairs.parquet"}
    document["evaluation"]["dataset"] = {"type": "parquet", "path": ["/e.parquet", "e.parquet"]}
    document["operators"][0] = {"image_text_similarity_filter": {"hf_clip": "models/clip"}}
    shipped, wrong = named(document)
    assert shipped == ["flows/mine.yaml", "tiny.json"]
    assert [line.split(": ")[0] for line in wrong] == [
        "dataset.path",
        "operators[0].image_text_similarity_filter.hf_clip",
        "evaluation.dataset.path[1]",
    ]


def test_the_workflow_that_one_continues_is_shipped_too(
    document: dict[str, Any], folder: Path
) -> None:
    (folder / "flows").mkdir()
    for name, after in (
        ("mine", "base"),
        ("base", "../top"),
        ("top", "single_op"),
        ("bad", "lost"),
    ):
        place = folder / ("top.yaml" if name == "top" else f"flows/{name}.yaml")
        place.write_text(f"after: {after}{'' if after == 'single_op' else '.yaml'}\njobs: []")
    document["workflow"] = "flows/mine.yaml"
    assert named(document) == (["flows/base.yaml", "flows/mine.yaml", "top.yaml"], [])
    document["workflow"] = "flows/bad.yaml"  # whoever reads it says that the other is lost
    assert named(document)[1] == []
    (folder / "top.yaml").write_text("after: ../other.yaml")
    (folder.parent / "other.yaml").write_text("jobs: []")
    document["workflow"] = "flows/mine.yaml"
    (line,) = named(document)[1]
    assert line == "workflow: '../other.yaml', which it continues, lies outside the folder"


def test_what_lies_outside_is_refused(document: dict[str, Any], folder: Path) -> None:
    (folder / "mine.yaml").write_text("{}")
    document["workflow"] = f"../{folder.name}/mine.yaml"
    assert named(document)[1] == [
        f"workflow: '../{folder.name}/mine.yaml' lies outside the working folder"
    ]


def test_settings_of_a_local_cluster_are_refused(document: dict[str, Any]) -> None:
    document["cluster"] = {"address": "10.0.0.1:6379", "cpus": 2}
    assert [line.split(": ")[0] for line in named(document)[1]] == [
        "cluster.cpus",
        "cluster.address",
    ]
    assert named({**document, "cluster": {"address": "auto"}})[1] == []
