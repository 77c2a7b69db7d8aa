"""A whole installation as processes: API, dispatcher, reconciler and workers around a private
database and a private broker. What is killed is started again, as an init system would do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil
from secateur.client import Secateur

from migrations import upgrade
from persistence import api_keys, tenants
from persistence.artifact_store import ArtifactStore, open_store
from persistence.database import Database
from persistence.settings import Settings
from tests import services
from tests.faults import servers
from tests.faults.disk import SmallDisk, small_disk
from tests.s3_fault_proxy import S3FaultProxy, s3_fault_proxy
from tests.s3_server import S3Server, s3_server

Store = Literal["folder", "disk", "s3"]
"""Files in a folder, on a small disk of their own, or in a bucket."""
WORKERS = 3
LEASE_SECONDS = 6.0
PATIENCE_SECONDS = 120.0
QUICK = {
    "SECATEUR_LEASE_SECONDS": str(LEASE_SECONDS),
    "SECATEUR_HEARTBEAT_SECONDS": "0.5",
    "SECATEUR_DISPATCH_SECONDS": "0.1",
    "SECATEUR_RECONCILE_SECONDS": "0.5",
    "SECATEUR_REQUEUE_AFTER_SECONDS": "4",
    "SECATEUR_RUNNER_THREADS": "1",
    # these tests kill the same jobs more often than any bad job would kill its workers
    "SECATEUR_MAX_ATTEMPTS": "1000",
    "OMP_NUM_THREADS": "1",
}


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until something is so; complain when it is not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)


@dataclass
class Part:
    """One process of the installation, which may be killed and started again."""

    name: str
    module: list[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; does not wait until it is ready."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.module],
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def kill(self, *, group: bool = False) -> None:
        """SIGKILL, to it alone or with its process group."""
        assert self.process is not None
        (os.killpg if group else os.kill)(self.pid, signal.SIGKILL)
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to what has not ended in time."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def runners(self) -> list[int]:
        """Pids of the runners that this worker started."""
        try:
            return [
                child.pid
                for child in psutil.Process(self.pid).children(recursive=True)
                if "workers.runner" in " ".join(child.cmdline())
            ]
        except psutil.Error:
            return []


@dataclass
class Cluster:
    """The installation.

    Attributes:
        folder: of everything but the servers.
        database: opened by these tests as well.
        store: the artifact store, likewise.
        postgres: the database server.
        broker: Redis or RabbitMQ.
        url: of the API.
        api_key: of the one tenant.
        extra: environment of workers besides that of all parts.
        disk: that artifacts and scratch folders lie on, if it is one of its own.
        bucket: of an object store that takes the place of the folder of artifacts, behind a proxy.
    """

    folder: Path
    postgres: servers.Server
    broker: servers.Server
    extra: Mapping[str, str] = field(default_factory=dict)
    disk: SmallDisk | None = None
    bucket: Bucket | None = None
    parts: dict[str, Part] = field(default_factory=dict)
    port: int = field(default_factory=services.free_port)
    api_key: str = ""

    def __post_init__(self) -> None:
        self.database = Database(self.postgres.url)
        self.store: ArtifactStore = open_store(self._settings())
        self.url = f"http://{services.HOST}:{self.port}"

    @property
    def files(self) -> Path:
        """Where artifacts and scratch folders lie."""
        return self.folder if self.disk is None else self.disk.root

    @property
    def artifacts(self) -> Path:
        """Folder of the artifact store."""
        return self.files / "artifacts"

    @property
    def scratch(self) -> Path:
        """Folder of running jobs, shared by the workers as on one machine."""
        return self.files / "scratch"

    def heal(self) -> None:
        """End what lasts."""
        if self.disk is not None:
            self.disk.empty()
        if self.bucket is not None:
            self.bucket.proxy.clear()

    @property
    def workers(self) -> list[Part]:
        """The worker processes."""
        return [part for name, part in self.parts.items() if name.startswith("worker")]

    def runners(self) -> list[int]:
        """Pids of all runners of this installation, whoever their parent is now."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if "workers.runner" in line and str(self.scratch) in line:
                found.append(process.pid)
        return found

    def client(self) -> Secateur:
        """A client of the API."""
        return Secateur(self.url, self.api_key)

    def start(self) -> None:
        """Migrate, make a key, start every part and wait until the API serves."""
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self.scratch.mkdir(exist_ok=True)
        upgrade(self.postgres.url)
        with self.database.session() as session:
            tenant = tenants.get_or_create(session, "faults")
            _, self.api_key = api_keys.create(session, tenant_id=tenant.id, name="faults")
        uvicorn = ["uvicorn", "--factory", "service.app:create_app"]
        self._add("api", [*uvicorn, "--host", services.HOST, "--port", str(self.port)])
        self._add("dispatcher", ["workers.dispatcher", "--only", "dispatch"])
        self._add("reconciler", ["workers.dispatcher", "--only", "reconcile"])
        for number in range(WORKERS):
            self._add(f"worker{number}", ["workers.worker"], self.extra)
        for part in self.parts.values():
            part.start()
        self.wait_until_served()

    def wait_until_served(self) -> None:
        """Wait until the API can serve requests."""

        def ready() -> bool:
            assert self.parts["api"].alive, self.parts["api"].log.read_text()[-3000:]
            try:
                return httpx.get(f"{self.url}/readyz", trust_env=False).is_success
            except httpx.TransportError:
                return False

        until(ready, "the API is ready")

    def stop(self) -> None:
        """End every part."""
        for part in self.parts.values():
            part.stop()
        self.database.dispose()

    def _add(self, name: str, module: list[str], extra: Mapping[str, str] | None = None) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SECATEUR_")}
        own = {
            "SECATEUR_DATA_DIR": str(self.folder),
            "SECATEUR_SCRATCH_DIR": str(self.scratch),
            "SECATEUR_ARTIFACT_DIR": str(self.artifacts),
            "SECATEUR_DATABASE_URL": self.postgres.url,
            "SECATEUR_BROKER_URL": self.broker.url,
        }
        if self.bucket is not None:
            own |= self.bucket.environment
        environment = inherited | QUICK | own | dict(extra or {})
        self.parts[name] = Part(name, module, environment, self.folder / f"{name}.log")

    def _settings(self) -> Settings:
        """Of the artifact store, for these tests."""
        place = {"data_dir": self.folder, "artifact_dir": self.artifacts}
        kept = {} if self.bucket is None else self.bucket.settings
        return Settings(**{**place, **kept})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Bucket:
    """A bucket behind a proxy that fails on demand."""

    server: S3Server
    name: str
    proxy: S3FaultProxy

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of `Settings`."""
        return self.server.settings(self.name, url=self.proxy.url)

    @property
    def environment(self) -> dict[str, str]:
        """The same for a process."""
        given = {f"SECATEUR_{name.upper()}": str(value) for name, value in self.settings.items()}
        return given | self.server.environment


@contextmanager
def _bucket() -> Iterator[Bucket]:
    with (
        s3_server() as server,
        server.credentials(),
        s3_fault_proxy(server.port) as proxy,
    ):
        yield Bucket(server, server.make_bucket(), proxy)


@contextmanager
def cluster(
    folder: Path, broker: str, extra: Mapping[str, str] | None = None, store: Store = "folder"
) -> Iterator[Cluster]:
    """An installation that runs until the block ends; its logs stay in `folder` when it fails."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        postgres = stack.enter_context(servers.postgres())
        messages = stack.enter_context(servers.BROKERS[broker]())
        disk = stack.enter_context(small_disk(folder / "disk")) if store == "disk" else None
        bucket = stack.enter_context(_bucket()) if store == "s3" else None
        made = Cluster(folder, postgres, messages, extra or {}, disk, bucket)
        stack.callback(made.stop)
        made.start()
        yield made
    shutil.rmtree(folder, ignore_errors=True)
