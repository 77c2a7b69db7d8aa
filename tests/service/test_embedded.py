"""Embedded mode as a user starts it: real processes, real signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from service.embedded import address, credentials, data_folder
from service.embedded.children import Child
from service.embedded.problems import CannotStart


def until(condition: Callable[[], object], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


@contextmanager
def embedded(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "service.embedded", "--data-dir", str(folder), *arguments]
    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(folder.parent / "state"),
        # of a server; an embedded one must not be led astray by it
        "SECATEUR_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:1/none",
        "SECATEUR_BROKER_URL": "redis://127.0.0.1:1/0",
    }
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill() if process.poll() is None else None


def children_by_name(pid: int) -> dict[str, psutil.Process]:
    found = {}
    for child in psutil.Process(pid).children():
        line = " ".join(child.cmdline())
        for name in ("service.embedded.web", "workers.dispatcher", "workers.worker"):
            if f"-m {name}" in line:
                found[name] = child
    return found


def test_a_server_from_start_to_stop(tmp_path: Path, model_file: bytes) -> None:
    folder = tmp_path / "data"
    user_file = tmp_path / "state" / "secateur" / "embedded.json"
    with embedded(folder, "--port", "0") as server:
        assert server.stdout is not None
        ready = server.stdout.readline()
        assert ready.startswith("Secateur is ready at http://127.0.0.1:"), ready
        client_file = json.loads((folder / "client.json").read_text())
        assert client_file["url"] in ready
        assert client_file["pid"] == server.pid
        assert json.loads(user_file.read_text()) == client_file
        for path in (folder / "client.json", folder / "api_key", user_file):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        headers = {"Authorization": f"Bearer {client_file['api_key']}"}
        client = httpx.Client(base_url=client_file["url"], headers=headers, timeout=30)

        # the API dies: it comes back on the same port, and nobody was refused meanwhile
        before = children_by_name(server.pid)
        assert len(before) == 3
        before["service.embedded.web"].kill()
        assert client.get("/v1/models").status_code == 200
        after = children_by_name(server.pid)
        assert after["service.embedded.web"].pid != before["service.embedded.web"].pid
        assert "api process ended with code -9" in server.stdout.readline()

        # a second server in the same folder is refused, by name
        with embedded(folder, "--port", "0") as second:
            _, complaint = second.communicate(timeout=60)
            assert second.returncode == 1
            assert f"in use by another server (process {server.pid})" in complaint
            assert "--data-dir" in complaint

        # a worker is there: an upload gets inspected
        model = client.post("/v1/models", content=model_file).json()
        path = f"/v1/models/{model['id']}"
        assert until(lambda: client.get(path).json()["status"] != "uploaded", 90)
        assert client.get(path).json()["status"] == "ready", client.get(path).json()

        family = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert not [child for child in family if child.is_running()]
    assert not user_file.exists()
    assert not (folder / "client.json").exists()
    assert (folder / "api_key").read_text() == client_file["api_key"]


def test_children_do_not_outlive_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, time\n"
        "from service.embedded.children import Child\n"
        "child = Child('c', ['-c', 'import time; time.sleep(60)'], dict(os.environ),\n"
        f"              pathlib.Path({str(tmp_path / 'c.log')!r}))\n"
        "child.start()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        child = psutil.Process(int(supervisor.stdout.readline()))
        assert child.is_running()
        supervisor.kill()
    assert until(lambda: not child.is_running())


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with embedded(tmp_path / "data", "--port", str(port)) as server:
            _, complaint = server.communicate(timeout=60)
    assert server.returncode == 1
    assert f"Port {port} on 127.0.0.1 is in use" in complaint
    assert "--port" in complaint


def test_a_port_that_is_no_port(tmp_path: Path) -> None:
    with embedded(tmp_path / "data", "--port", "70000") as server:
        _, complaint = server.communicate(timeout=60)
    assert server.returncode == 2
    assert "between 0 and 65535" in complaint


def test_the_folder_is_free_again_after_its_holder(tmp_path: Path) -> None:
    with (
        data_folder.held(tmp_path),
        pytest.raises(CannotStart, match=str(os.getpid())),
        data_folder.held(tmp_path),
    ):
        pass
    with data_folder.held(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_port_0_takes_a_free_port() -> None:
    with address.listen(0) as first, address.listen(0) as second:
        assert address.url_of(first) != address.url_of(second)
        assert first.getsockname()[0] == "127.0.0.1"


def test_another_servers_files_are_not_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    mine = credentials.ClientFile("http://127.0.0.1:1", "sk_a", 1)
    theirs = credentials.ClientFile("http://127.0.0.1:2", "sk_b", 2)
    credentials.announce(tmp_path / "a", mine)
    credentials.announce(tmp_path / "b", theirs)  # came later, so it is the user's server now
    credentials.withdraw(tmp_path / "a", 1)
    own, user = credentials.client_files(tmp_path / "b")
    assert not credentials.client_files(tmp_path / "a")[0].exists()
    assert own.exists()
    assert json.loads(user.read_text())["url"] == theirs.url
    credentials.withdraw(tmp_path / "b", 2)
    assert not user.exists()


def child(tmp_path: Path, code: str) -> Child:
    return Child("test", ["-c", code], dict(os.environ), tmp_path / "logs" / "test.log")


def test_a_dying_child_is_restarted_with_growing_pauses(tmp_path: Path) -> None:
    dying = child(tmp_path, "import sys; print('again'); sys.exit(3)")
    dying.start()
    pauses: list[float] = []
    while len(pauses) < 3:
        if (code := dying.tend()) is not None:
            assert code == 3
            pauses.append(dying.seconds_to_restart)
        time.sleep(0.02)
    assert [round(pause, 1) for pause in pauses] == [0.5, 1.0, 2.0]
    assert dying.restarts == 2
    assert dying.tail().splitlines() == ["again"] * 3


def test_a_child_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True)"
    stubborn = child(tmp_path, f"{code}; time.sleep(60)")
    stubborn.start()
    pid = stubborn.pid
    assert pid is not None
    assert until(lambda: stubborn.tail() == "up")
    stubborn.terminate()
    started = time.monotonic()
    stubborn.wait(0.3)
    assert time.monotonic() - started < 5
    assert not psutil.pid_exists(pid)
