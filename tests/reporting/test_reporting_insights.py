from __future__ import annotations

import math
from dataclasses import replace

import pytest
from factories import ranking_row

from djsandbox_ray.records import (
    ConfirmationRow,
    DiversityRow,
    InteractionRow,
    NotTestable,
    PoolKind,
    RankingRow,
    RepetitionRow,
    SurrogateRow,
)
from djsandbox_ray.reporting.blocks import Sentences
from djsandbox_ray.reporting.insights import Observations, insights_chapter, insights_markdown
from djsandbox_ray.reporting.ranking import Unit


def row(pool: str, change: float, verdict: str) -> RankingRow:
    return ranking_row(pool, change, verdict, low=change - 0.1, high=change + 0.1)


RANKING = [
    row("similarity/high", 0.5, "better"),
    row("size/high", 0.2, "better"),
    row("size/low", -0.3, "worse"),
    row("length/low", 0.05, "undecided"),
    row("length/high", math.nan, "stopped"),
]
FOUND = Observations(
    unit=Unit.PERCENT,
    ranking=RANKING,
    modality={"similarity": "multimodal", "size": "image", "length": "text"},
)


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def test_operators_are_counted_by_verdict_and_modality() -> None:
    told = section(insights_markdown("run", FOUND), "Which operators matter")
    assert "Of 5 pools of 3 statistics: 2 better, 1 worse, 1 undecided, 1 stopped" in told
    assert "The most better: similarity/high, +50.00 % [+40.00, +60.00]." in told
    assert "The most worse: size/low, -30.00 % [-40.00, -20.00]." in told
    assert "Operators on text: 0 of 2 pools were decided (statistics: none)." in told
    assert "Operators on image: 2 of 2 pools were decided (statistics: size)." in told


def test_what_was_not_done_is_said() -> None:
    told = insights_markdown("run", FOUND)
    for sentence in (
        "No pool was trained a second time.",
        "No combination of pools was trained.",
        "The diversity of pools was not measured.",
        "Repetition was not studied.",
        "No training at other scales was made.",
        "The correlation of statistics was not computed",
    ):
        assert sentence in told


def test_what_is_open_is_named() -> None:
    found = replace(FOUND, not_testable=[NotTestable("ratio", "no contrast")])
    told = section(insights_markdown("run", found), "Not testable, not decided")
    assert "ratio was not testable: no contrast." in told
    found = replace(FOUND, caveats=["combinations: cannot be judged: too few arms"])
    told = section(insights_markdown("run", found), "Not testable, not decided")
    assert "- Combinations: cannot be judged: too few arms." in told
    assert "Undecided: their intervals hold 0: length/low." in told
    assert "Given up early, without a verdict: length/high." in told
    assert (
        "Intervals reach about 10.00 % to each side: a pool with just that effect is called better "
        "in half of all studies." in told
    )


def test_confirmed_effects_stand_beside_the_first() -> None:
    again = ConfirmationRow("similarity/high", 0.5, 0.4, 0.6, 0.45, 0.42, 0.3, 0.54, "better", 3)
    told = section(
        insights_markdown("run", replace(FOUND, confirmed=[again])), "Are the best confirmed"
    )
    assert "first +50.00 %, confirmed +42.00 % [+30.00, +54.00]: better" in told


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (0.9, "beats the best single pool"),
        (0.45, "cannot be told from the best single pool"),
        (0.1, "is worse than the best single pool"),
    ],
)
def test_combinations_are_set_beside_the_best_single(change: float, word: str) -> None:
    both = replace(row("a/high&b/high", change, "better"), statistic=None, bucket=None)
    combined = [row("a/high", 0.5, "better"), row("b/high", 0.2, "better"), both]
    joint = InteractionRow("interaction", "a/high & b/high", 2, 0.2, 0.1, 0.3, "helps", 1, 1)
    guess = SurrogateRow("a/high&b/high", 0.4, 0.3, 0.5, 0.45, held_out=True)
    found = replace(FOUND, combined=combined, interactions=[joint], surrogate=[guess])
    told = section(insights_markdown("run", found), "Do combinations help")
    assert f"a/high&b/high, {word}" in told
    assert (
        "Together, a/high & b/high give +20.00 % [+10.00, +30.00] beyond what they give apart: "
        "helps (interactions.csv)." in told
    )
    assert "foretells 1 of 1 combinations" in told


def test_three_pools_are_set_against_what_they_do_alone_and_in_pairs() -> None:
    pair = InteractionRow("interaction", "a & b", 2, 0.05, -0.1, 0.2, "undecided", 2, 2)
    three = InteractionRow("interaction", "a & b & c", 3, -0.3, -0.31, -0.29, "less", 1, 1)
    found = replace(FOUND, combined=[row("a", 0.1, "better")], interactions=[pair, three])
    told = section(insights_markdown("run", found), "Do combinations help")
    assert "hurt" not in told
    assert (
        "Together, a & b & c give -30.00 % [-31.00, -29.00] beyond what their single and pairwise "
        "effects add up to: less (interactions.csv)." in told
    )
    assert "beyond what they give apart, averaged over the other pool being in or not: un" in told


