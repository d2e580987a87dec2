from __future__ import annotations

import base64
import re
from dataclasses import replace

import pytest
from html_page import HOSTILE, Page

from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import NotTestable
from djsandbox_ray.reporting.blocks import (
    Chapter,
    Listing,
    Picture,
    ReportTable,
    Sentences,
)
from djsandbox_ray.reporting.method import confirmation_section
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.reporting.report import report_html


def test_the_page_says_all_of_it(rows):
    page = Page(
        report_html(
            "clip-demo",
            rows,
            figures={"changes": b"\x89PNG data"},
            facts={"dataset": "shapes, 1200 rows"},
            not_testable=[NotTestable("lang_score", "all values are equal")],
            tables=[ReportTable("Ties", ("pool", "ties"), [("text_len/low", "12")])],
        )
    )
    for text in (
        "clip-demo",
        "similarity/high",
        "+14.00 .. +26.00",
        "2/3 (1 failed)",
        "Self-tests passed: 2 of 2.",
        "lang_score",
        "all values are equal",
        "Ties",
        "12",
        "shapes, 1200 rows",
        "zero_shot/top1",
        "0.7",
    ):
        assert text in page.texts, text
    source = next(value for name, value in page.attributes if name == "src")
    assert source is not None
    head, _, data = source.partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == b"\x89PNG data"


def test_nothing_comes_from_elsewhere(rows):
    text = report_html("demo", rows, figures={"a": b"png"})
    assert not re.search(r"https?:|//|@import|url\(|<script|<link", text.replace("base64,", ""))
    assert "default-src 'none'" in text


def test_hostile_names_are_only_text(rows):
    rows[1] = replace(rows[1], pool=HOSTILE, verdict=HOSTILE, metrics={HOSTILE: 1.0})
    page = Page(
        report_html(
            HOSTILE,
            rows,
            figures={HOSTILE: b""},
            facts={HOSTILE: HOSTILE},
            not_testable=[NotTestable(HOSTILE, HOSTILE)],
            tables=[ReportTable(HOSTILE, (HOSTILE,), [(HOSTILE,)])],
        )
    )
    assert "script" not in page.tags
    assert page.texts.count(HOSTILE) >= 10
    assert ("alt", HOSTILE) in page.attributes


def test_a_failed_self_test_comes_first(rows, broken):
    text = report_html("demo", broken)
    page = Page(text)
    assert page.texts.index("failed self-tests") < page.texts.index("pools")
    assert ("class", "alarm") in page.attributes
    assert text.index("SELF-TEST FAILED") < text.index("<table")
    assert ("class", "alarm") not in Page(report_html("demo", rows)).attributes


def test_scores_of_models_that_do_not_answer_are_doubted(rows):
    known = [
        Metric("pope/yes", scored=False, doubtful_above=0.9),
        Metric("mme/unparsed", "less", scored=False, doubtful_above=0.5),
        Metric("mme/cut", "less", scored=False),
    ]
    shares = [(0.5, 0.51, 0.99), (0.95, 0.2, 0.99), (0.91, 0.5, 0.99)]
    for place, (yes, unparsed, cut) in enumerate(shares):
        found = {"pope/yes": yes, "mme/unparsed": unparsed, "mme/cut": cut}
        rows[place] = replace(rows[place], metrics=found)
    text = report_html("demo", rows, metrics=known)
    assert (
        f"pope/yes is above 0.9 in 2 of 3 pools, at most 0.95 ({rows[1].pool}): what pope says of "
        "them is little."
    ) in text
    assert f"mme/unparsed is above 0.5 in 1 of 3 pools, at most 0.51 ({rows[0].pool})" in text
    assert "mme/cut is above" not in text
    assert "is above" not in report_html("demo", rows)


