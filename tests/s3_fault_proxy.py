"""A proxy in front of an S3 server that fails as networks and servers do, on demand.

    with s3_fault_proxy(server.port) as proxy:
        settings = Settings(**server.settings(bucket, url=proxy.url))
        proxy.add(Fault("status", status=503, times=2))       # the next two requests
        proxy.add(Fault("truncate", method="GET", after=100)) # the body ends after 100 bytes
        proxy.add(Fault("reset", method="PUT", times=None))   # every PUT, until proxy.clear()

Faults are looked at in the order they were added; the first that matches is used up by one.
Requests without a fault pass through unchanged. `proxy.requests` lists what came.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

HOST = "127.0.0.1"
_CHUNK = 1 << 16
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass
class Fault:
    """What goes wrong with a request.

    Attributes:
        kind: `status`: an error answer, without asking the server. `reset`: the connection is
            reset, without asking the server. `lost`: the server does what was asked, and the
            connection is reset instead of its answer. `hang`: nothing comes for `seconds`, then
            a reset. `truncate`: `after` bytes of the body, then the connection closes. `slow`:
            the body comes in `pieces` of equal size, each after `seconds`. `corrupt`: the body's
            last byte is another one. `garble`: the request's body arrives with another last byte,
            which is refused as S3 refuses it when a digest was sent with it.
        times: how many requests; None for all until `clear`.
        method: only requests of this method.
        matching: only requests whose path or query has this text.
        status: of `status`.
        code: the error code in the answer's XML.
        after: of `truncate`.
        seconds: of `hang` and `slow`.
        pieces: of `slow`.
    """

    kind: Literal["status", "reset", "lost", "hang", "truncate", "slow", "corrupt", "garble"]
    times: int | None = 1
    method: str | None = None
    matching: str = ""
    status: int = 503
    code: str = "SlowDown"
    after: int = 0
    seconds: float = 0.0
    pieces: int = 10

    def matches(self, method: str, target: str) -> bool:
        return self.method in (None, method) and self.matching in target


class S3FaultProxy:
    """The proxy; see the module. Safe to use from several threads."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.requests: list[tuple[str, str]] = []
        """Method and path with query of every request."""
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer((HOST, 0), _handler(self))
        self._server.daemon_threads = True
        # an idle kept-alive connection must not hold up the end
        self._server.block_on_close = False

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def add(self, fault: Fault) -> None:
        """Have the fault happen."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Have no more faults, and forget the requests."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()

    def take(self, method: str, target: str) -> Fault | None:
        """Note a request; the fault that it meets."""
        with self._lock:
            self.requests.append((method, target))
            for fault in self._faults:
                if fault.times == 0 or not fault.matches(method, target):
                    continue
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def run(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def s3_fault_proxy(upstream_port: int) -> Iterator[S3FaultProxy]:
    """Run a proxy in front of the server on this port until the block ends."""
    proxy = S3FaultProxy(upstream_port)
    thread = threading.Thread(target=proxy.run, name="s3 fault proxy", daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(10)


def _changed(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1]) if content else content


def _handler(proxy: S3FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.proxy = proxy
    return Handler


class _Handler(BaseHTTPRequestHandler):
    proxy: S3FaultProxy
    protocol_version = "HTTP/1.1"
    timeout = 120

    def _serve(self) -> None:
        fault = self.proxy.take(self.command, self.path)
        body = self._body()
        kind = None if fault is None else fault.kind
        try:
            if fault is not None and kind == "hang":
                self.proxy.closing.wait(fault.seconds)
            if kind in ("hang", "reset"):
                self._reset()
            elif fault is not None and kind == "status":
                self._refuse(fault)
            elif not self._as_announced(_changed(body) if kind == "garble" else body):
                self._refuse(Fault("status", status=400, code="XAmzContentSHA256Mismatch"))
            else:
                self._forward(_changed(body) if kind == "garble" else body, fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client gave up first

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 (the base class's names)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _as_announced(self, body: bytes) -> bool:
        """Whether the body has the SHA-256 that was sent with it, which the tests' server would
        not look at."""
        digest = hashlib.sha256(body)
        signed = self.headers.get("x-amz-content-sha256", "")
        given = self.headers.get("x-amz-checksum-sha256")
        return (len(signed) != 64 or signed == digest.hexdigest()) and (
            given is None or given == base64.b64encode(digest.digest()).decode()
        )

    def _refuse(self, fault: Fault) -> None:
        text = f"<Error><Code>{fault.code}</Code><Message>on demand</Message></Error>".encode()
        self.send_response(fault.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _reset(self) -> None:
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)  # closing then sends RST, not FIN
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        # the reader and the writer hold the socket open as well, and the base class flushes
        reader, writer, self.rfile, self.wfile = self.rfile, self.wfile, io.BytesIO(), io.BytesIO()
        with contextlib.suppress(OSError):
            reader.close()
            writer.close()
        self.connection.close()

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        upstream = http.client.HTTPConnection(HOST, self.proxy.upstream_port, timeout=60)
        with contextlib.closing(upstream):
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in _HOP_BY_HOP | {"expect", "content-length"}
            }
            if body or self.command in ("PUT", "POST"):
                headers["Content-Length"] = str(len(body))
            upstream.request(self.command, self.path, body or None, headers)
            answer = upstream.getresponse()
            content = answer.read()
        if fault is not None and fault.kind == "lost":
            self._reset()
            return
        if fault is not None and fault.kind == "corrupt" and content:
            content = _changed(content)
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        if answer.status not in (204, 304):
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self._send(content, fault)

    def _send(self, content: bytes, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "truncate":
            self.wfile.write(content[: fault.after])
            self.wfile.flush()
            self.close_connection = True
            return
        if fault is not None and fault.kind == "slow":
            step = max(1, -(-len(content) // fault.pieces))
            for start in range(0, len(content), step):
                if self.proxy.closing.wait(fault.seconds):
                    break
                self.wfile.write(content[start : start + step])
                self.wfile.flush()
            return
        for start in range(0, len(content), _CHUNK):
            self.wfile.write(content[start : start + _CHUNK])
