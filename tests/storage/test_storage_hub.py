"""Pushing to a stand-in of the hub on this machine; and what is said where that cannot be."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.storage.hub import check_push, push


class Hub(ThreadingHTTPServer):
    """Takes small files as the hub does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.refuse = 0
        """Status of every answer, if it is an error."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        hub = self.server
        self._answer({"error": "you may not"} if hub.refuse else {}, hub.refuse or 200)

    def do_POST(self) -> None:
        hub = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.tokens.add(self.headers.get("Authorization"))
        if hub.refuse:
            self._answer({"error": "you may not"}, hub.refuse)
        elif self.path == "/api/repos/create":
            hub.repositories.append(json.loads(body))
            self._answer({"url": f"{hub.address}/datasets/me/rows"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            files = [
                {"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names
            ]
            self._answer({"files": files})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    hub.files[value["path"]] = base64.b64decode(value["content"])
            url = f"{hub.address}/datasets/me/rows/commit/{'a' * 40}"
            self._answer({"success": True, "commitOid": "a" * 40, "commitUrl": url})
        else:  # the card is looked at
            self._answer({"errors": [], "warnings": []})

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text("---\ntags: [a]\n---\n\n# Rows\n")
    (tmp_path / "000000.parquet").write_bytes(b"PAR1 rows PAR1")
    (tmp_path / "materialised.json").write_text("{}")
    return tmp_path


def test_all_files_get_there_in_a_private_repository(hub: Hub, folder: Path) -> None:
    check_push("me/rows")
    before = constants.HF_HUB_OFFLINE
    assert push(folder, "me/rows", "dataset", ["materialised.json"]).endswith("/datasets/me/rows")
    (made,) = hub.repositories
    assert (made["name"], made["organization"], made["type"]) == ("rows", "me", "dataset")
    assert made.get("private") is True or made.get("visibility") == "private"
    assert set(hub.files) == {"README.md", "000000.parquet"}
    assert hub.files["000000.parquet"] == b"PAR1 rows PAR1"
    assert hub.tokens == {"Bearer hf_secret"}
    assert constants.HF_HUB_OFFLINE is before  # everything else stays without a network


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_said_in_a_sentence(hub: Hub, folder: Path, status: int) -> None:
    hub.refuse = status
    with pytest.raises(BadInput, match=r"pushing to 'me/rows' failed: .*may the token") as caught:
        push(folder, "me/rows", "dataset")
    assert "hf_secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hub_that_is_away_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub
) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(SandboxError, match=r"pushing to 'me/rows' failed.*what was written is in"):
        push(folder, "me/rows", "model")


@pytest.mark.parametrize("name", ["rows", "a/b/c", "me/ro ws", "", "-a/b"])
def test_names_that_cannot_be_are_refused_before_anything(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(BadInput, match="--push"):
        check_push(name)


def test_without_a_token_nothing_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(BadInput, match="no token of Hugging Face"):
        check_push("me/rows")
