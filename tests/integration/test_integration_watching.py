"""A real run, scraped by a real Prometheus: metrics, the dashboard's expressions, events, logs."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import read_events, wait_until
from machines import machines
from PIL import Image
from prometheus_server import Prometheus, binary, prometheus
from small_runs import SMALL, said, write

from djsandbox_ray.storage.store import Storage

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

HERE = Path(__file__).parent
CLUSTER = HERE.parents[1] / "cluster"
REJECTED = 3


def _source(path: Path, rows: int, empty: int, seed: int) -> dict[str, str]:
    """Write image-text pairs, some with an empty caption; no image is in two sources."""
    picture = BytesIO()
    Image.new("RGB", (8, 8), (seed, 0, 0)).save(picture, "PNG")
    words = np.random.default_rng(seed).choice(["cat", "dog!", "??", "tree"], (rows, 9))
    texts = [" ".join(row[: 2 + index % 8]) for index, row in enumerate(words)]
    texts[:empty] = [""] * empty
    images = [picture.getvalue()] * rows
    pq.write_table(pa.table({"image": images, "text": texts}), path)
    return {"type": "parquet", "path": str(path)}


def _config(folder: Path) -> Path:
    changes = {
        "name": "watched",
        "dataset": _source(folder / "data.parquet", 600, REJECTED, 0),
        "ingest": {"max_rejected": 0.1},
        "operators": ["special_characters_filter", "text_length_filter"],
        "pools": {"controls": 5, "size": 150},
        "trials": {
            **SMALL["trials"],
            "model": {"type": "small_family:Talker"},
            "budget": 100,
            "retries": 1,
        },
        "evaluation": {
            **SMALL["evaluation"],
            "dataset": _source(folder / "more.parquet", 40, 0, 1),
        },
        "report": {},
        "tracking": {"type": "none"},
    }
    return write(folder, changes)


@dataclass(frozen=True)
class Watched:
    """A run that has ended, and the server that scraped it all the time."""

    server: Prometheus
    storage: Storage
    output: str
    actors: Counter[str]
    seen: list[str]
    """Names of datasets that Ray Data has run."""

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        return self.server.query(expression)

    def last(self, metric: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the last value of a metric, by some of its labels."""
        found = self.query(f'last_over_time({metric}{{run="watched"}}[30m])')
        return {tuple(one[label] for label in labels): value for one, value in found}

    @property
    def trials(self) -> pd.DataFrame:
        """The trials of both studies; the controls of the first are among the second's."""
        tables = [
            self.storage.read_table(f"runs/watched/{name}trials.parquet").to_pandas()
            for name in ("noise_", "")
        ]
        return pd.concat(tables, keys=["noise", "trials"])


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    binary("prometheus")
    folder = tmp_path_factory.mktemp("watched")
    with machines({"RAY_metrics_report_interval_ms": "1000"}) as nodes:
        nodes.join("node", cpus=2)
        shipped = (CLUSTER / "prometheus" / "prometheus.yml").read_text()
        assert "/tmp/ray/" in shipped
        config = folder / "prometheus.yml"
        text = shipped.replace("/tmp/ray/", f"{nodes.sessions}/").replace("10s", "1s")
        config.write_text(text.replace("30s", "1s"))
        with prometheus(config, folder) as server:
            told = {**nodes.driver, "DJSANDBOX_LOG": "json"}
            shown = said("run", str(_config(folder)), env=told, cwd=HERE.parents[1])
            actors, seen = _dashboard(nodes.dashboard)
            yield Watched(server, Storage(str(folder / "storage")), shown, actors, seen)


def _dashboard(address: str) -> tuple[Counter[str], list[str]]:
    from ray.util.state import list_actors

    actors = list_actors(address=address, detail=True, limit=1000)
    with urlopen(f"{address}/api/data/datasets/01000000", timeout=60) as answer:
        datasets = json.load(answer)["datasets"]
    return Counter(actor.repr_name for actor in actors), [one["dataset"] for one in datasets]


def test_the_states_of_trials_are_those_of_the_tables(watched: Watched) -> None:
    assert set(watched.server.targets().values()) == {"up"}
    trials = watched.trials
    assert (trials["state"] == "FAILED").any(), "the family fails on no draw: nothing is tested"
    shown = watched.last("ray_djsandbox_trials", "stage", "state")
    for stage in ("noise", "trials"):
        states = Counter(trials.loc[stage]["state"])
        for state in ("COMPLETED", "FAILED", "STOPPED", "RUNNING", "WAITING"):
            assert shown[stage, state] == states[state], (stage, state)


