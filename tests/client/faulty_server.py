"""A real HTTP server on the loopback address that breaks off where a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the next answer of the script; the last one repeats."""

    server: FaultyServer
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        self.server.requests.append(Seen(self.command, self.path, dict(self.headers), body))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - names of the standard library

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def send(
        self, status: int, body: bytes = b"", *, cut: int | None = None, **headers: str
    ) -> None:
        """Send a body, or only its first `cut` bytes and then hang up."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def send_json(self, data: Any, status: int = 200, **headers: str) -> None:
        kind = "application/json" if status < 400 else "application/problem+json"
        self.send(status, json.dumps(data).encode(), Content_Type=kind, **headers)


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Script:
    url: str
    requests: list[Seen] = field(default_factory=list)


class FaultyServer(ThreadingHTTPServer):
    answers: list[Answer]
    requests: list[Seen]


@contextmanager
def serving(*answers: Answer) -> Iterator[Script]:
    server = FaultyServer(("127.0.0.1", 0), Handler)
    server.answers, server.requests = list(answers), []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield Script(f"http://127.0.0.1:{server.server_port}", server.requests)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def refuse(status: int, **headers: str) -> Answer:
    problem = {"type": "/problems/x", "title": "no", "status": status, "hint": "do that"}
    return lambda handler: handler.send_json(problem, status, **headers)


def answer(data: Any) -> Answer:
    return lambda handler: handler.send_json(data)
