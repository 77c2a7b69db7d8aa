"""An embedded server of the demonstration's own, for as long as it is needed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secateur.discovery import Endpoint, read_client_file
from secateur.errors import SecateurError

START_SECONDS = 60
STOP_SECONDS = 30


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def embedded_server(folder: Path, **settings: str) -> Iterator[Endpoint]:
    """Start `secateur serve` on a free port with its data in `folder`; stop it at the end.

    Args:
        folder: its data folder, which must not exist yet.
        settings: further environment, `SECATEUR_...`.

    Raises:
        SecateurError: it did not get ready; the hint names its log.
    """
    folder.mkdir(parents=True)
    log = folder / "server.log"
    port = str(_free_port())
    command = ["-m", "service.embedded", "--port", port, "--data-dir", str(folder)]
    # Its own state folder: a server the user runs meanwhile stays the one the CLI finds.
    environment = os.environ | {"XDG_STATE_HOME": str(folder / "state")} | settings
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=output, stderr=output, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        yield _wait_until_ready(process, folder / "client.json", log)
    finally:
        _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], client_file: Path, log: Path) -> Endpoint:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SecateurError(f"the server stopped at once; its log is {log}", hint=_tail(log))
        endpoint = read_client_file(client_file)
        if endpoint is not None and _answers(endpoint.url):
            return endpoint
        time.sleep(0.1)
    raise SecateurError(
        f"the server did not get ready in {START_SECONDS} s; its log is {log}", hint=_tail(log)
    )


def _answers(url: str) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])
