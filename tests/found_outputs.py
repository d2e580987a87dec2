"""What the jobs of a run that went all the way give, written small and by hand."""

from __future__ import annotations

import json
from typing import Any

from factories import ranking_row

from djsandbox_ray.records import (
    Acceptance,
    Choice,
    Diversity,
    DiversityRow,
    Insights,
    InteractionRow,
    Interactions,
    Ranking,
    RankingRow,
    Recipe,
    Repetition,
    RepetitionRow,
    Scaling,
    ScalingRow,
    SurrogateRow,
)
from djsandbox_ray.storage.rows import to_csv
from djsandbox_ray.storage.store import Storage

PNG = b"\x89PNG of a figure"
YAML = "process:\n- text_length_filter:\n    min_len: 3  # <not> & markup\n"
JOINED = "a/high&b/low"


def ranked(rank: int, pool: str, change: float, verdict: str) -> RankingRow:
    more = {"low": change - 0.06, "high": change + 0.06, "metrics": {"top1": 0.5 + change}}
    return ranking_row(pool, change, verdict, rank=rank, **more)


def found_outputs(storage: Storage, folder: str) -> dict[str, Any]:
    """Write the files of such a run and return its outputs by job."""

    def text(name: str, content: str) -> str:
        storage.write_bytes(f"{folder}/{name}", content.encode())
        return f"{folder}/{name}"

    def figure(name: str) -> str:
        storage.write_bytes(f"{folder}/figures/{name}.png", PNG + name.encode())
        return f"{folder}/figures/{name}.png"

    def said(name: str, **content: Any) -> str:
        return text(name, json.dumps(content))

    first = [ranked(1, "a/high", 0.2, "better"), ranked(2, "b/low", 0.1, "undecided")]
    joined = [ranked(1, JOINED, 0.5, "better"), ranked(2, "a/high", 0.25, "better")]
    factors = [
        InteractionRow("main", "a/high", 1, 0.2, 0.1, 0.3, "helps", 2, 2),
        InteractionRow("interaction", "a/high & b/low", 2, 0.1, 0.05, 0.15, "helps", 1, 1),
    ]
    repeated = [RepetitionRow("repeat", 2, 2000, 1000, 0.3, 0.2, 0.4, 3)]
    scaled = [ScalingRow(JOINED, "tiny", 2000, 1e9, 0.4, 0.35, 0.45, 3)]
    varied = [DiversityRow("a/high", "word_entropy", 7.5, 7.25, 7.75, 0.2)]
    clusters = [{"members": ["a"], "pool": "a/high", "effect": 0.2, "why": "the only one"}]
    evidence = said(
        "recipes/found.evidence.json",
        dataset={"id": "dataset-1", "rows": 4000},
        thresholds={"source": "model_feedback"},
        pool={"id": JOINED},
        effect={
            "first": None,
            "confirmed": None,
            "combination": {
                "change": 0.5,
                "interval": [0.44, 0.56],
                "verdict": "better",
                "seeds": 3,
            },
        },
        retention={
            "rows": 1000,
            "ranges": [{"statistic": "a", "low": 3.0, "high": None, "rows": 1000}],
        },
        caveats=["Its effect was not confirmed."],
    )
    recipe = Recipe("recipe-1", text("recipes/found.yaml", YAML), evidence, 0.25, 0.5)
    # The other ranking comes last: which one is that of single operators is no matter of order.
    return {
        "ranking": Ranking("ranking-1", text("ranking.csv", to_csv(RankingRow, first))),
        "combination_ranking": Ranking(
            "ranking-2", text("combination_ranking.csv", to_csv(RankingRow, joined))
        ),
        "interactions": Interactions(
            "interactions-1",
            text("interactions.csv", to_csv(InteractionRow, factors)),
            text("surrogate.csv", to_csv(SurrogateRow, [SurrogateRow("a&b&c", 0.1, 0, 0.2)])),
            ("One combination was left out.",),
        ),
        "statistic_clusters": Choice(
            "choice-1",
            ("a/high",),
            said("cluster_statistics.json", clusters=clusters),
            figure("cluster_statistics"),
        ),
        "metric_clusters": Choice(
            "choice-2",
            ("a/high",),
            said("cluster_metrics.json", clusters=clusters),
            figure("cluster_metrics"),
        ),
        "repetition": Repetition(
            "repetition-1",
            text("repetition.csv", to_csv(RepetitionRow, repeated)),
            said("repetition.json", sentences=["repetition pays at x2"]),
            figure("repetition"),
        ),
        "scaling": Scaling(
            "scaling-1",
            text("scaling.csv", to_csv(ScalingRow, scaled)),
            said("scaling.json", sentences=["tiny: one budget is too few"]),
            figure("scaling"),
        ),
        "diversity": Diversity("diversity-1", text("diversity.csv", to_csv(DiversityRow, varied))),
        "recipe": recipe,
        "acceptance": Acceptance(
            "acceptance-1", said("acceptance.json", recipe="found.yaml"), 4000, 1000, 0
        ),
        "insights": Insights(
            "insights-1", text("insights.md", "# Found\n\n## Which\n\n- a/high helps.\n")
        ),
    }
