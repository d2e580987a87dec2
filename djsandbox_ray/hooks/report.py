"""Shows what was found: a page, with pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.planning.noise import NoiseFloor, realised
from djsandbox_ray.analysis.verdicts.racing import saved, wrong_stops
from djsandbox_ray.analysis.verdicts.sensitivity import informative
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.evaluation.config import promised
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.hooks.made_videos import videos_made
from djsandbox_ray.hooks.results import decisions, finished, metric_rows
from djsandbox_ray.identity import content_id
from djsandbox_ray.ledger.cost import from_json
from djsandbox_ray.masking import masker, without_secrets
from djsandbox_ray.recipes.policy import beyond
from djsandbox_ray.recipes.ranges import kept
from djsandbox_ray.recipes.refiner import narrowed
from djsandbox_ray.records import (
    Acceptance,
    Choice,
    Confirmation,
    ConfirmationRow,
    Dataset,
    Diversity,
    Evaluation,
    Evolution,
    FlipRow,
    Insights,
    Interactions,
    Leak,
    LearningRateCheck,
    Ledger,
    MetricRow,
    Noise,
    PoolKind,
    Pools,
    Ranking,
    RankingRow,
    Recipe,
    Repetition,
    Report,
    Scaling,
    Statistics,
    TrialRecord,
    Trials,
)
from djsandbox_ray.reporting.answer import (
    Certainty,
    Conclusion,
    Measured,
    RunPlace,
    Share,
    answer_lines,
    conclude,
    metrics_section,
)
from djsandbox_ray.reporting.blocks import Chapter, Picture, Pictures, ReportTable
from djsandbox_ray.reporting.chapters import Chapters, Later, label_shares, read_labels
from djsandbox_ray.reporting.costs import costs_section
from djsandbox_ray.reporting.distributions import (
    Groups,
    Shown,
    correlation_picture,
    pools_chapter,
    statistics_chapter,
    svg_picture,
)
from djsandbox_ray.reporting.figures import bar_chart, png
from djsandbox_ray.reporting.insights import sentence
from djsandbox_ray.reporting.made import made_chapter, made_figure, same_prompts
from djsandbox_ray.reporting.method import (
    confirmation_notes,
    confirmation_section,
    flips_notes,
    flips_section,
    noise_lines,
    realised_lines,
    sensitivity_lines,
    sensitivity_section,
    stopping_lines,
    suspicion_lines,
)
from djsandbox_ray.reporting.page import report_html
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.reporting.sample_cards import SampleCards
from djsandbox_ray.reporting.studied import costs_chart, curve_charts, mean_metrics
from djsandbox_ray.stats.parts import StatisticColumns
from djsandbox_ray.trials.config import seeds_text

_CHUNK_ROWS = 65536
# Among so many a pool must end to count as one that should not have been given up, where the way of
# stopping names no number of its own.
_BEST = 3


class WriteReport(Hook):
    """Writes ``figures/ranking.png``, ``report.html``, and of videos ``figures/videos.png``."""

    VERSION = 9
    SECTIONS = ("trials", "evaluation")

    def identity(self) -> Any:
        """What is shown, and what must not be."""
        return [
            self.config.name,
            self.config.report.model_dump(mode="json"),
            [policy.model_dump(mode="json") for policy in self.config.policies],
            *self.context.caveats,
        ]

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
        statistics: Statistics | None = None,
        confirmation_trials: Trials | None = None,
        combinations: Pools | None = None,
        combination_trials: Trials | None = None,
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
        evolution: Evolution | None = None,
        evaluation: Evaluation | None = None,
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
            evolution,
        )
        storage = self.storage
        rows = self.rows(RankingRow, ranking)
        unit = Unit.of(self.config.evaluation.kind)
        confirmed = self.rows(ConfirmationRow, confirmation)
        flipped = self.rows(FlipRow, learning_rate)
        floor = NoiseFloor.from_json(storage.read_sealed(noise.path)["noise"])
        stopping = self.config.trials.early_stopping.type != "none"
        metrics = promised(self.config.evaluation.metrics)
        known = statistics.statistics if statistics else ()
        columns = StatisticColumns(storage, known, dataset.rows)
        records = finished(self.context, trials)
        costs = from_json(storage.read_sealed(ledger.path))
        seen = metric_rows(self.context, pools, trials)
        lines = [
            *confirmation_notes(confirmed),
            *flips_notes(flipped),
            *self._stopping(pools, trials, records, rows),
            *realised_lines(realised(floor, rows), unit),
            *suspicion_lines(rows, metrics),
            *sensitivity_lines(seen, chosen=self.config.evaluation.score_metrics().informative),
        ]
        found = conclude(
            rows,
            None if confirmation is None else confirmed,
            {pool.id: pool for pool in pools.pools},
            combined=self.rows(RankingRow, combination_ranking),
            combinations=combinations.pools if combinations else (),
        )
        if found.ranges:  # the pool was chosen among rows that were kept before
            found = replace(found, ranges=narrowed(self.config.pools.ranges, found.ranges))
        looked = confirmation_trials if found.certainty is Certainty.CONFIRMED else None
        is_single = any(pool.id == found.pool for pool in pools.pools)
        study = looked or (None if is_single else combination_trials) or trials
        measured = self._measured(found.pool, study, metrics, seen) if found.pool else []
        answer = answer_lines(
            found,
            unit,
            RunPlace(self.config.name, storage.shown, has_combined=combination_ranking is not None),
            confidence=1 - self.config.evaluation.alpha,
            share=self._share(found, dataset, pools, columns),
            measured=measured,
            floor=floor,
        )
        before = noise_lines(floor, unit, stopping=stopping)
        title = f"{self.config.name}: change against the controls"
        drawn = bar_chart(rows, title=title, unit=unit, confirmed=confirmed)
        figure = png(drawn)
        labels = self.config.report.labels
        groups = Groups.of(self._labels(labels[0], dataset)) if labels else None
        cards = self._cards(dataset, columns)
        shown = Shown(storage, pools, rows, columns, unit, cards, groups)
        made = (
            videos_made(self.config, storage, evaluation, records, shown.extremes())
            if evaluation
            else []
        )
        money = costs_chart(costs)
        page = report_html(
            self.config.name,
            rows,
            unit=unit,
            about=self._about(),
            answer=answer,
            answer_tables=[metrics_section(measured)] if measured else [],
            lines=[
                *map(sentence, self.context.caveats),
                *lines,
                *(f"Before the study: {line}." for line in before),
            ],
            before=[confirmation_section(confirmed, unit)] if confirmed else [],
            figures=[svg_picture("Change against the controls", drawn)],
            chapters=[
                *filter(None, [pools_chapter(shown), made_chapter(made)]),
                *Chapters(storage, unit).of(later),
                *self._curves(records, pools, rows, metrics),
                *_with(correlation_picture(shown), statistics_chapter(shown)),
            ],
            facts={**self._facts(dataset, leaks, pools, trials), **self._versions()},
            not_testable=pools.not_testable,
            metrics=metrics,
            controls=mean_metrics(records, _controls(pools)),
            tables=[
                *([flips_section(flipped, unit)] if flipped else []),
                *(self._composition(key, dataset, pools) for key in labels),
                sensitivity_section(seen),
                _statistics(pools),
                costs_section(costs),
                *([svg_picture("Where the money went", money)] if money else []),
            ],
            configuration=self._configuration(),
        )
        report = Report(
            id=content_id("report", ranking.id, *later.ids, self.identity()),
            path=self.path("report.html"),
            figure=self.path("figures/ranking.png"),
            summary=tuple(lines),
            answer=answer,
            videos=self.path("figures/videos.png") if same_prompts(made) else "",
        )
        if report.videos:
            storage.write_bytes(report.videos, png(made_figure(made)))
        storage.write_bytes(report.figure, figure)
        storage.write_bytes(report.path, page.encode())
        return report

    def _measured(
        self, pool: str, trials: Trials, metrics: Sequence[Metric], seen: Sequence[MetricRow]
    ) -> list[Measured]:
        """Return what the pool of the answer got of the score's metrics, beside the controls."""
        kinds = self.storage.read_table(trials.trials, ["pool", "kind"]).to_pylist()
        controls = {row["pool"] for row in kinds if row["kind"] == PoolKind.CONTROL}
        records = finished(self.context, trials)
        own, theirs = mean_metrics(records, [pool]), mean_metrics(records, controls)
        by_name = {metric.name: metric for metric in metrics}
        score = self.config.evaluation.score_metrics()
        names = score.chosen(own)
        return [
            Measured(by_name.get(name, Metric(name)), own[name], theirs.get(name, math.nan))
            for name in (informative(seen, names) if score.informative else names)
            if name in own
        ]

    def _share(
        self, found: Conclusion, dataset: Dataset, pools: Pools, columns: StatisticColumns
    ) -> Share | None:
        """Return how much of the data lies in the ranges of the answer, or in its pool."""
        if found.ranges and {item.statistic for item in found.ranges} <= {*columns}:
            return Share(int(kept(columns, found.ranges).sum()), dataset.rows)
        size = next((pool.size for pool in pools.pools if pool.id == found.pool), None)
        return None if size is None else Share(size, dataset.rows)

    def _cards(self, dataset: Dataset, columns: StatisticColumns) -> SampleCards | None:
        """Return what shows samples; None where none is to be shown."""
        policies = self.config.policies
        if not self.config.report.samples or (policies and not columns):
            return None
        table = SampleTable(self.storage.uri(dataset.table))
        return SampleCards(table, beyond(policies, columns) if policies else None, masker())

    def _curves(
        self,
        records: Sequence[TrialRecord],
        pools: Pools,
        rows: Sequence[RankingRow],
        metrics: Sequence[Metric],
    ) -> list[Chapter]:
        """Return how the metrics of the score went, in a chapter; none where nothing was seen."""
        names = sorted({name for row in rows for name in row.metrics})
        by_name = {metric.name: metric for metric in metrics}
        chosen = self.config.evaluation.score_metrics().chosen(names)
        wanted = [by_name.get(name, Metric(name)) for name in chosen if name in names]
        charts = curve_charts(records, pools.pools, rows, wanted)
        if not charts:
            return []
        pictures = Pictures("", [svg_picture(title, figure) for title, figure in charts])
        line = "The metrics of the score on the way, means over seeds, and who was given up."
        return [Chapter("Learning curves", [line], [pictures])]

    def _about(self) -> str:
        """Say when the run began, and with which version."""
        state = self._state()
        if "started" not in state:
            return ""
        version = state.get("versions", {}).get("djsandbox-ray", "")
        begun = str(state["started"]).replace("T", " ").replace("Z", " UTC")
        return f"begun {begun}, djsandbox-ray {version}"

    def _versions(self) -> dict[str, str]:
        """Return what the run was made with, as ``run.json`` knows it."""
        state = self._state()
        versions = ", ".join(f"{name} {found}" for name, found in state.get("versions", {}).items())
        facts = {"versions": versions, "commit": str(state.get("git_commit") or "")}
        return {name: fact for name, fact in facts.items() if fact}

    def _state(self) -> dict[str, Any]:
        path = f"runs/{self.config.name}/run.json"
        return self.storage.read_sealed(path) if self.storage.exists(path) else {}

    def _configuration(self) -> str:
        """Return the configuration as the run has written it down, without secrets."""
        path = self.path("config.yaml")
        if not self.storage.exists(path):
            return ""
        return without_secrets(self.storage.read_bytes(path).decode())

    def _stopping(
        self,
        pools: Pools,
        trials: Trials,
        records: Sequence[TrialRecord],
        rows: Sequence[RankingRow],
    ) -> list[str]:
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
        savings = saved(records, stoppable)
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

    def _labels(self, key: str, dataset: Dataset) -> Iterator[list[str]]:
        """Yield a label of every row, in chunks."""
        table = SampleTable(self.storage.uri(dataset.table))

        def meta() -> Iterator[list[str]]:
            for start in range(0, dataset.rows, _CHUNK_ROWS):
                stop = min(start + _CHUNK_ROWS, dataset.rows)
                yield table.scan(start, stop, ["meta"])["meta"].to_pylist()

        return read_labels(meta(), key)

    def _composition(self, key: str, dataset: Dataset, pools: Pools) -> ReportTable:
        """Tabulate a label over the pools; the columns of one chunk of rows at a time."""
        shown = [pool for pool in pools.pools if pool.kind == "bucket"]
        columns = list({pool.column for pool in shown})
        assignments = self.storage.read_table(pools.assignments, columns)

        def membership() -> Iterator[NDArray[np.bool_]]:
            for start in range(0, dataset.rows, _CHUNK_ROWS):
                part = assignments.slice(start, _CHUNK_ROWS)
                yield np.stack([part[pool.column].to_numpy() == pool.code for pool in shown])

        names, shares = label_shares(self._labels(key, dataset), membership())
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


def _controls(pools: Pools) -> list[str]:
    return [pool.id for pool in pools.pools if pool.kind is PoolKind.CONTROL]


def _with(picture: Picture | None, chapter: Chapter | None) -> list[Chapter]:
    """Return the chapter on statistics, with how they correlate behind it."""
    if chapter is None:
        return []
    return [replace(chapter, blocks=[*chapter.blocks, *filter(None, [picture])])]
