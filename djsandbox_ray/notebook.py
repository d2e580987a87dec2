"""The sandbox from Python: plan and run configurations, and look at what a run has left.

It is what ``import djsandbox_ray as dj`` gives: ``dj.plan``, ``dj.run`` and ``dj.load``, and
``dj.example``, the path of a configuration that is shipped. Tables are pandas', pictures Pillow's.
Nothing is started, read or downloaded before one of them is called.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from io import BytesIO
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image
from rich.console import Console

from djsandbox_ray.analysis.verdicts.grid import completed_metrics
from djsandbox_ray.config import read_document, replaced, with_places
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.config import EvaluationConfig
from djsandbox_ray.hooks.results import study_yardstick
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.nodes.connection import prepare_environment
from djsandbox_ray.records import (
    PoolKind,
    Pools,
    RankingRow,
    Report,
    Statistics,
    TrialRecord,
    Trials,
    TrialState,
)
from djsandbox_ray.stats.parts import StatisticColumns
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.trial_records import read_records
from djsandbox_ray.workflows.beforehand import checked_run, planned_run
from djsandbox_ray.workflows.examples import example
from djsandbox_ray.workflows.finished import FinishedRun
from djsandbox_ray.workflows.foresight.plan import check_budget, make_plan, plan_table
from djsandbox_ray.workflows.look import main_ranking, summary_of
from djsandbox_ray.workflows.run import run_sandbox

__all__ = ["Plan", "Result", "example", "load", "plan", "run"]

Configuration = str | Mapping[str, Any]
"""The path or URL of a YAML file, or what it would hold."""


class Plan(dict[str, Any]):
    """What a run would do and cost: ``djsandbox plan --json`` as plain data.

    Shown as the command shows it for people.
    """

    def __repr__(self) -> str:
        return str(plan_table(dict(self)))


class Result:
    """What a run has left in its storage; each table is read when it is asked for, and kept.

    Args:
        storage: folder or URL.
        run: its name; ``<run>/round-1`` for a later round.

    Raises:
        BadInput: there is no such run.
    """

    def __init__(self, storage: str, run: str) -> None:
        self._run = FinishedRun(Storage(storage), run)
        self._storage = self._run.storage
        self.name = run

    def __repr__(self) -> str:
        try:
            return self.summary
        except SandboxError as error:
            return str(error)

    @property
    def summary(self) -> str:
        """What was found, in one line.

        Raises:
            SandboxError: nothing was found yet.
        """
        return summary_of(self._run)

    @cached_property
    def ranking(self) -> pd.DataFrame:
        """The verdicts on the pools of single operators, one row each, the best first.

        The columns are the fields of :class:`~djsandbox_ray.records.RankingRow`, and
        ``metric:<name>`` with the mean of each metric.

        Raises:
            SandboxError: no pool was judged yet.
        """
        found = main_ranking(self._run)
        if found is None:
            raise self._lacks("ranking")
        rows = []
        for row in self._storage.read_rows(RankingRow, found.path):
            values = asdict(row)
            metrics = values.pop("metrics")
            rows.append({**values, **{f"metric:{name}": at for name, at in metrics.items()}})
        return pd.DataFrame(rows)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The trials of all studies, one row each, with the metrics of their last report.

        ``job`` names the study. ``score`` is the change against the controls of the first study:
        a fraction (0.05 is +5 %), or with ``aggregate: standardized`` in standard deviations of the
        controls; NaN where a trial was not completed.

        Raises:
            SandboxError: nothing was trained yet.
        """
        tables: list[pd.DataFrame] = []
        scores = self._scores()
        for job, trials in self._studies():
            table = self._storage.read_table(trials.trials).to_pandas()
            table.insert(0, "job", job)
            table.insert(4, "score", table["trial"].map(scores).astype(float))
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """What every trial reported at every rung, one row each; ``job`` names the study.

        Raises:
            SandboxError: nothing was trained yet.
        """
        tables: list[pd.DataFrame] = []
        for job, trials in self._studies():
            table = self._storage.read_table(trials.curves).to_pandas()
            table.insert(0, "job", job)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def statistics(self) -> pd.DataFrame:
        """The statistics of every sample, one column each, by ``row_id``; NaN where there is none.

        Raises:
            SandboxError: they are not computed yet.
        """
        found = next((one for _, one in self._run.outputs(Statistics)), None)
        if found is None:
            raise self._lacks("statistics")
        columns = StatisticColumns(self._storage, found.statistics, self._run.dataset().rows)
        return pd.DataFrame(dict(columns)).rename_axis("row_id")

    @cached_property
    def pools(self) -> pd.DataFrame:
        """The pools, controls and self-tests of all studies, one row each.

        ``job`` names the job that built them, ``low`` and ``high`` the values of the statistic that
        a pool holds; the other columns are the fields of :class:`~djsandbox_ray.records.Pool`.

        Raises:
            SandboxError: none are built yet.
        """
        rows = [
            {"job": job, **asdict(pool)}
            for job, pools in self._run.outputs(Pools)
            for pool in pools.pools
        ]
        if not rows:
            raise self._lacks("pools")
        return pd.DataFrame(rows)

    def samples(self, pool: str | None = None, n: int = 12, seed: int = 0) -> pd.DataFrame:
        """Return samples of a pool, drawn at random.

        Args:
            pool: its id, as in :attr:`pools`; None for the whole dataset.
            n: how many; fewer where the pool has fewer.
            seed: of the draw: the same one gives the same samples.

        Returns:
            By ``row_id``, in its order: ``text``; ``image``, the first one as a Pillow image or
            None; ``media``, all images and videos as they lie in the data (``kind``, ``data``);
            ``meta``; and the statistics, once they are computed.

        Raises:
            BadInput: there is no such pool, it breaks a policy, or its samples are spoilt on
                purpose; the dataset is not read yet.
        """
        dataset = self._run.dataset()
        rows = np.arange(dataset.rows) if pool is None else self._run.pool_rows(pool)
        chosen = np.random.default_rng(seed).choice(rows, min(n, len(rows)), replace=False)
        ids = np.sort(chosen)
        table = SampleTable(self._storage.uri(dataset.table))
        said = table.take(ids, ["text", "meta"])
        media = table.media(ids)
        frame = pd.DataFrame(
            {
                "text": said["text"].to_pylist(),
                "image": [_first_image(one) for one in media],
                "media": list(media),
                "meta": [json.loads(meta) for meta in said["meta"].to_pylist()],
            },
            index=pd.Index(ids, name="row_id"),
        )
        return frame.join(self.statistics) if any(self._run.outputs(Statistics)) else frame

    def figure(self) -> Image.Image:
        """Return the chart of the verdicts with their intervals.

        Raises:
            SandboxError: the run has no report yet.
        """
        return Image.open(BytesIO(self._storage.read_bytes(self._reported().figure)))

    def recipe(self) -> dict[str, Any]:
        """Return the Data-Juicer recipe as plain data.

        Raises:
            SandboxError: the run has none that may be used.
        """
        paths = [item["recipe"] for item in self._run.evidence() if item["recipe"]]
        if not paths:
            raise self._lacks("recipe that may be used")
        return dict(yaml.safe_load(self._storage.read_bytes(paths[-1])))

    def report(self) -> str:
        """Return the path or URL of the page.

        Raises:
            SandboxError: the run has no report yet.
        """
        return without_secrets(self._storage.uri(self._reported().path))

    def _reported(self) -> Report:
        found = [one for _, one in self._run.outputs(Report)]
        if not found:
            raise self._lacks("report")
        return found[-1]

    def _studies(self) -> list[tuple[str, Trials]]:
        """Return the studies with the jobs that trained them, the first one first."""
        found = list(self._run.outputs(Trials))
        if not found:
            raise self._lacks("trials")
        later = {job for job, _ in found} - {"trials"}
        return sorted(found, key=lambda item: item[0] in later)

    def _scores(self) -> dict[str, float]:
        """Return the score of every completed trial by its id; none where none can be formed."""
        section = self._run.settings().get("evaluation")
        studies = [trials for _, trials in self._studies()]
        records = [self._records(trials) for trials in studies]
        kinds = self._storage.read_table(studies[0].trials, ["pool", "kind"]).to_pylist()
        controls = {row["pool"] for row in kinds if row["kind"] == PoolKind.CONTROL}
        first = completed_metrics({(r.spec.pool, r.spec.seed): r for r in records[0]})
        if section is None or not any(pool in controls for pool, _ in first):
            return {}
        try:
            ruler = study_yardstick(first, controls, EvaluationConfig.model_validate(section))
        except BadInput:  # as the verdicts, which say why
            return {}
        return {
            record.spec.id: ruler.change(final.metrics)
            for record in chain.from_iterable(records)
            if record.state is TrialState.COMPLETED and (final := record.final) is not None
        }

    def _records(self, trials: Trials) -> list[TrialRecord]:
        return read_records(
            self._storage.read_table(trials.trials), self._storage.read_table(trials.curves)
        )

    def _lacks(self, what: str) -> SandboxError:
        return SandboxError(
            f"the run {self.name!r} has no {what}: it is not finished, or its workflow makes none"
        )