def test_what_was_given_up_stands_apart_and_the_shrunken_change_beside_the_first(raced):
    page = Page(report_html("demo", raced))
    start = page.texts.index("given up early")
    assert page.texts[start + 1 : start + 7] == [
        "pool",
        "samples seen",
        "sharpness/high",
        "15,000",
        "sharpness/low",
        "2,500",
    ]
    # The names of pools that were given up are nowhere else.
    assert [page.texts.count(f"sharpness/{part}") for part in ("low", "high")] == [1, 1]
    assert "shrunken %" in page.texts
    assert page.texts[page.texts.index("+14.00 .. +26.00") + 1] == "+15.00"
    assert not any("given up" in text for text in Page(report_html("demo", raced[:5])).texts)


def test_further_lines_and_tables_come_before_the_ranking(rows, broken, confirmed):
    table = confirmation_section(confirmed, Unit.PERCENT)
    page = Page(report_html("demo", broken, lines=["early <stopping>"], before=[table]))
    order = ["early <stopping>", table.title, "failed self-tests", "pools"]
    assert [text for text in page.texts if text in order] == order
    alarm = next(text for text in page.texts if text.startswith("SELF-TEST FAILED"))
    assert page.texts.index(alarm) < page.texts.index("early <stopping>")
    assert page.attributes.count(("class", "alarm")) == 1
    assert ("class", "better") in Page(report_html("demo", [], before=[table])).attributes


def test_units_and_an_empty_ranking(rows):
    assert "change sd" in Page(report_html("demo", rows, unit=Unit.SD)).texts
    assert "Of 0 pools: 0 better, 0 worse, 0 undecided." in Page(report_html("demo", [])).texts


def chapter(text: str) -> Chapter:
    blocks = [
        ReportTable(text, (text, ""), [(text, "helps")]),
        Picture(text, b"\x89PNG"),
        Listing(text, f"{text}\n  {text}"),
        Sentences(text, [text, text]),
    ]
    return Chapter(text, [text], blocks, headline=text)


def test_every_kind_of_block_is_shown_in_its_order():
    page = Page(report_html("demo", [], chapters=[chapter("here")]))
    assert [tag for tag in page.tags[page.tags.index("h2") :] if tag != "div"] == [
        *("h2", "p", "h3", "table", "tr", "th", "th", "tr", "td", "td"),
        *("img", "h3", "pre", "h3", "ul", "li", "li"),
    ]
    assert {("id", "chapter-1"), ("alt", "here"), ("class", "helps")} <= set(page.attributes)
    source = dict(page.attributes)["src"]
    assert source is not None
    assert base64.b64decode(source.partition(",")[2]) == b"\x89PNG"
    assert "here\n  here" in page.texts  # a file keeps its lines and what they begin with


def test_nothing_of_a_chapter_is_taken_for_html(rows):
    page = Page(report_html("demo", rows, chapters=[chapter(HOSTILE)]))
    assert "script" not in page.tags
    # Headline, link, title, line, two titles of blocks and that of the table, head, cell, items.
    assert page.texts.count(HOSTILE) == 11
    assert any(HOSTILE in text and "\n" in text for text in page.texts)


def test_chapters_are_linked_and_their_headlines_said_first(rows):
    parts = [chapter("first"), Chapter("second", ["more"], [])]
    page = Page(report_html("demo", rows, lines=["a line"], chapters=parts))
    links = [value for name, value in page.attributes if name == "href"]
    anchors = [value for name, value in page.attributes if name == "id"]
    assert links == [f"#{anchor}" for anchor in anchors]
    assert len(set(anchors)) == 2
    order = [text for text in page.texts if text in ("first", "a line", "pools", "more")]
    assert order[:4] == ["first", "a line", "first", "pools"]
    assert order[-1] == "more"


def test_a_page_without_chapters_has_no_links(rows):
    page = Page(report_html("demo", rows))
    assert not {"nav", "a"} & set(page.tags)


def test_short_cells_stay_on_one_line():
    table = ReportTable("t", ("number", "words"), [("+12.50", "so " * 30)])
    text = report_html("demo", [], tables=[table])
    assert '<td class="short">+12.50</td>' in text
    assert "<td>so so" in text


def test_a_short_row_is_an_error():
    with pytest.raises(ValueError, match="Ties"):
        ReportTable("Ties", ("a", "b"), [("1",)])
