from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from djsandbox_ray.errors import BadInput
from djsandbox_ray.service import dashboard
from djsandbox_ray.service.dashboard import DEFAULT_ADDRESS, connect_dashboard, find_address


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "api", "ray", "expected"),
    [
        (None, None, None, DEFAULT_ADDRESS),
        ("http://h:1/", "http://a:2", "http://b:3", "http://h:1"),
        ("h:1", None, None, "http://h:1"),
        (None, "http://a:2", "http://b:3", "http://a:2"),
        (None, None, "https://b:3", "https://b:3"),
        (None, None, "auto", DEFAULT_ADDRESS),
    ],
)
def test_the_nearest_word_counts(
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    api: str | None,
    ray: str | None,
    expected: str,
) -> None:
    for name, value in {"RAY_API_SERVER_ADDRESS": api, "RAY_ADDRESS": ray}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    assert find_address(given) == expected


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "ray://head:10001"])
def test_the_address_for_drivers_is_not_taken_for_another(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(BadInput, match=f"RAY_ADDRESS: '{address}' is not .* --address http"):
        find_address(None)


@pytest.mark.parametrize(
    "address", ["http://", "ftp://h", "ray://h:1", "http://h:port", "http://[h", "h:0"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(BadInput, match="--address"):
        find_address(address)


@pytest.mark.parametrize("address", ["http://me:planted@h", "me:planted@h:8265"])
def test_a_password_in_the_address_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match=r"--address.*RAY_AUTH_TOKEN") as caught:
        find_address(address)
    assert "planted" not in str(caught.value)


def test_somebody_listens_who_does_not_speak_http() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer() -> None:
            caller, _ = server.accept()
            caller.recv(1024)
            caller.sendall(b"\x00\x1b[2J\x04 no HTTP\r\n\r\n")
            caller.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(BadInput, match=r"no Ray dashboard answers .*BadStatusLine") as caught:
            connect_dashboard(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert "\x1b" not in str(caught.value)


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(BadInput, match=f"no Ray dashboard answers at http://127.0.0.1:{port}"):
        connect_dashboard(f"http://127.0.0.1:{port}")


def test_somebody_listens_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "PATIENCE", 0.2)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        with pytest.raises(BadInput, match="timed out"):
            connect_dashboard(f"http://127.0.0.1:{mute.getsockname()[1]}")


class Stranger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_another_server_is_no_dashboard(stranger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://not.asked:1")
    with pytest.raises(BadInput, match=f"{stranger} takes no jobs: .*404"):
        connect_dashboard(stranger)


def test_the_docs_name_the_port_that_is_asked() -> None:
    root = Path(__file__).resolve().parents[2]
    pages = [root / "README.md", *(root / "docs").glob("*.md")]
    named = [
        re.findall(r"http://(?:HEAD|127\.0\.0\.1):(82\d\d)", page.read_text()) for page in pages
    ]
    assert {int(port) for ports in named for port in ports} == {dashboard.PORT}