def plan(
    config: Configuration,
    *,
    changes: Mapping[str, Any] | None = None,
    storage: str | None = None,
) -> Plan:
    """Say what a run would do, what of it is done, and what it would cost. Runs nothing.

    Args:
        config: the configuration.
        changes: values in place of the configuration's, by path: ``{"trials.seeds": 5}``.
        storage: in place of that of the configuration.

    Raises:
        BadInput: with one line per error: where it stands, what is wrong and what is allowed.
    """
    with _placed(config, changes, storage) as (document, name):
        return Plan(make_plan(planned_run(document, name)))


def run(
    config: Configuration,
    *,
    changes: Mapping[str, Any] | None = None,
    storage: str | None = None,
    over_budget: bool = False,
    quiet: bool = False,
) -> Result:
    """Run a configuration, or resume it: what is done is not done again.

    Args:
        config: the configuration.
        changes: values in place of the configuration's, by path: ``{"trials.seeds": 5}``.
        storage: in place of that of the configuration.
        over_budget: allow more than the section ``cost`` does.
        quiet: say nothing meanwhile.

    Raises:
        BadInput: with one line per error: where it stands, what is wrong and what is allowed.
        PlanRefused: it would cost more than the configuration allows.
        SandboxError: a job failed; what is finished is kept, and the same call resumes.
    """
    with _placed(config, changes, storage) as (document, name):
        checked = checked_run(document, name)
        check_budget(checked, over_budget)
        run_sandbox(checked, Console(quiet=quiet))
    return Result(checked.storage, checked.name)


def load(storage: str, run: str) -> Result:
    """Return what a run has left, however far it has come.

    Args:
        storage: folder or URL.
        run: its name; ``<run>/round-1`` for a later round.

    Raises:
        BadInput: there is no such run.
    """
    prepare_environment()
    return Result(storage, run)


@contextmanager
def _placed(
    config: Configuration, changes: Mapping[str, Any] | None, storage: str | None
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield a configuration as plain data, and its name; errors say where in a file they are."""
    prepare_environment()
    changes = changes or {}
    if not isinstance(config, str):
        yield _changed(dict(config), changes, storage), "the configuration"
        return
    with with_places(config, [f"{path}=" for path in changes], storage):
        yield _changed(read_document(config), changes, storage), config


def _changed(
    document: dict[str, Any], changes: Mapping[str, Any], storage: str | None
) -> dict[str, Any]:
    for path, value in changes.items():
        document = replaced(document, path, value)
    return document if storage is None else {**document, "storage": storage}


def _first_image(media: tuple[Any, ...]) -> Image.Image | None:
    data = next((one.data for one in media if one.kind == "image"), None)
    if data is None:
        return None
    image = Image.open(BytesIO(data))
    image.load()
    return image
