"""The table of a chain, in the form of the paper's Table 10."""

from __future__ import annotations

import math

import pytest

from djsandbox_ray.evaluation.video.board import total
from djsandbox_ray.records import EvolutionMetric, EvolutionRow
from djsandbox_ray.reporting.evolution import (
    changes_table,
    evolution_chapter,
    evolution_markdown,
    evolution_table,
)

NAN = math.nan
# Quality and semantic score that the Data-Juicer Sandbox prints of T2V-Turbo and of its own models.
PRINTED = {"distilled": (0.8257, 0.7476), "taught": (0.8314, 0.7793), "evolved": (0.8338, 0.7913)}


def row(stage: str, teacher: str, evolved: bool = False, measured: bool = True) -> EvolutionRow:
    quality, semantic = PRINTED[stage] if measured else (NAN, NAN)
    return EvolutionRow(
        stage,
        "motion/high",
        400,
        teacher,
        teacher,
        self_distillation=teacher != "base",
        real_loss=teacher != "base",
        self_evolution=evolved,
        samples=960,
        seeds=2,
        quality=quality,
        semantic=semantic,
        total=total(quality, semantic),
    )


CHAIN = [row("distilled", "base"), row("taught", "distilled"), row("evolved", "taught", True)]
METRICS = [
    EvolutionMetric("distilled", "motion", 0.25, 0.2, 0.3, NAN, NAN, NAN, 2),
    EvolutionMetric("taught", "motion", 0.5, 0.4, 0.6, 0.25, 0.125, 0.375, 2),
    EvolutionMetric("evolved", "motion", 0.5, NAN, NAN, -0.0001, NAN, NAN, 1),
]


def test_the_table_has_the_columns_of_the_paper() -> None:
    table = evolution_table(CHAIN, [])
    assert list(table.header) == [
        "stage",
        "data pool",
        "initialised from",
        "self-distillation",
        "real-data loss",
        "self-evolution",
        "quality %",
        "semantic %",
        "total %",
    ]
    assert [line[2:6] for line in table.rows] == [
        ["base", "-", "-", "-"],
        ["distilled", "yes", "yes", "-"],
        ["taught", "yes", "yes", "yes"],
    ]
    printed = [81.01, 82.10, 82.53]
    assert [float(line[-1]) for line in table.rows] == pytest.approx(printed, abs=0.011)


def test_what_was_not_measured_has_no_column() -> None:
    unmeasured = [row(one, "base", measured=False) for one in PRINTED]
    table = evolution_table(unmeasured, METRICS)
    assert list(table.header)[6:] == ["motion"]
    assert [line[-1] for line in table.rows] == ["0.2500", "0.5000", "0.5000"]
    some = evolution_table([unmeasured[0], CHAIN[1]], METRICS[1:])
    assert some.rows[0][-4:] == ["-", "-", "-", "-"]


def test_changes_are_those_against_the_stage_before() -> None:
    table = changes_table(METRICS)
    assert [line[0] for line in table.rows] == ["taught", "evolved"]
    assert table.rows[0][2:] == ["0.5000", "+0.2500", "[+0.1250, +0.3750]", "2"]
    assert table.rows[1][3:5] == ["-0.0001", "-"]


def test_the_text_says_where_the_models_are() -> None:
    text = evolution_markdown("run", CHAIN, METRICS, {"distilled": "/models/stage-1"})
    assert "| distilled | motion/high | base | - | - | - |" in text
    assert "- distilled: `/models/stage-1`" in text
    alone = evolution_markdown("run", CHAIN[:1], METRICS[:1], {})
    assert "Against the stage before" not in alone
    assert [block.title for block in evolution_chapter(CHAIN, METRICS).blocks] == [
        "Self-evolution, stage by stage",
        "Against the stage before",
    ]
