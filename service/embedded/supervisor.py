"""The supervisor: migrates, makes the key, runs the children, and stops them in order."""

from __future__ import annotations

import http.client
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import migrations
from persistence.database import Database
from persistence.settings import Settings
from service.embedded import address, credentials, data_folder
from service.embedded.children import Child
from service.embedded.problems import CannotStart

_START_SECONDS = 60.0
_STOP_SECONDS = 12.0
_DRAIN_SECONDS = "3"
_TICK_SECONDS = 0.1
# An embedded server is these two by definition; a server's environment must not leak into it.
_NOT_EMBEDDED = ("SECATEUR_DATABASE_URL", "SECATEUR_BROKER_URL")


class Supervisor:
    """One embedded server.

    Args:
        folder: data folder.
        port: on the loopback address; 0 takes a free one.
        say: prints a line for people.
    """

    def __init__(self, folder: Path, port: int, say: Callable[[str], None]) -> None:
        self._folder = folder.resolve()
        self._port = port
        self._say = say
        self._stop = False
        self.children: list[Child] = []

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            CannotStart: the folder or the port is taken, or a child does not come up.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        with ExitStack() as stack:
            stack.enter_context(data_folder.held(self._folder))
            listener = stack.enter_context(address.listen(self._port))
            environment = self._environment()
            key = self._prepare()
            self.children = self._build(environment, listener.fileno())
            stack.callback(self._stop_children)
            for child in self.children:
                child.start()
            host, port = listener.getsockname()
            if not self._wait_until_ready(host, port):
                return
            pid = os.getpid()
            url = address.url_of(listener)
            stack.callback(credentials.withdraw, self._folder, pid)
            credentials.announce(self._folder, credentials.ClientFile(url, key, pid))
            self._say(f"Secateur is ready at {url} (data and logs in {self._folder})")
            while not self._stop:
                self._tend()
                time.sleep(_TICK_SECONDS)
            self._say("Stopping.")

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in _NOT_EMBEDDED}
        # the working directory may be anywhere; the children must find what this process found
        path = os.pathsep.join(entry for entry in sys.path if entry)
        return {**kept, "SECATEUR_DATA_DIR": str(self._folder), "PYTHONPATH": path}

    def _prepare(self) -> str:
        url = f"sqlite:///{self._folder / 'secateur.db'}"
        migrations.upgrade(url)
        database = Database(url)
        try:
            return credentials.ensure_key(database, self._folder)
        finally:
            database.dispose()

    def _build(self, environment: dict[str, str], listener: int) -> list[Child]:
        queues = "cpu" if Settings().gpu_device is None else "cpu,gpu"
        logs = self._folder / "logs"
        worker = ["--queues", queues, "--concurrency", "1", "--drain-seconds", _DRAIN_SECONDS]
        programs = {
            "api": ["-m", "service.embedded.web", "--fd", str(listener)],
            "dispatcher": ["-m", "workers.dispatcher"],
            "worker": ["-m", "workers.worker", *worker],
        }
        return [
            Child(
                name,
                arguments,
                environment,
                logs / f"{name}.log",
                pass_fds=(listener,) if name == "api" else (),
            )
            for name, arguments in programs.items()
        ]

    def _wait_until_ready(self, host: str, port: int) -> bool:
        """False when a signal came first."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._stop:
            for child in self.children:
                if child.pid is None:
                    raise CannotStart(
                        f"The {child.name} process ended at once.\n{child.tail()}",
                        f"Its log is {child.log}.",
                    )
            if _answers(host, port):
                return True
            if time.monotonic() > deadline:
                raise CannotStart(
                    f"The API did not answer within {_START_SECONDS:g} s.\n"
                    f"{self.children[0].tail()}",
                    f"Its log is {self.children[0].log}.",
                )
            time.sleep(_TICK_SECONDS)
        return False

    def _tend(self) -> None:
        for child in self.children:
            code = child.tend()
            if code is not None:
                self._say(
                    f"The {child.name} process ended with code {code}; it starts again in "
                    f"{child.seconds_to_restart:.1f} s. Its log is {child.log}."
                )

    def _stop_children(self) -> None:
        deadline = time.monotonic() + _STOP_SECONDS
        for child in self.children:
            child.terminate()
        for child in self.children:
            child.wait(deadline - time.monotonic())


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
