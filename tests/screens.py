"""Pictures of pages, by headless Chromium: the same that a person would open."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_server import Prometheus

SIZE = "1600,1000"
PANELS = Path(__file__).parent / "cluster" / "grafana_panels"
SCRAPED = 10
"""Seconds between two samples."""


def picture(url: str, path: Path, *, seconds: int = 15, size: str = SIZE) -> None:
    """Take a picture of a page once its scripts have had so many seconds."""
    _browse(url, f"--screenshot={path}", f"--window-size={size}", seconds=seconds)
    assert path.stat().st_size > 10_000, f"nothing to see at {url}"


def document(url: str) -> str:
    """Return the HTML that the scripts of a page have made."""
    return _browse(url, "--dump-dom", seconds=15)


def _browse(url: str, *wanted: str, seconds: int) -> str:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        return subprocess.run(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--virtual-time-budget={1000 * seconds}",
                f"--timeout={4000 * seconds}",
                *wanted,
                url,
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        ).stdout


def dashboard_picture(server: Prometheus, dashboard: Any, path: Path, **chosen: str) -> None:
    """Draw a dashboard of Grafana with its own components, over the time of the runs.

    Args:
        server: where its expressions are asked.
        dashboard: its JSON.
        path: of the picture.
        chosen: values of variables; the others are what the dashboard begins with.
    """
    if shutil.which("npm") is None:
        warnings.warn(f"{path.name} is not drawn: there is no npm (Node.js)", stacklevel=2)
        return
    data = _answers(server, dashboard, chosen)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "page"
        shutil.copytree(PANELS, folder, ignore=shutil.ignore_patterns("node_modules"))
        # Nothing that a package brings is run but esbuild.
        _npm(folder, "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund")
        _npm(folder, "run", "build")
        (folder / "data.json").write_text(json.dumps(data))
        places = [panel["gridPos"] for panel in dashboard["panels"]]
        height = 50 + 38 * max(place["y"] + place["h"] for place in places)
        with served(folder) as (url, drawn):
            picture(url, path, size=f"1600,{height}")
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert drawn == [titles], f"{path} shows {drawn}"


def _npm(folder: Path, *words: str) -> None:
    command = ["npm", *words, "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _answers(server: Prometheus, dashboard: Any, chosen: dict[str, str]) -> dict[str, Any]:
    """Return what the page reads; every panel asks for a range, as in Grafana."""
    variables: dict[str, str] = {}
    for one in dashboard["templating"]["list"]:
        if one["type"] != "datasource":
            begins = one["current"]["value"]
            begins = one["allValue"] if begins == "$__all" else begins
            variables[one["name"]] = chosen.get(one["name"], begins)
    began = "ray_djsandbox_run_start_time_seconds"
    begin = min(value for _, value in server.query(f"min_over_time({began}[6h])"))
    end = max(value for _, value in server.query(f"max_over_time(timestamp({began})[6h:10s])"))
    begin, end = (begin // SCRAPED - 3) * SCRAPED, (end // SCRAPED + 3) * SCRAPED
    over = {"start": str(begin), "end": str(end), "step": str(SCRAPED)}
    answers: dict[int, list[Any]] = {}
    for panel in dashboard["panels"]:
        answers[panel["id"]] = []
        for target in panel.get("targets", ()):
            query = target["expr"]
            for name, value in variables.items():
                query = query.replace(f"${name}", value)
            result = server.ask("query_range", query=query, **over)["result"]
            answers[panel["id"]].append({"target": target, "result": result})
    times = {"from": 1000 * begin, "to": 1000 * end, "step": 1000 * SCRAPED}
    return {"dashboard": dashboard, "variables": variables, "answers": answers, **times}


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[Any]]]:
    """Serve a folder on the loopback; the list fills with what is posted."""
    posted: list[Any] = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, directory=str(folder))

        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/", posted
        finally:
            server.shutdown()
