from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from importlib import resources

import pytest
from html_page import HOSTILE, Page

from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import NotTestable
from djsandbox_ray.reporting.blocks import (
    Card,
    Chapter,
    Gallery,
    Listing,
    Picture,
    Pictures,
    ReportTable,
    Sentences,
)
from djsandbox_ray.reporting.method import confirmation_section
from djsandbox_ray.reporting.page import report_html
from djsandbox_ray.reporting.ranking import Unit


def test_the_page_says_all_of_it(rows):
    page = Page(
        report_html(
            "clip-demo",
            rows,
            figures=[Picture("changes", b"\x89PNG data")],
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
    text = report_html("demo", rows, figures=[Picture("a", b"png")])
    assert not re.search(r"https?:|//|@import|url\(|<link| src=\"(?!data:)", _without_data(text))
    assert "default-src 'none'" in text


def _without_data(text: str) -> str:
    return re.sub(r"(data:[a-z+/]+;base64,)[^\"]*", r"\1", text)


def test_the_only_script_is_the_one_that_the_page_names(rows):
    text = report_html("demo", rows)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "</" not in script
    assert not re.search(r" on[a-z]+=|javascript:", text)


def test_what_is_put_into_the_page_as_it_is_comes_with_the_package():
    folder = resources.files("djsandbox_ray.reporting") / "templates"
    shipped = {item.name for item in folder.iterdir()}
    assert {"report.html", "report.css", "report.js"} <= shipped


def test_hostile_names_are_only_text(rows):
    rows[1] = replace(rows[1], pool=HOSTILE, verdict=HOSTILE, metrics={HOSTILE: 1.0})
    page = Page(
        report_html(
            HOSTILE,
            rows,
            figures=[Picture(HOSTILE, b"")],
            about=HOSTILE,
            answer=[("keep", HOSTILE), ("next", f"why: {HOSTILE}")],
            answer_tables=[ReportTable(HOSTILE, (HOSTILE,), [(HOSTILE,)])],
            configuration=HOSTILE,
            controls={HOSTILE: 0.5},
            facts={HOSTILE: HOSTILE},
            not_testable=[NotTestable(HOSTILE, HOSTILE)],
            tables=[ReportTable(HOSTILE, (HOSTILE,), [(HOSTILE,)])],
        )
    )
    assert page.tags.count("script") == 1
    assert page.texts.count(HOSTILE) >= 17
    assert ("alt", HOSTILE) in page.attributes


def test_a_failed_self_test_comes_first(rows, broken):
    text = report_html("demo", broken)
    page = Page(text)
    assert page.texts.index("failed self-tests") < page.texts.index("pools")
    assert ("class", "alarm") in page.attributes
    assert text.index("SELF-TEST FAILED") < text.index("<table")
    assert ("class", "alarm") not in Page(report_html("demo", rows)).attributes


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
        Pictures(text, [Picture(text, b"1"), Picture(text, b"2")]),
        Gallery(
            text,
            [(text, [Card(text, text, "data:image/webp;base64,"), Card(text, instead=text)])],
            Picture(text, b"3"),
            is_open=False,
        ),
    ]
    return Chapter(text, [text], blocks, headline=text)


def test_every_kind_of_block_is_shown_in_its_order():
    page = Page(report_html("demo", [], chapters=[chapter("here")]))
    grouping = ("div", "thead", "tbody")
    assert [tag for tag in page.tags[page.tags.index("h2") :] if tag not in grouping] == [
        *("h2", "p", "h3", "table", "tr", "th", "th", "tr", "td", "td"),
        *("img", "details", "summary", "pre", "h3", "ul", "li", "li", "h3", "img", "img"),
        *("details", "summary", "img", "h4", "figure", "img", "figcaption", "b"),
        *("figure", "figcaption", "i", "script"),
    ]
    assert {("id", "chapter-1"), ("alt", "here"), ("class", "helps")} <= set(page.attributes)
    source = next(value for name, value in page.attributes if name == "src")
    assert source is not None
    assert base64.b64decode(source.partition(",")[2]) == b"\x89PNG"
    assert "here\n  here" in page.texts  # a file keeps its lines and what they begin with


def test_nothing_of_a_chapter_is_taken_for_html(rows):
    page = Page(report_html("demo", rows, chapters=[chapter(HOSTILE)]))
    assert page.tags.count("script") == 1
    # Headline, link, title, line, five titles of blocks, head, cell, two items, and of samples the
    # name of the group, two captions, a note and what stands in place of a picture.
    assert page.texts.count(HOSTILE) == 18
    assert any(HOSTILE in text and "\n" in text for text in page.texts)


def test_chapters_are_linked_and_their_headlines_said_first(rows):
    parts = [chapter("first"), Chapter("second", ["more"], [])]
    page = Page(report_html("demo", rows, lines=["a line"], chapters=parts))
    links = [value for name, value in page.attributes if name == "href"]
    anchors = [value for name, value in page.attributes if name == "id"]
    assert links == [f"#{anchor}" for anchor in anchors]
    assert len(set(anchors)) == 2
    order = [text for text in page.texts if text in ("first", "a line", "pools", "more")]
    assert order[:4] == ["first", "first", "a line", "pools"]
    assert order[-1] == "more"


def test_a_page_without_chapters_has_no_links(rows):
    page = Page(report_html("demo", rows))
    assert not {"nav", "a"} & set(page.tags)


def test_short_cells_stay_on_one_line():
    table = ReportTable("t", ("number", "words"), [("+12.50", "so " * 30)])
    text = report_html("demo", [], tables=[table])
    assert '<td class="short">+12.50</td>' in text
    assert "<td>so so" in text


def test_the_answer_comes_first_and_its_command_is_for_copying(rows, broken):
    table = ReportTable("In the score's own terms", ("metric", "a/high"), [("top1", "0.6")])
    answer = [("keep", "Keep it: all."), ("next", "the recipe: djsandbox recipe demo")]
    text = report_html("demo", rows, answer=answer, answer_tables=[table], about="begun today")
    page = Page(text)
    order = ["demo", "begun today", "The answer", "Keep it: all.", "metric", "pools"]
    found = [item for item in page.texts if item in order]
    assert found[found.index("begun today") - 1 :] == order
    assert "<code>djsandbox recipe demo</code>" in text
    alarmed = report_html("demo", broken, answer=answer)
    assert alarmed.index("SELF-TEST FAILED") < alarmed.index("The answer")
    assert "The answer" not in report_html("demo", rows)


def test_controls_are_a_row_of_the_metrics_and_the_configuration_is_last(rows):
    metrics = [Metric("zero_shot/top1", chance=0.125)]
    more = {"metrics": metrics, "configuration": "name: demo\n"}
    page = Page(report_html("demo", rows, controls={"zero_shot/top1": 0.5}, **more))
    start = page.texts.index("controls", page.texts.index("Mean of every metric"))
    assert page.texts[start - 2 : start + 2] == ["chance", "0.125", "controls", "0.5"]
    assert page.texts[-2:] == ["Its configuration", "name: demo"]
    without = Page(report_html("demo", rows, metrics=metrics))
    assert "controls" not in without.texts[without.texts.index("Mean of every metric") :]


def test_a_short_row_is_an_error():
    with pytest.raises(ValueError, match="Ties"):
        ReportTable("Ties", ("a", "b"), [("1",)])
