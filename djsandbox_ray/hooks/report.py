"""Shows what was found: a picture and a page; and, before that, what every job has cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from djsandbox_ray.analysis.planning.noise import NoiseFloor, realised
from djsandbox_ray.analysis.verdicts.racing import saved, wrong_stops
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.evaluation.config import promised
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.hooks.results import decisions, finished
from djsandbox_ray.identity import content_id
from djsandbox_ray.ledger.cost import from_json, to_json
from djsandbox_ray.records import (
    Acceptance,
    Choice,
    Confirmation,
    ConfirmationRow,
    Cost,
    Dataset,
    Diversity,
    FlipRow,
    Insights,
    Interactions,
    Leak,
    LearningRateCheck,
    Ledger,
    Noise,
    PoolKind,
    Pools,
    Ranking,
    RankingRow,
    Recipe,
    Repetition,
    Report,
    Scaling,
    Trials,
)
from djsandbox_ray.reporting.blocks import ReportTable
from djsandbox_ray.reporting.chapters import Chapters, Later, label_shares, read_labels
from djsandbox_ray.reporting.costs import costs_section
from djsandbox_ray.reporting.figures import bar_chart, png
from djsandbox_ray.reporting.method import (
    confirmation_notes,
    confirmation_section,
    flips_notes,
    flips_section,
    noise_lines,
    realised_lines,
    stopping_lines,
)
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.reporting.report import report_html
from djsandbox_ray.trials.config import seeds_text

_COST = TypeAdapter(Cost)
_LEDGER = "ledger"

_CHUNK_ROWS = 65536
# Among so many a pool must end to count as one that should not have been given up, where the way of
# stopping names no number of its own.
_BEST = 3


class WriteReport(Hook):
    """Writes ``figures/ranking.png`` and ``report.html``."""

    VERSION = 4
    SECTIONS = ("trials", "evaluation")

    def identity(self) -> Any:
        """What is shown."""
        return [self.config.name, self.config.report.model_dump(mode="json")]

    def run(
        self,
        dataset: Dataset,
        leaks: Leak,
        pools: Pools,
        noise: Noise,
        trials: Trials,
        ranking: Ranking,
        confirmation: Confirmation | None,
        learning_rate: LearningRateCheck | None,
        ledger: Ledger,
        combination_ranking: Ranking | None = None,
        interactions: Interactions | None = None,
        statistic_clusters: Choice | None = None,
        metric_clusters: Choice | None = None,
        repetition: Repetition | None = None,
        scaling: Scaling | None = None,
        diversity: Diversity | None = None,
        recipe: Recipe | None = None,
        acceptance: Acceptance | None = None,
        insights: Insights | None = None,
    ) -> Report:
        """Draw the picture and write the page; what was found after the ranking gets chapters."""
        later = Later(
            combination_ranking,
            interactions,
            statistic_clusters,
            metric_clusters,
            repetition,
            scaling,
            diversity,
            recipe,
            acceptance,
            insights,
        )
        storage = self.storage
        rows = self.rows(RankingRow, ranking)
        unit = Unit.of(self.config.evaluation.kind)
        confirmed = self.rows(ConfirmationRow, confirmation)
        flipped = self.rows(FlipRow, learning_rate)
        floor = NoiseFloor.from_json(storage.read_sealed(noise.path)["noise"])
        stopping = self.config.trials.early_stopping.type != "none"
        lines = [
            *confirmation_notes(confirmed),
            *flips_notes(flipped),
            *self._stopping(pools, trials, rows),
            *realised_lines(realised(floor, rows), unit),
        ]
        before = noise_lines(floor, unit, stopping=stopping)
        title = f"{self.config.name}: change against the controls"
        figure = png(bar_chart(rows, title=title, unit=unit, confirmed=confirmed))
        page = report_html(
            self.config.name,
            rows,
            unit=unit,
            lines=[*lines, *(f"Before the study: {line}." for line in before)],
            before=[confirmation_section(confirmed, unit)] if confirmed else [],
            figures={"Change against the controls": figure},
            chapters=Chapters(storage, unit).of(later),
            facts=self._facts(dataset, leaks, pools, trials),
            not_testable=pools.not_testable,
            metrics=promised(self.config.evaluation.metrics),
            tables=[
                *([flips_section(flipped, unit)] if flipped else []),
                *(self._composition(key, dataset, pools) for key in self.config.report.labels),
                _statistics(pools),
                costs_section(from_json(storage.read_sealed(ledger.path))),
            ],
        )
        report = Report(
            id=content_id("report", ranking.id, *later.ids, self.identity()),
            path=self.path("report.html"),
            figure=self.path("figures/ranking.png"),
            summary=tuple(lines),
        )
        storage.write_bytes(report.figure, figure)
        storage.write_bytes(report.path, page.encode())
        return report

    def _stopping(self, pools: Pools, trials: Trials, rows: Sequence[RankingRow]) -> list[str]:
        """Say what early stopping saved, and how often it was wrong."""
        config = self.config.trials.early_stopping
        if config.type == "none":
            return []
        made = decisions(self.storage, trials.race)
        checked = [pool for decision in made for pool in decision.audited]
        finals = {
            row.pool: row.change
            for row in rows
            if row.kind is PoolKind.BUCKET and np.isfinite(row.change)
        }
        audit = wrong_stops(checked, finals, getattr(config, "keep", _BEST))
        stoppable = {pool.id for pool in pools.pools if pool.kind is PoolKind.BUCKET}
        savings = saved(finished(self.context, trials), stoppable)
        return stopping_lines(sum(row.verdict == "stopped" for row in rows), audit, savings)

    def _facts(self, dataset: Dataset, leaks: Leak, pools: Pools, trials: Trials) -> dict[str, str]:
        controls = sum(pool.kind == "control" for pool in pools.pools)
        fate = "kept out of every pool" if leaks.removed else "kept in the pools"
        alone = f" ({leaks.by_medium} only by an image or video)" if leaks.by_medium else ""
        return {
            "samples": f"{dataset.rows} ({dataset.rejected} rejected)",
            "also in the evaluation split": f"{leaks.rows} samples{alone}, {fate}",
            "pools": f"{len(pools.pools) - controls} and {controls} controls of {pools.size} rows",
            "draw": f"{pools.draw_size} rows per trial",
            "trials": f"{trials.completed} completed, {trials.stopped} given up early, "
            f"{trials.failed} failed",
            "seeds": seeds_text(self.config.trials),
            "budget": f"{self.config.trials.budget} samples seen per trial",
            "aggregate": self.config.evaluation.kind,
            "family-wise error": f"{self.config.evaluation.alpha:g}",
        }

    def _composition(self, key: str, dataset: Dataset, pools: Pools) -> ReportTable:
        """Tabulate a label over the pools; the columns of one chunk of rows at a time."""
        storage = self.storage
        table = SampleTable(storage.uri(dataset.table))
        starts = range(0, dataset.rows, _CHUNK_ROWS)
        shown = [pool for pool in pools.pools if pool.kind == "bucket"]
        assignments = storage.read_table(pools.assignments, list({pool.column for pool in shown}))

        def meta() -> Iterator[list[str]]:
            for start in starts:
                stop = min(start + _CHUNK_ROWS, dataset.rows)
                yield table.scan(start, stop, ["meta"])["meta"].to_pylist()

        def membership() -> Iterator[NDArray[np.bool_]]:
            for start in starts:
                part = assignments.slice(start, _CHUNK_ROWS)
                yield np.stack([part[pool.column].to_numpy() == pool.code for pool in shown])

        names, shares = label_shares(read_labels(meta(), key), membership())
        rows = [
            [pool.id, *(f"{100 * share:.1f}" for share in line)]
            for pool, line in zip(shown, shares, strict=True)
        ]
        return ReportTable(f"Share of samples by {key}, in %", ["pool", *names], rows)


def _statistics(pools: Pools) -> ReportTable:
    """Tabulate what every statistic is worth as a ruler."""
    rows = [
        [name, str(missing), f"{pools.contrast[name]:.3f}" if name in pools.contrast else "-"]
        for name, missing in pools.missing.items()
    ]
    header = ["statistic", "samples without a value", "contrast of high to low"]
    return ReportTable("Statistics", header, rows)


class AddUp(Hook):
    """Writes ``ledger.json``."""

    VERSION = 1

    def identity(self) -> Any:
        """What the runner has noted down of the jobs before this one."""
        path = self.path("costs.json")
        noted = self.storage.read_sealed(path) if self.storage.exists(path) else {}
        return list(takewhile(lambda entry: entry["hook"] != _LEDGER, noted.values()))

    def run(self) -> Ledger:
        """Write one entry per job, and the total."""
        fields = Cost.__dataclass_fields__
        costs = [
            _COST.validate_python({name: entry[name] for name in fields})
            for entry in self.identity()
        ]
        content = to_json(costs)
        path = self.write_sealed("ledger.json", content)
        return Ledger(content_id("ledger", content), path)
