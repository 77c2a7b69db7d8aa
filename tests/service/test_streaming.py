"""What only a real server shows: bodies that break off, constant memory, streams side by side."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from persistence import job_queue
from persistence.database import Database
from tests.service.live_server import LiveServer, live_server

MIB = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("live")
    shutil.copy(migrated_sqlite, folder / "secateur.db")
    with live_server(folder) as running:
        yield running


def settled(server: LiveServer, count: int) -> bool:
    """Whether the store comes down to so many files soon."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if len(server.blobs()) == count:
            return True
        time.sleep(0.05)
    return False


def raw_request(server: LiveServer, head: str, body: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    key = server.headers["Authorization"]
    text = f"POST /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\n{head}\r\n"
    connection.sendall(text.encode() + body)
    return connection


def whole_answer(connection: socket.socket) -> str:
    """All the server says until it hangs up: head and body may come in separate segments."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces).decode()


def test_a_client_that_hangs_up_leaves_nothing(server: LiveServer) -> None:
    before = len(server.blobs())
    body = b"x" * 3 * MIB
    announced = raw_request(server, f"Content-Length: {10 * MIB}\r\n", body)
    chunk = f"{len(body):x}\r\n".encode() + body
    chunked = raw_request(server, "Transfer-Encoding: chunked\r\n", chunk)
    form_head = f"Content-Length: {10 * MIB}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    form = b"--b\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n" + body
    half_form = raw_request(server, form_head, form)
    deadline = time.monotonic() + 10
    while len(server.blobs()) < before + 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(server.blobs()) == before + 3  # all three are being received
    for connection in (announced, chunked, half_form):
        connection.close()
    assert settled(server, before)
    assert httpx.get(f"{server.url}/v1/models", headers=server.headers).json()["data"] == []


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(
    server: LiveServer,
) -> None:
    before = len(server.blobs())
    with raw_request(server, f"Content-Length: {2**40}\r\n", b"") as connection:
        answer = whole_answer(connection)
    assert answer.startswith("HTTP/1.1 413 ")
    assert "/problems/upload-too-large" in answer
    assert "connection: close" in answer.lower()
    assert len(server.blobs()) == before


def test_a_large_upload_takes_no_memory(server: LiveServer) -> None:
    """300 MB of a file that turns out to be no model: received, hashed, judged and removed."""
    size = 300 * MIB
    process = psutil.Process(server.pid)
    httpx.post(f"{server.url}/v1/models", content=b"warm up", headers=server.headers)
    before = process.memory_info().rss
    peak = before
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    piece = bytes(MIB)
    digest = hashlib.sha256()
    for _ in range(size // MIB):
        digest.update(piece)
    headers = {**server.headers, "X-Content-SHA256": digest.hexdigest()}
    try:
        response = httpx.post(
            f"{server.url}/v1/models",
            content=(piece for _ in range(size // MIB)),
            headers=headers,
            timeout=120,
        )
    finally:
        done.set()
        watcher.join()
    # the digest fits, so every byte arrived; then the gate looked at it
    assert response.json()["type"] == "/problems/not-torchscript", response.text
    assert peak - before < 64 * MIB, f"grew by {(peak - before) / MIB:.0f} MiB"
    assert settled(server, 0)


def test_many_waiters_take_no_thread_each(server: LiveServer, model_file: bytes) -> None:
    """More long polls than the server has worker threads, and it still answers at once."""
    options = {"base_url": server.url, "headers": server.headers, "timeout": 40}
    with httpx.Client(limits=httpx.Limits(max_connections=100), **options) as client:
        model = client.post("/v1/models", content=model_file).json()
        recipe = {
            "inputs": [{"shape": [1, 1, 8, 8]}],
            "stages": [{"stage": "prune", "allocation": {"amount": 0.5}}],
        }
        job = client.post("/v1/jobs", json={"model_id": model["id"], "recipe": recipe}).json()
        statuses: list[str] = []

        def wait() -> None:
            statuses.append(client.get(f"/v1/jobs/{job['id']}?wait=30").json()["status"])

        waiters = [threading.Thread(target=wait) for _ in range(60)]
        for waiter in waiters:
            waiter.start()
        time.sleep(1)
        started = time.monotonic()
        assert client.get("/v1/limits").status_code == 200
        assert time.monotonic() - started < 15  # the polls would hold it for 30
        assert psutil.Process(server.pid).num_threads() < 60
        client.post(f"/v1/jobs/{job['id']}/cancel")
        for waiter in waiters:
            waiter.join(30)
        assert statuses == ["canceled"] * 60


def test_events_arrive_while_they_happen(server: LiveServer, model_file: bytes) -> None:
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=30) as client:
        client.post("/v1/models", content=model_file)
        [job] = client.get("/v1/jobs?type=inspect").json()["data"]
        database = Database(f"sqlite:///{server.artifacts.parent / 'secateur.db'}")
        with database.session() as session:
            held = job_queue.claim(session, job["id"], "worker", 600)
        assert held is not None
        url = f"/v1/jobs/{job['id']}/events"
        with client.stream("GET", url, headers={"Accept": "text/event-stream"}) as response:
            lines = response.iter_lines()
            for number in range(3):
                with database.session() as session:
                    job_queue.append_event(session, held, "log", {"number": number})
                written = time.monotonic()
                assert f'"number":{number}' in next(x for x in lines if f'"number":{number}' in x)
                assert time.monotonic() - written < 10  # none waits for the end of the stream
            with database.session() as session:
                job_queue.finish(session, held, "canceled")
            assert "event: canceled" in list(lines)
        database.dispose()
