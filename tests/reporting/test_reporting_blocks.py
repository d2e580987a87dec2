from __future__ import annotations

import base64

import pytest
from html_page import HOSTILE, Page

from djsandbox_ray.reporting.blocks import (
    Chapter,
    Listing,
    Picture,
    ReportTable,
    Sentences,
    chapter_html,
    table_html,
)
from djsandbox_ray.reporting.report import report_html


def chapter(text: str) -> Chapter:
    blocks = [
        ReportTable(text, (text, ""), [(text, "helps")]),
        Picture(text, b"\x89PNG"),
        Listing(text, f"{text}\n  {text}"),
        Sentences(text, [text, text]),
    ]
    return Chapter(text, [text], blocks, headline=text)


def test_every_kind_of_block_is_shown_in_its_order():
    page = Page(chapter_html(chapter("here"), "one"))
    tags = ("h2", "p", "h3", "table", "img", "pre", "ul", "li")
    assert [tag for tag in page.tags if tag in tags] == [
        *("h2", "p", "h3", "table", "img", "h3", "pre", "h3", "ul", "li", "li")
    ]
    assert {("id", "one"), ("alt", "here"), ("class", "helps")} <= set(page.attributes)
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
    text = table_html(ReportTable("t", ("number", "words"), [("+12.50", "so " * 30)]))
    assert '<td class="short">+12.50</td>' in text
    assert "<td>so so" in text


def test_a_short_row_is_an_error():
    with pytest.raises(ValueError, match="Ties"):
        chapter_html(Chapter("c", [], [ReportTable("Ties", ("a", "b"), [("1",)])]), "c")
