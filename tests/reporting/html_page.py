"""Reads an HTML page in tests."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = """<script>alert("1")</script>&'x"""
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Reads a page; fails when its tags are not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1:] not in (["script"], ["style"]):
            self.texts.append(data.strip())
