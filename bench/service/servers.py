"""Databases, web servers and workers of a benchmark, started as an operator starts them.

Our API and its peer run under uvicorn with the same arguments, one process each. Logs go to files
in the benchmark's folder, so that no terminal is waited for.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from sqlalchemy import text

from migrations import upgrade
from persistence import api_keys, tenants
from persistence.database import Database
from tests import services

OURS = "service.app:create_app"
_READY_SECONDS = 90.0


@dataclass(frozen=True)
class Process:
    """A running program."""

    pid: int
    log: Path

    def cpu_seconds(self) -> float:
        """Processor time of it and its threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Resident bytes now."""
        return self._status("VmRSS")

    def peak_memory(self) -> int:
        """Most resident bytes since the start or `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Let `peak_memory` count from now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise ValueError(f"/proc/{self.pid}/status has no {name}")


@dataclass(frozen=True)
class WebServer(Process):
    """uvicorn with one application."""

    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def process(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[Process]:
    """Run `python ARGUMENTS` until the block ends."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, *arguments], env=dict(environment), stdout=output, stderr=output
        )
    try:
        yield Process(child.pid, log)
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def web_server(factory: str, environment: Mapping[str, str], folder: Path) -> Iterator[WebServer]:
    """Serve an application until the block ends."""
    port = services.free_port()
    arguments = ["-m", "uvicorn", "--factory", factory, "--host", "127.0.0.1", "--port", str(port),
                 "--no-access-log", "--log-level", "warning"]  # fmt: skip
    log = folder / f"{factory.partition(':')[0]}.{port}.log"
    with process(arguments, environment, log) as started:
        _wait_for_port(port, started)
        yield WebServer(started.pid, log, port)


def _wait_for_port(port: int, started: Process) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if not Path(f"/proc/{started.pid}").exists():
            break
        time.sleep(0.05)
    raise RuntimeError(f"no server on port {port}:\n{started.log.read_text()[-2000:]}")


@dataclass
class Backend:
    """A migrated database, a broker, a folder, and the environment that names them."""

    database: Database
    environment: dict[str, str]
    folder: Path

    def tenant(self, name: str) -> tuple[str, dict[str, str]]:
        """Id of a tenant, and the header that opens the API for it."""
        with self.database.session() as session:
            tenant = tenants.get_or_create(session, name)
            _, secret = api_keys.create(session, tenant_id=tenant.id, name="benchmark")
            return tenant.id, {"Authorization": f"Bearer {secret}"}

    def analyse(self) -> None:
        """Let the planner know what is in the tables, as the server's own upkeep does in time."""
        with self.database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))

    @contextmanager
    def api(self, **settings: str) -> Iterator[WebServer]:
        """Our API."""
        with web_server(OURS, self.environment | settings, self.folder) as server:
            yield server

    @contextmanager
    def module(self, name: str, *arguments: str, ready: str, **settings: str) -> Iterator[Process]:
        """`python -m name`, once its log says that it is ready."""
        log = self.folder / f"{name}.{time.monotonic_ns()}.log"
        environment = self.environment | settings
        with process(["-m", name, *arguments], environment, log) as started:
            deadline = time.monotonic() + _READY_SECONDS
            while ready not in log.read_text(errors="replace"):
                if time.monotonic() > deadline or not Path(f"/proc/{started.pid}").exists():
                    raise RuntimeError(f"{name} did not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.05)
            yield started


@contextmanager
def backend(kind: Literal["server", "embedded"] = "server") -> Iterator[Backend]:
    """A fresh one: PostgreSQL and Redis, or SQLite and the filesystem transport."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="secateur-bench-")))
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SECATEUR_")}
        environment = kept | {"SECATEUR_DATA_DIR": str(folder)}
        if kind == "server":
            postgres = stack.enter_context(services.postgres_server())
            url = stack.enter_context(services.postgres_database(postgres))
            redis = stack.enter_context(services.redis_server())
            environment |= {"SECATEUR_DATABASE_URL": url, "SECATEUR_BROKER_URL": redis.url}
        else:
            url = f"sqlite:///{folder / 'secateur.db'}"
        upgrade(url)
        database = Database(url)
        stack.callback(database.dispose)
        yield Backend(database, environment, folder)
