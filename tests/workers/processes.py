"""The worker's own processes, started as an operator starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil

from tests.workers.worker_world import WorkerWorld, wait_until

QUICK = {
    "SECATEUR_LEASE_SECONDS": "2",
    "SECATEUR_HEARTBEAT_SECONDS": "0.2",
    "SECATEUR_DISPATCH_SECONDS": "0.05",
    "SECATEUR_RECONCILE_SECONDS": "0.3",
    "SECATEUR_RUNNER_THREADS": "1",
}


class Started:
    """A running process and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 60) -> None:
        def said() -> bool:
            assert self.process.poll() is None, f"ended too early:\n{self.output}"
            return text in self.output

        try:
            wait_until(said, seconds)
        except AssertionError as error:
            raise AssertionError(f"{text!r} did not come:\n{self.output}") from error

    def runners(self) -> list[int]:
        """Pids of the runners this worker started."""
        children = psutil.Process(self.pid).children(recursive=True)
        return [child.pid for child in children if "workers.runner" in child.cmdline()]

    def stop(self, seconds: float = 30) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def start(
    world: WorkerWorld, module: str, *arguments: str, ready: str, **environment: str
) -> Iterator[Started]:
    """Run `python -m module` on the world's database and folders until the block ends."""
    log = world.settings.data_dir / f"{module}.{len(list(world.settings.data_dir.iterdir()))}.log"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SECATEUR_")}
    url = world.database.engine.url.render_as_string(hide_password=False)
    variables = {
        "SECATEUR_DATA_DIR": str(world.settings.data_dir),
        "SECATEUR_DATABASE_URL": url,
        "OMP_NUM_THREADS": "1",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=inherited | variables | QUICK | environment,
            stdout=output,
            stderr=output,
        )
    started = Started(process, log)
    try:
        started.wait_for(ready)
        yield started
    finally:
        started.stop()


def worker(
    world: WorkerWorld, *arguments: str, **environment: str
) -> AbstractContextManager[Started]:
    return start(world, "workers.worker", *arguments, ready="worker ready", **environment)


def dispatcher(
    world: WorkerWorld, *arguments: str, **environment: str
) -> AbstractContextManager[Started]:
    return start(world, "workers.dispatcher", *arguments, ready="dispatcher ready", **environment)
