"""A language model behind HTTP that scores texts by their letters, and fails as it is told to."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKENS = 100
"""What every answer costs."""


@dataclass
class Reply:
    """An answer other than the usual one."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """None for the usual one."""
    content: str | None = None
    """The text of an answer that is otherwise as usual."""
    delay: float = 0.0
    usage: bool = True


Trouble = Callable[[str, int], Reply | None]
"""Given a text and how often it was asked about before, what goes wrong."""


class ChatServer:
    """What was asked and how it is answered."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.bodies: list[dict[str, object]] = []
        self.at_once = self.most_at_once = 0
        self.trouble: Trouble = lambda _text, _before: None
        self.url = ""
        self.lock = threading.Lock()

    def answer(self, body: dict[str, object], key: str | None) -> tuple[Reply, str]:
        text = text_of(body)
        with self.lock:
            before = self.asked[text]
            self.asked[text] += 1
            self.keys.add(key)
            self.bodies.append(body)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            reply = self.trouble(text, before) or Reply()
            time.sleep(reply.delay)
        finally:
            with self.lock:
                self.at_once -= 1
        return reply, text


def text_of(body: dict[str, object]) -> str:
    """Return the sample that a request is about."""
    prompt = str(body["messages"][-1]["content"])  # type: ignore[index]
    found = re.search(r"\*\*Text\*\*\n(.*)\n'''", prompt, re.S)
    return found.group(1) if found else prompt


def scores(text: str) -> str:
    """Return what the model says of a text: Data-Juicer's dimensions, scored 1 to 5."""
    names = ("clarity", "relevance", "usefulness", "fluency", "accuracy", "grammar")
    names += ("informativeness", "coherence", "linguistic_complexity", "conceptual_depth")
    names += ("prior_knowledge", "step_complexity", "ambiguity")
    given = {name: 1 + (len(text) + index) % 5 for index, name in enumerate(names)}
    return json.dumps({"dimension_scores": given, "tags": {"topic": "t"}, "rationale": "so"})


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    server = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply, text = server.answer(body, self.headers.get("Authorization"))
            whole = {
                "choices": [{"message": {"role": "assistant", "content": scores(text)}}],
                "usage": {"prompt_tokens": 80, "completion_tokens": 20, "total_tokens": TOKENS},
            }
            if reply.content is not None:
                whole["choices"][0]["message"]["content"] = reply.content  # type: ignore[index]
            if not reply.usage:
                del whole["usage"]
            data = json.dumps(whole).encode() if reply.body is None else reply.body
            try:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # who asked has given up
                self.close_connection = True

        def log_message(self, *_arguments: object) -> None:
            """Keep the tests' output to themselves."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
