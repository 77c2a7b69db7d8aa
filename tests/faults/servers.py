"""Private PostgreSQL, Redis and RabbitMQ that can be stopped, killed and started again: same port,
same data."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kombu
import kombu.exceptions
import psycopg
import redis

from tests import services

START_SECONDS = 90.0


@dataclass
class Server:
    """One server of these tests alone.

    Attributes:
        name: for people.
        url: to use it.
        command: starts it in the foreground.
        ready: raises as long as it does not answer.
        log: file of its output.
        stop_signal: asks for an orderly stop.
        options: further ones of `subprocess.Popen`.
    """

    name: str
    url: str
    command: list[str]
    ready: Callable[[], Any]
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    options: Mapping[str, Any] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers. One that finds traces of its killed predecessor still
        going away is started again."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._process is None or self._process.poll() is not None:
                with self.log.open("ab") as output:
                    self._process = subprocess.Popen(
                        self.command,
                        stdout=output,
                        stderr=output,
                        start_new_session=True,
                        **self.options,
                    )
            try:
                self.ready()
                return
            except (OSError, psycopg.Error, redis.RedisError, kombu.exceptions.KombuError) as error:
                if time.monotonic() > deadline:
                    tail = self.log.read_text(errors="replace")[-2000:]
                    raise services.ServiceUnavailable(f"{self.name}: {error}\n{tail}") from error
                time.sleep(0.1)

    def stop(self, number: signal.Signals | None = None) -> None:
        """Ask it to stop and wait; what has not stopped in time is killed."""
        if self._process is None:
            return
        self._process.send_signal(number or self.stop_signal)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL to the server and everything it started."""
        if self._process is None:
            return
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None


@contextmanager
def postgres() -> Iterator[Server]:
    """PostgreSQL with one empty database; `url` is SQLAlchemy's."""
    folders = "usr/lib/postgresql/*/bin"
    initdb = services.binary("initdb", folders, "postgresql")
    program = services.binary("postgres", folders, "postgresql")
    user = services.unprivileged_user()
    with services.private_folder(user) as folder:
        data, port = folder / "data", services.free_port()
        subprocess.run(
            [initdb, "-D", str(data), "-U", "postgres", "--auth=trust", "-E", "UTF8", "-N"],
            check=True, user=user, capture_output=True, cwd=folder,
        )  # fmt: skip
        plain = f"postgresql://postgres@{services.HOST}:{port}/postgres"
        command = [program, "-D", str(data), "-h", services.HOST, "-p", str(port)]
        server = Server(
            "PostgreSQL",
            plain.replace("postgresql://", "postgresql+psycopg://"),
            [*command, "-k", str(folder), "-c", "fsync=off", "-c", "max_connections=200"],
            lambda: services._postgres_version(plain),
            folder / "log",
            stop_signal=signal.SIGINT,
            options={"user": user, "cwd": folder},
        )
        yield from _running(server)


@contextmanager
def redis_broker() -> Iterator[Server]:
    """Redis that keeps nothing on disk: a restart empties it."""
    path, port = services.binary("redis-server", "usr/bin", "redis-server"), services.free_port()
    with services.private_folder(None) as folder:
        server = Server(
            "Redis",
            f"redis://{services.HOST}:{port}/0",
            [
                path,
                "--bind",
                services.HOST,
                "--port",
                str(port),
                "--dir",
                str(folder),
                "--save",
                "",
            ],
            lambda: services._redis_version(port),
            folder / "log",
        )
        yield from _running(server)


@contextmanager
def rabbitmq_broker() -> Iterator[Server]:
    """RabbitMQ with durable queues: a restart keeps what was published."""
    path = services.binary("rabbitmq-server", "usr/lib/rabbitmq/bin", "rabbitmq-server")
    with services.private_folder(None) as folder:
        port = services.free_port()
        environment = services.rabbitmq_environment(folder, port)
        url = f"amqp://guest:guest@{services.HOST}:{port}/tests"
        server = Server(
            "RabbitMQ",
            url,
            [path],
            lambda: services._rabbitmq_version(url),
            folder / "log",
            options={"env": environment, "cwd": folder},
        )
        try:
            yield from _running(server)
        finally:
            # the node starts its own port mapper, which outlives it
            epmd = services.binary("epmd", "usr/lib/erlang/erts-*/bin", "erlang-base")
            subprocess.run([epmd, "-kill"], env=environment, capture_output=True, check=False)


BROKERS = {"redis": redis_broker, "rabbitmq": rabbitmq_broker}


def empty(broker: Server) -> None:
    """Throw away every message that waits in the broker."""
    if broker.name == "Redis":
        with redis.Redis.from_url(broker.url) as client:
            client.flushall()
        return
    with kombu.Connection(broker.url, connect_timeout=5) as connection:
        channel = connection.channel()
        channel.queue_purge("secateur-cpu")  # the one that is there: nobody serves the other


def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()
