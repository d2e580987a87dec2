"""The page of a run as people see it, on a telephone and on a wide screen."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from screens import document, picture, served
from small_runs import Ran

pytestmark = pytest.mark.integration

NARROWEST = 500
"""Pixels: no window of Chromium is narrower, a frame in it may be."""
HEIGHT = 3000
FRAME = """<!doctype html><title></title><body style="margin: 0">
<iframe src="report.html" style="border: 0; width: {width}px; height: {height}px"
 onload="document.title = this.contentDocument.documentElement.scrollWidth"></iframe>"""


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_is_as_wide_as_its_window(finished_run: Ran, tmp_path: Path, width: int) -> None:
    """With SCREENSHOTS=FOLDER the pictures stay there, to be looked at."""
    folder = tmp_path / "pages"
    folder.mkdir()
    shutil.copy(finished_run.folder / "report.html", folder)
    (folder / "frame.html").write_text(FRAME.format(width=width, height=HEIGHT))
    shots = Path(os.environ.get("SCREENSHOTS", tmp_path))
    with served(folder) as (url, _):
        size = f"{max(width, NARROWEST)},{HEIGHT}"
        picture(f"{url}frame.html", shots / f"report_{width}.png", size=size)
        title = re.search(r"<title>(.*?)</title>", document(f"{url}frame.html"))
    assert title is not None
    assert title[1] == str(width), "something makes the page scroll sideways"
