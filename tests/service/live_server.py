"""The application behind a real web server, in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from persistence import api_keys, tenants
from persistence.database import Database


@dataclass(frozen=True)
class LiveServer:
    """A running server.

    Attributes:
        url: its address.
        port: the same, as a number.
        headers: with a key that opens it.
        pid: its process.
        artifacts: its artifact store.
    """

    url: str
    port: int
    headers: dict[str, str]
    pid: int
    artifacts: Path

    def blobs(self) -> list[Path]:
        """Every file in the artifact store, half-written ones included."""
        return [path for path in self.artifacts.rglob("*") if path.is_file()]


@contextmanager
def live_server(folder: Path) -> Iterator[LiveServer]:
    """Serve the migrated database in `folder` until the block ends."""
    database = Database(f"sqlite:///{folder / 'secateur.db'}")
    with database.session() as session:
        tenant = tenants.get_or_create(session, "live")
        _, secret = api_keys.create(session, tenant_id=tenant.id, name="live")
    database.dispose()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
        with subprocess.Popen(
            [sys.executable, "-m", "service.embedded.web", "--fd", str(listener.fileno())],
            env={**os.environ, "SECATEUR_DATA_DIR": str(folder)},
            pass_fds=(listener.fileno(),),
        ) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                _wait(url, process)
                headers = {"Authorization": f"Bearer {secret}"}
                yield LiveServer(url, port, headers, process.pid, folder / "artifacts")
            finally:
                process.terminate()
                # uvicorn stops in order, then lets the signal end the process
                assert process.wait(20) in (0, -signal.SIGTERM)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended at once"
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the server did not get ready")