def test_samples_rows_and_rejections_are_counted(watched: Watched) -> None:
    trials = watched.trials
    reported = trials["samples"].fillna(0)
    own = reported.loc["trials"].sum() - reported.loc["noise"].sum()
    trained = watched.last("ray_djsandbox_trained_samples_total", "stage")
    assert trained == {("noise",): reported.loc["noise"].sum(), ("trials",): own}
    rows = 600 - REJECTED
    assert watched.last("ray_djsandbox_operator_rows_total", "operator") == {
        ("special_characters_filter",): rows,
        ("text_length_filter",): rows,
    }
    rejected = watched.last("ray_djsandbox_rejected_samples", "stage", "reason")
    assert {stage: count for (stage, _), count in rejected.items()} == {"ingest": REJECTED}
    used = watched.last("ray_djsandbox_budget_used_ratio", "stage")["trials",]
    assert used == pytest.approx(reported.loc["trials"].sum() / (100 * len(trials.loc["trials"])))
    change = watched.last("ray_djsandbox_best_change_ratio", "stage")["trials",]
    means = trials.loc["trials"].groupby(["kind", "pool"])["metric:taste"].mean()
    base = means["control"].mean()
    assert change == pytest.approx((means["bucket"].max() - base) / base)


def _targets() -> list[Any]:
    dashboard = json.loads((CLUSTER / "grafana" / "dashboard.json").read_text())
    found = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            gpus = panel["description"].startswith("Only with GPUs")
            legend = re.findall(r"{{(\w+)}}", target["legendFormat"])
            found.append(pytest.param(target["expr"], legend, gpus, id=panel["title"]))
    return found


@pytest.mark.parametrize(("expression", "legend", "needs_gpus"), _targets())
def test_every_panel_of_the_dashboard_shows_something(
    watched: Watched, expression: str, legend: list[str], needs_gpus: bool
) -> None:
    bare = expression.replace("$run", ".*").replace("$window", "30m")
    assert "$" not in bare
    # The driver has ended, and its gauges with it: somewhere in these minutes there was a value.
    asked = f"last_over_time(({bare})[30m:1s])"
    if needs_gpus:
        assert watched.query(asked) == []
        return
    found = wait_until(lambda: watched.query(asked), expression, pause=0.5)
    names = [tuple(labels.get(name, "") for name in legend) for labels, _ in found]
    assert all(map(all, names)), f"{legend} are no labels of {found}"
    assert len(set(names)) == len(names), "two series of one name"


def test_the_config_of_prometheus_is_valid() -> None:
    command = [binary("promtool"), "check", "config", str(CLUSTER / "prometheus/prometheus.yml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_events_tell_the_run_in_order(watched: Watched) -> None:
    events = read_events(watched.storage, "watched")
    names = [one["event"] for one in events]
    assert (names[0], names[-1]) == ("run_begun", "run_done")
    assert [one["time"] for one in events] == sorted(one["time"] for one in events)
    jobs = [one["stage"] for one in events if one["event"] == "job_begun"]
    assert jobs.index("noise") < jobs.index("trials") < jobs.index("ranking")
    done = [one["stage"] for one in events if one["event"] == "job_done"]
    assert done == jobs
    assert names.count("samples_rejected") == 1
    finished = watched.trials.query("state == 'COMPLETED'")["trial"].nunique()
    assert names.count("trial_finished") == finished
    assert names.count("trial_rung") == 2 * finished
    for record in finished_trials(watched):
        own = [one["event"] for one in events if one["details"].get("trial") == record]
        assert own == ["trial_started", "trial_rung", "trial_rung", "trial_finished"]
    lines = [line for line in watched.output.splitlines() if line.startswith('{"time"')]
    assert [json.loads(line) for line in lines] == events


def finished_trials(watched: Watched) -> list[str]:
    trials = watched.trials
    return sorted(set(trials[trials["state"] == "COMPLETED"]["trial"]))


def test_a_failure_is_told_without_opening_a_workers_file(watched: Watched) -> None:
    events = read_events(watched.storage, "watched")
    failed = [one for one in events if one["event"] == "trial_failed"]
    retried = [one for one in events if one["event"] == "trial_retried"]
    assert failed
    assert len(retried) == len(failed)
    for one in failed:
        details = one["details"]
        assert (one["level"], one["seed"]) == ("error", 1)
        assert details["error"] == "KeyError: 'no such thing'"
        assert re.fullmatch(r"node [\d.]+ \(pid \d+\)", details["place"])
        assert 'raise KeyError("no such thing")' in details["traceback"]
        assert set(details["output"]) == {
            "seed 1 on rank 0",
            "a child process says hello",
            "it will end badly: token=***",
        }
        log = watched.storage.read_bytes(details["log"]).decode()
        assert log.count('raise KeyError("no such thing")') == 2, "both attempts are in it"
        assert "PLANTED" not in log
        said = f"{one['pool']} seed 1 FAILED on {details['place']}: {details['error']}"
        assert said in watched.output


def test_every_trial_has_its_own_log(watched: Watched) -> None:
    for trial in finished_trials(watched):
        log = watched.storage.read_bytes(f"runs/watched/logs/trials/{trial}.log").decode()
        assert log.count("BEGUN: watched/") == 1
        assert log.count("a child process says hello") == 1
        assert re.findall(r"(\d+) samples: loss [\d.]+, \{'taste'", log) == ["50", "100"]


def test_the_dashboard_names_who_works_at_what(watched: Watched) -> None:
    assert {"Trial(watched/noise)", "Trial(watched/trials)"} <= watched.actors.keys()
    stems = {re.sub(r"_[A-Za-z0-9]+_\d+$", "", name) for name in watched.seen}
    assert {"write_shard", "add_row_ids", "statistics"} <= stems
