"""Metrics: declared once, listed in the docs, and nothing to fear without Ray."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from djsandbox_ray.telemetry import metrics
from djsandbox_ray.telemetry.metrics import METRICS, Metric

PAGE = Path(__file__).resolve().parents[2] / "docs" / "watching.md"


@pytest.fixture
def gauge() -> Iterator[Metric]:
    yield Metric("djsandbox_test", "gauge", "things", ("stage",), "For a test.")
    metrics.label("")


def test_names_say_what_they_are_and_end_in_their_unit() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"djsandbox_[a-z_]+", metric.name)
        assert not metric.name.endswith("_total"), "Ray adds it"
        last = metric.name.rsplit("_", 1)[1]
        assert last == metric.unit.split()[0] or (metric.kind == "counter" and last in metric.unit)
        assert metric.help.endswith(".")
        assert "pool" not in metric.tags, "too many values"
        assert "trial" not in metric.tags, "too many values"
        assert not {"job", "instance"} & {*metric.tags}, "Prometheus would rename it"


def test_the_docs_list_all_of_them() -> None:
    rows = re.findall(
        r"^\| `(ray_djsandbox_\w+)` \| (\w+) \| ([^|]+) \| ([^|]*) \|", PAGE.read_text(), re.M
    )
    shown = {
        name: (kind, unit.strip(), set(re.findall(r"`(\w+)`", tags)))
        for name, kind, unit, tags in rows
    }
    assert shown == {
        metric.exported: (metric.kind, metric.unit, {"run", *metric.tags}) for metric in METRICS
    }


def test_wrong_tags_are_a_mistake_with_or_without_ray(gauge: Metric) -> None:
    with pytest.raises(TypeError, match="has the tags"):
        gauge.set(1.0)
    with pytest.raises(TypeError, match="pool"):
        gauge.set(1.0, stage="trials", pool="text_len/high")


def test_without_a_run_nothing_is_exported(gauge: Metric) -> None:
    metrics.label("")
    gauge.set(1.0, stage="trials")
    gauge.refresh()
    assert not gauge._made


def test_a_metric_that_fails_ends_nothing(
    gauge: Metric, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics, "_connected", lambda: True)
    gauge._made.append(object())  # has no method `set`
    gauge.set(1.0, stage="trials")
    assert "djsandbox_test cannot be exported" in caplog.text
