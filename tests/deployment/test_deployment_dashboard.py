"""The dashboard of Grafana against the models that Grafana publishes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_model import errors

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "cluster" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboard.json").read_text())


def test_it_is_what_grafana_knows() -> None:
    assert errors(DASHBOARD) == []


def test_its_panels_and_its_source_fit_together() -> None:
    assert DASHBOARD["schemaVersion"] >= 39
    variables = {one["name"] for one in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "run", "window"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in DASHBOARD["panels"]:
        assert {"type", "title", "gridPos"} <= panel.keys()
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"
    provisioning = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["uid"]) == ("prometheus", "prometheus")
    text = (provisioning / "dashboards/dashboards.yaml").read_text()
    providers = yaml.safe_load(text)["providers"]
    assert {provider["type"] for provider in providers} == {"file"}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("dashboard.refesh", "10s", "dashboard.refesh is unknown"),
        ("variable.type", "querry", "Input should be 'query'"),
        ("stat.type", "stats", "there is no panel stats"),
        ("stat.gridPos.w", "4", "w: Input should be a valid integer"),
        ("bargauge.fieldConfig.defaults.unit", "percentunits", "there is no unit percentunits"),
        ("timeseries.fieldConfig.defaults.custom.stacking.mode", "up", "Input should be 'none'"),
        ("timeseries.target.legend", "{{run}}", "legend is unknown"),
        ("timeseries.target.datasource.type", "promteus", "there is no data source promteus"),
    ],
)
def test_what_is_wrong_is_found(path: str, value: Any, said: str) -> None:
    wrong = copy.deepcopy(DASHBOARD)
    start, *keys, last = path.split(".")
    part = _part(wrong, start)
    for key in keys:
        part = part["targets"][0] if key == "target" else part[key]
    part[last] = value
    assert any(said in error for error in errors(wrong))


def _part(dashboard: Any, name: str) -> Any:
    """Return the dashboard, its first variable or its first panel of a type."""
    if name == "dashboard":
        return dashboard
    if name == "variable":
        return dashboard["templating"]["list"][0]
    return next(panel for panel in dashboard["panels"] if panel["type"] == name)