def test_correlated_statistics_are_named_and_the_others_counted() -> None:
    pairs = {("a", "b"): -0.8, ("a", "c"): 0.1, ("b", "c"): math.nan}
    found = replace(FOUND, correlations=pairs)
    told = section(insights_markdown("run", found), "Are the operators orthogonal")
    assert "a and b correlate: r = -0.80." in told
    assert "1 of 2 pairs of statistics have |r| below 0.3." in told


def varied(*values: float) -> tuple[list[RankingRow], list[DiversityRow]]:
    """Halves of statistics; the more varied, the worse."""
    names = [f"s{index // 2}/{('low', 'high')[index % 2]}" for index in range(len(values))]
    effects = [-0.1 * index for index in range(len(values))]
    return (
        [row(name, effect, "undecided") for name, effect in zip(names, effects, strict=True)],
        [
            DiversityRow(name, "distinct_2", value, value - 1, value + 1, effect)
            for name, value, effect in zip(names, values, effects, strict=True)
        ],
    )


def told_of(ranking: list[RankingRow], diversity: list[DiversityRow]) -> str:
    found = replace(FOUND, ranking=ranking, diversity=diversity)
    return section(insights_markdown("run", found), "Quality against diversity")


def test_diversity_is_related_to_the_effects_only_with_enough_statistics() -> None:
    ranking, rows = varied(*range(12))
    told = told_of(ranking, rows)
    once = "independent: the parts of a statistic count once"
    assert f"distinct_2: Spearman's rho with the effect over 12 pools (6 {once}) is -1.00" in told
    assert "more varied pools did worse (diversity.csv)." in told
    assert f"8 pools (4 {once}) are too few" in told_of(ranking, rows[:8])
    assert "5 independent are needed" in told_of(ranking, rows[:8])


def test_self_tests_have_no_part_in_the_relation_of_diversity_and_effect() -> None:
    ranking, rows = varied(*range(10))
    test = replace(row("self_test/shuffled_captions", -9, "worse"), kind=PoolKind.SELF_TEST)
    more = replace(rows[0], pool=test.pool, value=-50.0, change=-9.0)
    assert told_of([*ranking, test], [*rows, more]) == told_of(ranking, rows)


def test_pools_without_a_diversity_or_an_effect_are_counted() -> None:
    ranking, rows = varied(*range(14))
    rows[0] = replace(rows[0], value=math.nan)
    rows[5] = replace(rows[5], change=math.nan)
    told = told_of(ranking, rows)
    assert "over 12 pools (7 independent" in told
    assert "is -1.00" in told
    assert "Pools left out: 1 without an effect, 1 without a value." in told
    undefined = [replace(found, value=math.nan) for found in rows]
    told = told_of(ranking, undefined)
    assert "0 pools (0 independent" in told
    assert "no relation" not in told
    same = [replace(found, value=1.0, change=0.1) for found in rows]
    assert "it, or the effect, is the same in all of 14 pools" in told_of(ranking, same)


def test_strategies_are_compared_at_equal_samples() -> None:
    rows = [
        RepetitionRow("repeat", 4, 4000, 1000, 0.4, 0.3, 0.5, 3),
        RepetitionRow("expand", 4, 4000, 4000, 0.6, 0.5, 0.7, 3),
        RepetitionRow("random", 4, 4000, 4000, 0.0, math.nan, math.nan, 3),
    ]
    found = replace(FOUND, repetition=rows, repetition_lines=["It pays up to x4."])
    told = section(insights_markdown("run", found), "Repetition against fresh data")
    assert (
        "At 4000 samples seen (x4), against as many of random rows: repeat +40.00 % "
        "[+30.00, +50.00], expand +60.00 %"
    ) in told
    assert "random +" not in told, "0 by its definition"
    assert "It pays up to x4." in told


def test_the_page_becomes_a_chapter_with_every_sentence() -> None:
    text = insights_markdown("run", FOUND)
    chapter = insights_chapter(text)
    assert not chapter.lines
    told = [(block.title, list(block.lines)) for block in chapter.blocks]  # type: ignore[union-attr]
    assert [title for title, _ in told] == [
        line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")
    ]
    sentences = [line[2:] for line in text.splitlines() if line.startswith("- ")]
    assert [line for _, lines in told for line in lines] == sentences


def test_a_page_that_somebody_has_edited_loses_nothing() -> None:
    chapter = insights_chapter("# Title\nread this\n\n## Twice\n- one\n\n## Twice\nplain - two\n")
    assert chapter.lines == ["read this"]
    assert chapter.blocks == [Sentences("Twice", ["one"]), Sentences("Twice", ["plain - two"])]
    assert insights_chapter("").blocks == []
